// What the reader has chosen; kept in the address, so that a page can be passed on and loaded again as it is.
const DEFAULTS = {
  filter: "",
  sort: "rank",
  objective: 0,
  a: (best ?? trials[0])?.number ?? null,
  b: ([baseline, complete[1], ...trials].find((trial) => trial && trial !== (best ?? trials[0])))?.number ?? null,
  curves: "objective",
  against: "",
  hover: null,
};
const choice = { ...DEFAULTS, ...remembered() };
const listeners = [];
let visible = new Set(byNumber.keys());

function remembered() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1))), found = {};
  for (const name of ["filter", "sort", "curves", "against"]) if (name in given) found[name] = given[name];
  for (const side of ["a", "b"]) {
    if (given[side] === "untuned" && study.untuned) found[side] = "untuned";
    else if (byNumber.has(Number(given[side]))) found[side] = Number(given[side]);
  }
  if (given.objective in study.objectives) found.objective = Number(given.objective);
  return found;
}

function choose(change) {
  Object.assign(choice, change);
  if (!("hover" in change)) remember();
  for (const { names, action } of listeners) if (names.some((name) => name in change)) action();
}

function remember() {
  const kept = Object.entries(choice).filter(([name, value]) => name !== "hover" && value !== DEFAULTS[name]);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

function onChoice(names, action) {
  listeners.push({ names, action });
}

// Find out which trials the filter lets through; returns what is wrong with it.
function applyFilter() {
  const { terms, problem } = parseFilter(choice.filter);
  const found = trials.filter((trial) => terms.every((term) => holds(term, trial)));
  visible = new Set(found.map((trial) => trial.number));
  return problem;
}

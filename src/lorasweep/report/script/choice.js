// What the reader has chosen; kept in the address, so that a page can be passed on and loaded again as it is.
const DEFAULTS = {
  filter: "",
  sort: "rank",
  objective: 0,
  a: best?.number ?? trials[0]?.number ?? null,
  b: (baseline && baseline !== best ? baseline : complete[1] ?? trials.find((trial) => trial !== best))?.number ?? null,
  curves: "objective",
  against: "",
  hover: null,
};
const choice = { ...DEFAULTS, ...remembered() };
const listeners = [];

function remembered() {
  const found = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in DEFAULTS)) continue;
    const isNumber = ["objective", "a", "b"].includes(name) && text !== "untuned";
    found[name] = isNumber ? Number(text) : text;
  }
  for (const side of ["a", "b"]) if (side in found && found[side] !== "untuned" && !byNumber.has(found[side])) delete found[side];
  if (!(found.objective in study.objectives)) delete found.objective;
  return found;
}

function choose(change) {
  Object.assign(choice, change);
  if (!("hover" in change)) {
    const differing = Object.entries(choice).filter(([name, value]) => name !== "hover" && value !== DEFAULTS[name] && value !== null);
    history.replaceState(null, "", "#" + new URLSearchParams(differing));
  }
  for (const { names, action } of listeners) if (names.some((name) => name in change)) action();
}

function onChoice(names, action) {
  listeners.push({ names, action });
}

let visible = new Set(byNumber.keys());

function applyFilter() {
  const { terms, problem } = parseFilter(choice.filter);
  visible = new Set(trials.filter((trial) => terms.every((term) => holds(term, trial))).map((trial) => trial.number));
  return problem;
}

// Two trials side by side: what they were given and what came of it, differences first.
const pickers = {};

function drawComparison() {
  const root = document.getElementById("comparison");
  root.hidden = trials.length < 2 && !(trials.length && study.untuned);
  if (root.hidden) return;
  const { a, b } = choice;
  const swap = button("⇄", () => choose({ a: b, b: a }), { class: "quiet swap", "aria-label": "Swap A and B" });
  root.querySelector(".content").replaceChildren(
    element("div", { class: "sides" }, sideCard("a", a), swap, sideCard("b", b)),
    element("div", { class: "tables" }, settingsTable(a, b), metricsTable(a, b)),
  );
}

function sideCard(side, number) {
  const trial = byNumber.get(number), list = (pickers[side] ??= picker(side));
  list.value = number;
  const places = trial && element("span", { class: "links" }, links(trial));
  const why = trial?.why && element("p", { class: "why" }, trial.why.split("\n")[0]);
  const run = trial?.again && command(trial.again, `Copy the command that runs trial ${number} again`);
  const top = element("p", { class: "head" }, badge(side), list, places);
  return element("div", { class: `sidecard ${side}` }, top, why, run);
}

function picker(side) {
  const words = wordsOf(0);
  const options = trials.map((trial) => {
    const value = objectiveOf(trial, 0, true);
    const parts = [trial === baseline && "baseline", stateWords(trial.state), value !== undefined && words(value)];
    return element("option", { value: trial.number }, `${trial.number}: ${parts.filter(Boolean).join(" ")}`);
  });
  const untuned = study.untuned && element("option", { value: UNTUNED }, "the untuned model");
  const picking = ({ target }) => choose({ [side]: target.value === UNTUNED ? UNTUNED : Number(target.value) });
  return element("select", { "aria-label": `Trial ${side.toUpperCase()}`, onchange: picking }, options, untuned);
}

// The whole config of a trial where it is kept, else what it tried.
function configOf(number) {
  const own = study.configs.own[number];
  return own ? { ...study.configs.shared, ...own } : byNumber.get(number)?.point;
}

function settingsTable(a, b) {
  const [one, other] = [configOf(a), configOf(b)], head = element("h3", {}, "Settings that differ");
  if (!one || !other) return element("div", {}, head, note("The untuned model has no settings of training."));
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const differing = keys.filter((key) => key in one !== key in other || keyOf(one[key]) !== keyOf(other[key]));
  const same = keys.filter((key) => !differing.includes(key));
  const words = (config, key) => figureCell(key in config ? show(config[key]) : "–");
  const rows = differing.map((key) => element("tr", {}, rowHead(key), words(one, key), words(other, key)));
  const rest = same.map((key) => element("tr", {}, rowHead(key), words(one, key)));
  const summary = element("summary", {}, `${same.length} that are the same`);
  const more = element("details", {}, summary, plainTable(null, rest));
  return element("div", {}, head, rows.length ? plainTable(sideHead(), rows) : note("none"), same.length > 0 && more);
}

function sideHead() {
  return [element("th"), ["a", "b"].map((side) => figureCell(badge(side), "", "th"))];
}

// All numbers that are known of a trial, or of the untuned model.
function numbersOf(number) {
  if (number === UNTUNED) return study.untuned;
  const trial = byNumber.get(number);
  const objectives = study.objectives.map(({ key }, index) => [key, objectiveOf(trial, index, true)]);
  const known = [...objectives, ...Object.entries(trial.metrics), ["seconds", trial.seconds]];
  return Object.fromEntries(known.filter(([, value]) => value !== undefined));
}

function metricsTable(a, b) {
  const [one, other] = [numbersOf(a), numbersOf(b)];
  const keys = [...new Set([...study.objectives.map(({ key }) => key), ...study.metrics, "seconds"])];
  const shown = keys.filter((key) => (key in one || key in other) && !repeats(key));
  const head = [sideHead(), figureCell("B − A", "", "th")];
  const table = plainTable(head, shown.map((key) => metricRow(key, one[key], other[key])));
  return element("div", {}, element("h3", {}, "Metrics"), table);
}

function metricRow(key, one, other) {
  const objective = study.objectives.find((item) => item.key === key), write = formatter([one, other], 5);
  const differs = typeof one === "number" && typeof other === "number" && one !== other;
  const wantsLess = objective ? !objective.maximised : LESS_IS_BETTER.test(key);
  const isJudged = objective || /^(eval|last)\/|^memory\/|per_second$|seconds$/.test(key);
  const style = differs && isJudged ? (other < one === wantsLess ? "gain" : "loss") : "";
  const difference = figureCell(differs ? signed(other - one, write) : "", style);
  const name = rowHead(objective ? objective.name : key, { title: key });
  return element("tr", {}, name, figureCell(write(one)), figureCell(write(other)), difference);
}

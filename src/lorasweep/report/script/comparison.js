// Two trials side by side: what they were given and what came of it, differences first.
const UNTUNED = "untuned";

function drawComparison() {
  const root = document.getElementById("comparison");
  root.hidden = trials.length < 2 && !(trials.length && study.untuned);
  if (root.hidden) return;
  const content = root.querySelector(".content");
  const [a, b] = [choice.a, choice.b];
  content.replaceChildren(
    element("div", { class: "sides" }, sideCard("a", a), element("button", { type: "button", class: "quiet swap", title: "swap A and B", "aria-label": "Swap A and B", onclick: () => choose({ a: choice.b, b: choice.a }) }, "⇄"), sideCard("b", b)),
    element("div", { class: "tables" }, settingsTable(a, b), metricsTable(a, b)),
  );
}

function sideCard(side, number) {
  const list = element("select", { "aria-label": `Trial ${side.toUpperCase()}`, onchange: () => choose({ [side]: list.value === UNTUNED ? UNTUNED : Number(list.value) }) },
    trials.map((trial) => element("option", { value: trial.number }, optionWords(trial))), study.untuned ? element("option", { value: UNTUNED }, "the untuned model") : null);
  list.value = number;
  const trial = byNumber.get(number);
  const words = trial?.why ? element("p", { class: "why" }, trial.why.split("\n")[0]) : null;
  return element("div", { class: `sidecard ${side}` },
    element("p", { class: "head" }, element("span", { class: `badge ${side}` }, side.toUpperCase()), list, trial ? element("span", { class: "links" }, links(trial).slice(0, 3)) : null),
    words, trial ? again(trial) : null);
}

function optionWords(trial) {
  const value = objectiveOf(trial, choice.objective, true);
  const name = trial === baseline ? "baseline, " : "";
  return `${trial.number}: ${name}${stateWords(trial.state)}${value === undefined ? "" : ` ${wordsOf(choice.objective)(value)}`}`;
}

// The whole config of a trial where it is kept, else what it tried.
function configOf(number) {
  const own = study.configs.own[number];
  return own ? { ...study.configs.shared, ...own } : byNumber.get(number)?.point;
}

function settingsTable(a, b) {
  const [one, other] = [configOf(a), configOf(b)];
  if (!one || !other) return element("div", {}, element("h3", {}, "Settings"), element("p", { class: "note" }, "The untuned model has no settings of training."));
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const differing = keys.filter((key) => key in one !== key in other || keyOf(one[key]) !== keyOf(other[key]));
  const same = keys.filter((key) => !differing.includes(key));
  const line = (key) => element("tr", {}, element("th", { scope: "row" }, key), element("td", { class: "number" }, key in one ? show(one[key]) : "–"), element("td", { class: "number" }, key in other ? show(other[key]) : "–"));
  const body = differing.length ? differing.map(line) : [element("tr", {}, element("td", { colspan: 3, class: "note" }, "the same settings"))];
  return element("div", {}, element("h3", {}, "Settings that differ"),
    element("div", { class: "scroll" }, element("table", { class: "plain" }, sideHead(), element("tbody", {}, body))),
    same.length ? element("details", {}, element("summary", {}, `${same.length} that are the same`), element("div", { class: "scroll" }, element("table", { class: "plain" }, element("tbody", {}, same.map((key) => element("tr", {}, element("th", { scope: "row" }, key), element("td", { class: "number" }, show(one[key])))))))) : null);
}

function sideHead(...more) {
  return element("thead", {}, element("tr", {}, element("th", {}), ["a", "b"].map((side) => element("th", { class: "number" }, element("span", { class: `badge ${side}` }, side.toUpperCase()))), more));
}

function numbersOf(number) {
  if (number === UNTUNED) return study.untuned;
  const trial = byNumber.get(number);
  const objectives = study.objectives.map(({ key }, index) => [key, objectiveOf(trial, index, true)]).filter(([, value]) => value !== undefined);
  return { ...Object.fromEntries(objectives), ...trial.metrics, ...(trial.seconds === undefined ? {} : { seconds: trial.seconds }) };
}

function metricsTable(a, b) {
  const [one, other] = [numbersOf(a), numbersOf(b)];
  const keys = [...study.objectives.map(({ key }) => key), ...study.metrics, "seconds"].filter((key, index, all) => all.indexOf(key) === index && (key in one || key in other) && !repeats(key));
  const line = (key) => {
    const [x, y] = [one[key], other[key]], write = formatter([x, y], 5);
    const differs = typeof x === "number" && typeof y === "number" && x !== y;
    const objective = study.objectives.find((item) => item.key === key);
    const less = objective ? !objective.maximised : LESS_IS_BETTER.test(key);
    const judged = objective || /^(eval|last)\/|^memory\/|per_second$|seconds$/.test(key);
    const style = differs && judged ? (y < x === less ? "gain" : "loss") : "";
    return element("tr", {}, element("th", { scope: "row", title: key }, objective ? objective.name : key),
      element("td", { class: "number" }, write(x)), element("td", { class: "number" }, write(y)), element("td", { class: `number ${style}` }, differs ? signed(y - x, write) : ""));
  };
  return element("div", {}, element("h3", {}, "Metrics"), element("div", { class: "scroll" }, element("table", { class: "plain" }, sideHead(element("th", { class: "number" }, "B − A")), element("tbody", {}, keys.map(line)))));
}

// What quality costs: the objective against memory, time or another number, and the trials that nothing beats in both.
const COSTS = tradeoffs();

function tradeoffs() {
  const first = ["memory/peak_gib", "seconds", "train/seconds", "tokens/per_second"];
  const isCost = ({ key, isNumber, isKnob, index }) =>
    isNumber && !isKnob && index !== 0 && !/^(rank|trial|difference|slot|last\/.*|objective\/step)$/.test(key);
  const varied = columns.filter((column) => isCost(column) && new Set(complete.map(column.get)).size > 1);
  const place = ({ key, isObjective }) => (isObjective ? -1 : (first.indexOf(key) + 9) % 9);
  return varied.sort((one, other) => place(one) - place(other));
}

figure("tradeoff", (item) => {
  const k = choice.objective, { maximised, name } = study.objectives[k];
  const column = COSTS.find(({ key }) => key === choice.against) ?? COSTS.find(({ index }) => index !== k || !k);
  offerCosts(item.root, column);
  if (!column) return empty(item.plot, "No other number differs between complete trials.");
  const shown = complete.filter((trial) => Number.isFinite(column.get(trial)));
  const values = shown.map((trial) => objectiveOf(trial, k)), costs = shown.map(column.get);
  const area = inner(item.width, 292, { left: leftOf(objectiveScale(values, maximised, [0, 180])) });
  const y = objectiveScale(values, maximised, [area.bottom, area.top]);
  const x = linear(padded(Math.min(...costs), Math.max(...costs)), [area.left, area.right]);
  const drawn = drawing(item.width, 292, `${name} against ${column.name}`);
  const title = column.key === "seconds" ? "time in s" : column.name;
  drawn.append(axis("left", y, area, { title: name }), axis("bottom", x, area, { title }));
  const place = (trial) => [x(column.get(trial)), clamped(y, objectiveOf(trial, k))];
  const wantsMore = column.isObjective ? study.objectives[column.index].maximised : !LESS_IS_BETTER.test(column.key);
  const front = frontOf(shown, column, k, wantsMore);
  drawn.append(svg("path", { class: "front-line", d: stairs(front.map(place)) }));
  for (const trial of shown.reverse()) marker(item, drawn, trial, place(trial), front.includes(trial) ? 1.3 : 0.9);
  item.plot.replaceChildren(drawn);
  item.note(`on the line: nothing is better in both; ${wantsMore ? "more" : "less"} ${column.name} is better`);
}, "against");

function frontOf(shown, column, k, wantsMore) {
  const cost = (trial) => (wantsMore ? -column.get(trial) : column.get(trial));
  const better = (one, other) => (isBetter(objectiveOf(one, k), objectiveOf(other, k), k) ? -1 : 1);
  let record;
  return shown.toSorted((one, other) => cost(one) - cost(other) || better(one, other)).filter((trial) => {
    const value = objectiveOf(trial, k), isFirst = record === undefined || isBetter(value, record, k);
    if (isFirst) record = value;
    return isFirst;
  });
}

function stairs(places) {
  const corners = places.flatMap(([x, y], index) => (index ? [[x, places[index - 1][1]], [x, y]] : [[x, y]]));
  return corners.length ? path(corners) : "";
}

function offerCosts(root, chosen) {
  const list = root.querySelector("select");
  root.querySelector("label").hidden = COSTS.length < 2;
  if (!list.childElementCount) {
    list.append(...COSTS.map(({ key, name }) => element("option", { value: key }, name)));
    list.addEventListener("change", () => choose({ against: list.value }));
  }
  if (chosen) list.value = chosen.key;
}

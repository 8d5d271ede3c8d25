// What quality costs: the objective against memory, time or another number, and the trials that nothing beats in both.
const COSTS = tradeoffs();

function tradeoffs() {
  const others = columns.filter((column) => column.isNumber && !column.isKnob && !["rank", "trial", "difference", "slot"].includes(column.key) && !column.key.startsWith("last/"));
  const varied = others.filter((column) => column.index !== 0 && new Set(complete.map(column.get)).size > 1);
  const first = ["memory/peak_gib", "seconds", "train/seconds", "tokens/per_second"];
  const place = (column) => (column.isObjective ? -1 : (first.indexOf(column.key) + 9) % 9);
  return varied.sort((one, other) => place(one) - place(other));
}

figure("tradeoff", (item) => {
  const k = choice.objective;
  const column = COSTS.find((cost) => cost.key === choice.against) ?? COSTS.find((cost) => cost.index !== k || !cost.isObjective);
  offerCosts(item.root, column);
  if (!column) return empty(item.plot, "No other number differs between complete trials.");
  const { maximised, name } = study.objectives[k];
  const shown = complete.filter((trial) => Number.isFinite(column.get(trial)));
  const wantsMore = column.isObjective ? study.objectives[column.index].maximised : !LESS_IS_BETTER.test(column.key);
  const height = 292, values = shown.map((trial) => objectiveOf(trial, k));
  const area = inner(item.width, height, { left: leftOf(objectiveScale(values, maximised, [0, 180]), 5) });
  const y = objectiveScale(values, maximised, [area.bottom, area.top]);
  const costs = shown.map(column.get);
  const x = linear(padded(Math.min(...costs), Math.max(...costs)), [area.left, area.right]);
  const drawn = drawing(item.width, height, `${name} against ${column.name}`);
  drawn.append(axis("left", y, area, { title: name }), axis("bottom", x, area, { title: column.key === "seconds" ? "time in s" : column.name }));
  const front = frontOf(shown, column, k, wantsMore);
  drawn.append(svg("path", { class: "front-line", d: front.length ? path(front.flatMap((trial, index) => corner(trial, front[index - 1], column, k, x, y))) : "" }));
  for (const trial of [...shown].reverse()) {
    const place = [x(column.get(trial)), clamped(y, objectiveOf(trial, k))];
    drawn.append(mark(trial, ...place, front.includes(trial) ? 1.3 : 0.9));
    hit(item, trial, drawn, [place]);
  }
  item.plot.replaceChildren(drawn);
  item.note(`on the line: nothing is better in both; ${wantsMore ? "more" : "less"} ${column.name} is better`);
}, "against");

function frontOf(shown, column, k, wantsMore) {
  const sorted = [...shown].sort((one, other) => {
    const difference = column.get(one) - column.get(other);
    return (wantsMore ? -difference : difference) || (isBetter(objectiveOf(one, k), objectiveOf(other, k), k) ? -1 : 1);
  });
  let record;
  return sorted.filter((trial) => {
    const value = objectiveOf(trial, k);
    if (record !== undefined && !isBetter(value, record, k)) return false;
    record = value;
    return true;
  });
}

function corner(trial, before, column, k, x, y) {
  const place = [x(column.get(trial)), clamped(y, objectiveOf(trial, k))];
  return before ? [[place[0], clamped(y, objectiveOf(before, k))], place] : [place];
}

function offerCosts(root, chosen) {
  const list = root.querySelector("select");
  root.querySelector("label").hidden = COSTS.length < 2;
  if (!list.childElementCount) {
    list.append(...COSTS.map((column) => element("option", { value: column.key }, column.name)));
    list.addEventListener("change", () => choose({ against: list.value }));
  }
  if (chosen) list.value = chosen.key;
}

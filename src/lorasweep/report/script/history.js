// The value of every trial in the order in which they were made, and the best so far.
figure("history", (item) => {
  const k = choice.objective, objective = study.objectives[k];
  const valued = trials.filter((trial) => Number.isFinite(objectiveOf(trial, k, true)));
  if (!trials.length) return empty(item.plot, "No trials yet.");
  const height = 260, others = trials.filter((trial) => !valued.includes(trial));
  const lane = others.length ? 22 : 0;
  const values = worthLooking(valued, k);
  const area = inner(item.width, height, { left: leftOf(linear(padded(Math.min(...values), Math.max(...values)), [0, 180]), 5), bottom: 40 + lane });
  const y = linear(padded(Math.min(...values), Math.max(...values), false, 0.06), [area.bottom, area.top]);
  const most = Math.max(...byNumber.keys(), 1);
  const x = linear([-0.5, most + 0.5], [area.left, area.right]);
  const drawn = drawing(item.width, height, `${objective.name} of every trial, with the best so far`);
  drawn.append(axis("left", y, area, { title: objective.name }), axis("bottom", numbered(x, most), { ...area, bottom: area.bottom + lane }, { title: "trial" }));
  drawn.append(svg("path", { class: "best-so-far", d: steps(k, x, y, area) }));
  reference(drawn, y, area, k);
  for (const trial of [...valued].sort((one, other) => Boolean(one.values) - Boolean(other.values))) {
    const place = [x(trial.number), clamped(y, objectiveOf(trial, k, true))];
    drawn.append(mark(trial, ...place));
    hit(item, trial, drawn, [place]);
  }
  for (const trial of others) {
    const place = [x(trial.number), area.bottom + lane - 7];
    drawn.append(mark(trial, ...place));
    hit(item, trial, drawn, [place]);
  }
  item.plot.replaceChildren(drawn, legend());
  item.note(beyond(valued.map((trial) => objectiveOf(trial, k, true)), y));
});

// Values of complete trials, and of the others those that are not further off than those are apart.
function worthLooking(valued, k) {
  const values = complete.map((trial) => objectiveOf(trial, k)), others = valued.map((trial) => objectiveOf(trial, k, true));
  if (values.length < 2) return others;
  const { maximised } = study.objectives[k];
  const [low, high] = focus(values, maximised);
  const inside = others.filter((value) => (maximised ? value >= low - (high - low) : value <= high + (high - low)));
  return [low, high, ...inside];
}

function numbered(x, most) {
  const step = Math.max(1, ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].filter((size) => (most + 1) / size >= 5));
  const ticks = Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => ({ value: index * step, at: x(index * step), words: String(index * step) }));
  return Object.assign((value) => x(value), { ticks: () => ticks });
}

function steps(k, x, y, area) {
  let record;
  const points = [];
  for (const trial of [...complete].sort((one, other) => one.number - other.number)) {
    const value = objectiveOf(trial, k);
    if (record !== undefined && !isBetter(value, record, k)) continue;
    if (record !== undefined) points.push([x(trial.number), clamped(y, record)]);
    points.push([x(trial.number), clamped(y, value)]);
    record = value;
  }
  return points.length ? path([...points, [area.right, clamped(y, record)]]) : "";
}

function reference(drawn, y, area, k) {
  const value = baseline && objectiveOf(baseline, k);
  if (typeof value !== "number") return;
  const at = clamped(y, value);
  drawn.append(svg("line", { class: "reference", x1: area.left, x2: area.right, y1: at, y2: at }));
}

function beyond(values, scale) {
  const count = values.filter((value) => value < scale.domain[0] || value > scale.domain[1]).length;
  return count ? `${count} far off, drawn at the edge` : "";
}

function legend() {
  const kinds = new Map(trials.map((trial) => [glyph(trial), trial]));
  return element("ul", { class: "legend" }, [...kinds].map(([name, trial]) => element("li", {}, plainSign(trial), stateWords(name))), element("li", {}, element("i", { class: "step" }), "best so far"));
}

function plainSign(trial) {
  const node = sign(trial);
  node.firstChild.removeAttribute("data-n");
  return node;
}

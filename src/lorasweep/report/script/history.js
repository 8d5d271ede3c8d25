// The value of every trial in the order in which they were made, and the best so far.
figure("history", (item) => {
  if (!trials.length) return empty(item.plot, "No trials yet.");
  const k = choice.objective, { name } = study.objectives[k];
  const value = (trial) => objectiveOf(trial, k, true);
  const valued = trials.filter((trial) => Number.isFinite(value(trial)));
  const others = trials.filter((trial) => !valued.includes(trial)), lane = others.length ? 22 : 0;
  const shown = worthLooking(valued.map(value), k);
  const domain = padded(Math.min(...shown), Math.max(...shown), false, 0.06);
  const area = inner(item.width, 260, { left: leftOf(linear(domain, [0, 180])), bottom: 40 + lane });
  const y = linear(domain, [area.bottom, area.top]), last = Math.max(...byNumber.keys());
  const x = linear([-0.5, last + 0.5], [area.left, area.right]);
  const drawn = drawing(item.width, 260, `${name} of every trial, with the best so far`);
  drawn.append(axis("left", y, area, { title: name }));
  drawn.append(axis("bottom", numbered(x, last), { ...area, bottom: area.bottom + lane }, { title: "trial" }));
  drawn.append(svg("path", { class: "best-so-far", d: bestSoFar(k, x, y, area.right) }), baselineAt(y, area, k));
  const inFront = valued.toSorted((one, other) => Boolean(one.values) - Boolean(other.values));
  const size = valued.length > 200 ? 0.8 : 1;
  for (const trial of inFront) marker(item, drawn, trial, [x(trial.number), clamped(y, value(trial))], size);
  for (const trial of others) marker(item, drawn, trial, [x(trial.number), area.bottom + lane - 7]);
  item.plot.replaceChildren(drawn, stateLegend());
  const outside = valued.filter((trial) => value(trial) < domain[0] || value(trial) > domain[1]).length;
  item.note(outside ? `${outside} far off, drawn at the edge` : "");
});

// Values of complete trials, and of the others those that are not further off than those are apart.
function worthLooking(values, k) {
  if (complete.length < 2) return values.length ? values : [0];
  const { maximised } = study.objectives[k];
  const [low, high] = focus(complete.map((trial) => objectiveOf(trial, k)), maximised), size = high - low;
  const inside = values.filter((value) => (maximised ? value >= low - size : value <= high + size));
  return [low, high, ...inside];
}

function numbered(x, last) {
  const step = [500, 200, 100, 50, 20, 10, 5, 2].find((size) => last / size >= 4) ?? 1;
  const numbers = Array.from({ length: Math.floor(last / step) + 1 }, (_, index) => index * step);
  return { ticks: () => numbers.map((value) => ({ at: x(value), words: String(value) })) };
}

function bestSoFar(k, x, y, right) {
  const points = [];
  let record;
  for (const trial of complete.toSorted((one, other) => one.number - other.number)) {
    const value = objectiveOf(trial, k), at = x(trial.number);
    if (record !== undefined && !isBetter(value, record, k)) continue;
    if (record !== undefined) points.push([at, clamped(y, record)]);
    points.push([at, clamped(y, value)]);
    record = value;
  }
  return points.length ? path([...points, [right, clamped(y, record)]]) : "";
}

function baselineAt(y, area, k) {
  const value = baseline && objectiveOf(baseline, k), at = value === undefined ? 0 : clamped(y, value);
  return value === undefined ? "" : svg("line", { class: "reference", x1: area.left, x2: area.right, y1: at, y2: at });
}

function stateLegend() {
  const kinds = new Map(trials.map((trial) => [glyph(trial), trial]));
  const items = [...kinds].map(([name, trial]) => element("li", {}, plainSign(trial), stateWords(name)));
  const step = element("li", {}, element("i", { class: "step" }), "best so far");
  return element("ul", { class: "legend" }, items, step);
}

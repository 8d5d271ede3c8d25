// Every complete trial as a line over the values it tried and what it scored; dragging along an axis filters.
figure("parallel", (item) => {
  const keys = study.keys.filter((key) => valuesOf(key).length > 1 || trials.some((trial) => trial.point[key.key] === undefined));
  if (!keys.length || !complete.length) return empty(item.plot, complete.length ? "Nothing varies." : "No trial is complete yet.");
  const count = keys.length + study.objectives.length, height = 340;
  const width = Math.max(item.width, 92 * count);
  const area = inner(width, height, { left: Math.max(46, Math.min(leftOf(scaleOf(keys[0], [0, 1]), 6), 120)), right: Math.max(30, 4 * study.objectives.at(-1).name.length), top: 44, bottom: 22 });
  const drawn = drawing(width, height, "Values and objective of every complete trial, one line each");
  const axes = [...keys.map((key) => knobAxis(key, area)), ...study.objectives.map((_, index) => scoreAxis(index, area))];
  axes.forEach((axis, index) => (axis.x = area.left + (index / Math.max(1, count - 1)) * area.width));
  const lines = svg("g", { class: complete.length > 60 ? "many" : "" });
  for (const trial of [...trials].reverse()) {
    const points = axes.map((axis) => axis.place(trial)).map((y, index) => (y === null ? null : [axes[index].x, y])).filter(Boolean);
    if (points.length < 2 || !(trial.values || trial.state === "pruned")) continue;
    lines.append(marked(svg("path", { class: `line ${classOf(trial)}`, d: path(points) }), trial));
    hit(item, trial, drawn, points);
  }
  drawn.append(lines);
  axes.forEach((axis) => drawn.append(drawAxis(axis, area, Math.min(150, area.width / count))));
  item.axes = axes;
  item.plot.replaceChildren(drawn, scaleLegend());
  drawBrushes(item);
  item.note("drag along an axis to filter");
});

function knobAxis(key, area) {
  const isPartial = trials.some((trial) => trial.point[key.key] === undefined);
  const bottom = isPartial ? area.bottom - 26 : area.bottom;
  const scale = scaleOf(key, [bottom, area.top]);
  const place = (trial) => (trial.point[key.key] === undefined ? area.bottom : scale(trial.point[key.key]));
  return { key: key.key, name: key.name, scale, place, missing: isPartial ? area.bottom : null };
}

function scoreAxis(index, area) {
  const { key, name, maximised } = study.objectives[index];
  const range = maximised ? [area.bottom, area.top] : [area.top, area.bottom];
  const scale = objectiveScale(complete.map((trial) => objectiveOf(trial, index)), maximised, range);
  return { key, name, scale, isScore: true, place: (trial) => (trial.values ? clamped(scale, objectiveOf(trial, index)) : null) };
}

function drawAxis({ key, name, scale, x, missing, isScore }, area, room) {
  const group = svg("g", { class: `axis upright${isScore ? " score" : ""}`, transform: `translate(${x.toFixed(1)},0)` });
  group.append(svg("title", {}, key), svg("line", { class: "spine", y1: area.top, y2: area.bottom }), svg("text", { class: "title", y: 16, "text-anchor": "middle" }, shortened(name, room)), isScore ? svg("text", { y: 30, "text-anchor": "middle" }, "↑ better") : "");
  const ticks = [...scale.ticks(6), ...(missing === null || missing === undefined ? [] : [{ at: missing, words: "–" }])];
  for (const { at, words } of ticks) group.append(svg("line", { class: "tick", x1: -3, x2: 3, y1: at, y2: at }), svg("text", { class: "value", x: -7, y: at, dy: "0.32em", "text-anchor": "end" }, shortened(words, room * 0.72)));
  group.append(svg("g", { class: "brush", "data-axis": key }), grip(key, scale, area));
  return group;
}

// The part of an axis that is dragged over; a click on it takes its conditions away.
function grip(key, scale, area) {
  const node = svg("rect", { class: "grip", x: -14, width: 28, y: area.top - 8, height: area.height + 16 });
  let begin = null;
  const at = (event) => {
    const box = node.getBoundingClientRect();
    return area.top - 8 + ((event.clientY - box.top) / box.height) * (area.height + 16);
  };
  node.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") return;
    begin = at(event);
    node.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  node.addEventListener("pointerup", (event) => {
    if (begin === null) return;
    const [low, high] = [begin, at(event)].sort((one, other) => one - other);
    begin = null;
    choose({ filter: withConditions(choice.filter, key, high - low < 4 ? [] : conditions(key, scale, low, high)) });
  });
  node.addEventListener("click", (event) => event.stopPropagation());
  return node;
}

function conditions(key, scale, low, high) {
  if (!scale.values) {
    const ends = [scale.invert(low), scale.invert(high)].sort((one, other) => one - other);
    return [`${key}>=${significant(ends[0], 3).replace(MINUS, "-")}`, `${key}<=${significant(ends[1], 3).replace(MINUS, "-")}`];
  }
  const inside = scale.values.filter((value) => scale(value) >= low && scale(value) <= high);
  return inside.length ? [`${key}=${inside.map(quoted).join(",")}`] : [];
}

function drawBrushes(item) {
  const { terms } = parseFilter(choice.filter);
  for (const { key, scale } of item.axes ?? []) {
    const mine = terms.filter((term) => term.column?.key === key);
    const layer = item.plot.querySelector(`[data-axis="${CSS.escape(key)}"]`);
    layer.replaceChildren(...(mine.length ? bars(mine, scale) : []));
  }
}

function bars(terms, scale) {
  const bar = (one, other) => svg("rect", { x: -5, width: 10, rx: 3, y: Math.min(one, other), height: Math.max(4, Math.abs(other - one)) });
  if (scale.values) {
    const kept = scale.values.filter((value) => terms.every((term) => term.options.some((option) => fits(value, term.sign === "!=" ? "=" : term.sign, option)) !== (term.sign === "!=")));
    return kept.map((value) => bar(scale(value) - 8, scale(value) + 8));
  }
  const ends = [...scale.domain];
  for (const { sign, options } of terms) {
    const value = Number(options[0].replace(MINUS, "-"));
    if (sign.startsWith(">")) ends[0] = value;
    if (sign.startsWith("<")) ends[1] = value;
  }
  return [bar(clamped(scale, ends[0]), clamped(scale, ends[1]))];
}

function scaleLegend() {
  return element("ul", { class: "legend" }, element("li", {}, "worst", element("i", { class: "ramp" }), "best"), trials.some((trial) => trial.state === "pruned") ? element("li", {}, element("i", { class: "faint" }), "pruned") : null);
}

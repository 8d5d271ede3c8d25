// Every complete trial as a line over the values it tried and what it scored.
figure("parallel", (item) => {
  const isPartial = (key) => trials.some((trial) => trial.point[key.key] === undefined);
  const keys = study.keys.filter((key) => valuesOf(key).length > 1 || isPartial(key));
  if (!complete.length) return empty(item.plot, "No trial is complete yet.");
  if (!keys.length) return empty(item.plot, "Nothing varies.");
  const count = keys.length + study.objectives.length, width = Math.max(item.width, 92 * count), height = 340;
  const left = Math.max(46, Math.min(leftOf(scaleOf(keys[0], [0, 1])), 120));
  const right = Math.max(30, 4 * study.objectives.at(-1).name.length);
  const area = inner(width, height, { left, right, top: 44, bottom: 22 });
  const knobs = keys.map((key) => knobAxis(key, area, isPartial(key)));
  const axes = [...knobs, ...study.objectives.map((_, index) => scoreAxis(index, area))];
  axes.forEach((axis, index) => (axis.x = area.left + (index / (count - 1)) * area.width));
  const drawn = drawing(width, height, "Values and objective of every complete trial, one line each");
  const lines = svg("g", { class: complete.length > 60 ? "many" : null });
  for (const trial of trials.filter(({ values, state }) => values || state === "pruned").reverse()) {
    const points = axes.map((axis) => [axis.x, axis.place(trial)]).filter(([, y]) => y !== null);
    line(item, drawn, trial, points, lines);
  }
  const room = Math.min(150, area.width / count);
  drawn.append(lines, ...axes.map((axis) => uprightAxis(axis, area, room)));
  item.axes = axes;
  item.plot.replaceChildren(drawn, rampLegend());
  drawBrushes(item);
  item.note("drag along an axis to filter");
});

function knobAxis({ key, name, ...kind }, area, isPartial) {
  const bottom = isPartial ? area.bottom - 26 : area.bottom;
  const scale = scaleOf({ key, ...kind }, [bottom, area.top]);
  // spread a little where many take one value, the same way on every axis
  const spread = scale.values && complete.length > 8 ? Math.min(scale.band * 0.3, 14) : 0;
  const at = (trial) => scale(trial.point[key]) + apart(trial) * spread;
  const place = (trial) => (trial.point[key] === undefined ? area.bottom : at(trial));
  return { key, name, scale, place, missing: isPartial ? [{ at: area.bottom, words: "–" }] : [] };
}

function scoreAxis(index, area) {
  const { key, name, maximised } = study.objectives[index], values = complete.map((trial) => objectiveOf(trial, index));
  const scale = objectiveScale(values, maximised, maximised ? [area.bottom, area.top] : [area.top, area.bottom]);
  const place = (trial) => (trial.values ? clamped(scale, objectiveOf(trial, index)) : null);
  return { key, name, scale, place, missing: [], isScore: true };
}

function uprightAxis({ key, name, scale, x, missing, isScore }, area, room) {
  const place = { class: `axis upright${isScore ? " score" : ""}`, transform: `translate(${x.toFixed(1)},0)` };
  const title = svg("text", { class: "title", y: 16, "text-anchor": "middle" }, shortened(name, room));
  const better = isScore && svg("text", { y: 30, "text-anchor": "middle" }, "↑ better");
  const spine = svg("line", { class: "spine", y1: area.top, y2: area.bottom });
  const ticks = [...scale.ticks(6), ...missing].map(({ at, words }) => [
    svg("line", { class: "tick", x1: -3, x2: 3, y1: at, y2: at }),
    svg("text", { class: "value", x: -7, y: at, dy: "0.32em", "text-anchor": "end" }, shortened(words, room * 0.72)),
  ]);
  const brush = svg("g", { class: "brush", "data-axis": key });
  return svg("g", place, svg("title", {}, key), spine, title, better, ticks, brush, grip(key, scale, area));
}

function rampLegend() {
  const ramp = element("li", {}, "worst", element("i", { class: "ramp" }), "best");
  const pruned = element("li", {}, element("i", { class: "faint" }), "pruned");
  return element("ul", { class: "legend" }, ramp, trials.some((trial) => trial.state === "pruned") && pruned);
}

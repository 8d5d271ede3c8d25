// The objective against one value at a time.
figure("slices", (item) => {
  const keys = study.keys.filter((key) => valuesOf(key).length > 1);
  if (!complete.length) return empty(item.plot, "No trial is complete yet.");
  if (!keys.length) return empty(item.plot, "Nothing varies.");
  const { maximised, name } = study.objectives[choice.objective], height = 190;
  const rows = Math.ceil(keys.length / Math.max(1, Math.min(6, Math.floor(item.width / 190))));
  const across = Math.ceil(keys.length / rows), width = Math.floor((item.width - 12 * (across - 1)) / across);
  const values = complete.map((trial) => objectiveOf(trial, choice.objective));
  const left = leftOf(objectiveScale(values, maximised, [0, 120]), 3);
  const area = inner(width, height, { left, right: 8, top: 14, bottom: 40 });
  const y = objectiveScale(values, maximised, [area.bottom, area.top]);
  const slices = keys.map((key) => slice(item, key, y, area, drawing(width, height, `${name} against ${key.key}`)));
  item.plot.replaceChildren(element("div", { class: "small-multiples", style: `--across:${across}` }, slices));
  item.note(`${name} against each value; the lines are medians`);
});

function slice(item, key, y, area, drawn) {
  const x = scaleOf(key, [area.left + 4, area.right]), spread = x.values ? Math.min(x.band * 0.5, 26) : 0;
  const shown = complete.filter((trial) => trial.point[key.key] !== undefined).reverse();
  drawn.append(axis("left", y, area, { count: 3 }), axis("bottom", x, area, { title: key.name, count: 3 }));
  for (const trial of shown) {
    const place = [x(trial.point[key.key]) + apart(trial) * spread, clamped(y, objectiveOf(trial, choice.objective))];
    marker(item, drawn, trial, place, shown.length > 150 ? 0.6 : 0.8);
  }
  for (const value of x.values ?? []) {
    const mine = shown.filter((trial) => keyOf(trial.point[key.key]) === keyOf(value));
    if (mine.length > 1) drawn.append(median(mine, x(value), Math.min(x.band * 0.35, 16), y));
  }
  return drawn;
}

function median(group, x, half, y) {
  const values = group.map((trial) => objectiveOf(trial, choice.objective)).sort(ascending);
  const at = clamped(y, quantile(values, 0.5));
  return svg("line", { class: "median", x1: x - half, x2: x + half, y1: at, y2: at });
}

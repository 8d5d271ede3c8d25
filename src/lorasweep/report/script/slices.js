// The objective against one value at a time.
figure("slices", (item) => {
  const keys = study.keys.filter((key) => valuesOf(key).length > 1);
  if (!keys.length || !complete.length) return empty(item.plot, complete.length ? "Nothing varies." : "No trial is complete yet.");
  const k = choice.objective, { maximised, name } = study.objectives[k];
  const rows = Math.ceil(keys.length / Math.max(1, Math.min(6, Math.floor(item.width / 190))));
  const across = Math.ceil(keys.length / rows);
  const width = Math.floor((item.width - 12 * (across - 1)) / across), height = 190;
  const values = complete.map((trial) => objectiveOf(trial, k));
  const left = leftOf(objectiveScale(values, maximised, [0, 120]), 3);
  const area = inner(width, height, { left, right: 8, top: 14, bottom: 40 });
  const y = objectiveScale(values, maximised, [area.bottom, area.top]);
  item.plot.replaceChildren(element("div", { class: "small-multiples", style: `--across:${across}` }, keys.map((key) => slice(item, key, y, area, width, height))));
  item.note(`${name} against each value; the lines are medians`);
});

function slice(item, key, y, area, width, height) {
  const drawn = drawing(width, height, `${study.objectives[choice.objective].name} against ${key.key}`);
  const x = scaleOf(key, [area.left + 4, area.right]);
  drawn.append(axis("left", y, area, { count: 3 }), axis("bottom", x, area, { title: key.name, count: 3 }));
  const shown = complete.filter((trial) => trial.point[key.key] !== undefined).reverse();
  for (const trial of shown) {
    const jitter = x.values ? (((trial.number * 0.618) % 1) - 0.5) * Math.min(x.band * 0.5, 26) : 0;
    const place = [x(trial.point[key.key]) + jitter, clamped(y, objectiveOf(trial, choice.objective))];
    drawn.append(mark(trial, ...place, shown.length > 150 ? 0.6 : 0.8));
    hit(item, trial, drawn, [place]);
  }
  for (const value of x.values ?? []) {
    const mine = shown.filter((trial) => keyOf(trial.point[key.key]) === keyOf(value)).map((trial) => objectiveOf(trial, choice.objective)).sort((one, other) => one - other);
    const at = mine.length > 1 ? clamped(y, quantile(mine, 0.5)) : null;
    if (at !== null) drawn.append(svg("line", { class: "median", x1: x(value) - Math.min(x.band * 0.35, 16), x2: x(value) + Math.min(x.band * 0.35, 16), y1: at, y2: at }));
  }
  return drawn;
}

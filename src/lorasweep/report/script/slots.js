// Which trial ran in which slot and when.
figure("slots", (item) => {
  const found = study.timeline;
  if (!found) {
    item.root.hidden = true;
    return;
  }
  const places = [...new Set(found.bars.map((bar) => bar.slot))].sort((one, other) => one - other);
  const area = inner(item.width, 52 + 26 * places.length, { left: 52, right: 12, top: 8, bottom: 44 });
  const x = linear([0, found.length || 1], [area.left, area.right]);
  const drawn = drawing(item.width, 52 + 26 * places.length, "Trials in the order and the slots in which they ran");
  drawn.append(axis("bottom", timed(x, found.length, area.width), area, { title: "time" }));
  places.forEach((slot, row) => drawn.append(svg("text", { class: "value", x: 0, y: area.top + 26 * row + 16 }, `slot ${slot}`)));
  for (const bar of found.bars) {
    const trial = byNumber.get(bar.trial), y = area.top + 26 * places.indexOf(bar.slot) + 2;
    const [begin, end] = [x(bar.begin), Math.max(x(bar.end), x(bar.begin) + 1.5)];
    const box = svg("rect", { x: begin, y, width: Math.max(end - begin - 1, 1), height: 20, rx: Math.min(3, (end - begin) / 4) });
    const label = end - begin > 9 + 7 * String(trial.number).length ? svg("text", { x: (begin + end) / 2, y: y + 14, "text-anchor": "middle" }, trial.number) : null;
    drawn.append(marked(svg("g", { class: `bar ${classOf(trial)}` }, box, label), trial));
    hit(item, trial, drawn, [[begin, y + 10], [end, y + 10]]);
  }
  for (const gap of found.gaps) drawn.append(svg("g", { class: "gap" }, svg("title", {}, `${span(gap.seconds)} without trials`), svg("rect", { x: x(gap.at), y: area.top - 4, width: Math.max(2, x(gap.at + gap.width) - x(gap.at)), height: area.height + 4 })));
  item.plot.replaceChildren(drawn);
  const busy = found.bars.reduce((sum, bar) => sum + bar.end - bar.begin, 0);
  item.note(`${span(busy)} in ${plural(places.length, "slot")}${found.gaps.length ? `; ${plural(found.gaps.length, "pause")} left out` : ""}`);
});

function timed(x, length, width) {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 604800];
  const step = steps.find((size) => length / size <= width / 90) ?? 604800;
  const ticks = Array.from({ length: Math.floor(length / step) + 1 }, (_, index) => ({ at: x(index * step), words: index ? span(index * step) : "0" }));
  return Object.assign((value) => x(value), { ticks: () => ticks });
}

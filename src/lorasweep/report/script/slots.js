// Which trial ran in which slot and when.
figure("slots", (item) => {
  const found = study.timeline;
  item.root.hidden = !found;
  if (!found) return;
  const slots = [...new Set(found.bars.map((bar) => bar.slot))].sort(ascending), height = 52 + 26 * slots.length;
  const area = inner(item.width, height, { left: 52, right: 12, top: 8, bottom: 44 });
  const x = linear([0, found.length || 1], [area.left, area.right]);
  const drawn = drawing(item.width, height, "Trials in the order and the slots in which they ran");
  drawn.append(axis("bottom", timed(x, found.length, area.width), area, { title: "time" }));
  slots.forEach((slot, row) => drawn.append(svg("text", { x: 0, y: area.top + 26 * row + 16 }, `slot ${slot}`)));
  for (const bar of found.bars) slotBar(item, drawn, bar, x, area.top + 26 * slots.indexOf(bar.slot) + 2);
  drawn.append(...found.gaps.map((gap) => pause(gap, x, area)));
  item.plot.replaceChildren(drawn);
  const busy = found.bars.reduce((sum, { begin, end }) => sum + end - begin, 0), pauses = found.gaps.length;
  item.note(`${span(busy)} in ${plural(slots.length, "slot")}${pauses ? `; ${plural(pauses, "pause")} left out` : ""}`);
});

function slotBar(item, drawn, { trial: number, begin, end }, x, y) {
  const trial = byNumber.get(number), left = x(begin), width = Math.max(x(end) - left - 1, 1.5);
  const box = svg("rect", { x: left, y, width, height: 20, rx: Math.min(3, width / 4) });
  const isWide = width > 9 + 7 * String(number).length;
  const label = isWide && svg("text", { x: left + width / 2, y: y + 14, "text-anchor": "middle" }, number);
  drawn.append(marked(svg("g", { class: `bar ${classOf(trial)}` }, box, label), trial));
  hit(item, trial, drawn, [[left, y + 10], [left + width, y + 10]]);
}

function pause({ at, width, seconds }, x, area) {
  const box = { x: x(at), y: area.top - 4, width: Math.max(2, x(at + width) - x(at)), height: area.height + 4 };
  return svg("g", { class: "gap" }, svg("title", {}, `${span(seconds)} without trials`), svg("rect", box));
}

function timed(x, length, width) {
  const steps = [
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800,
  ];
  const step = steps.find((size) => length / size <= width / 90) ?? 604800;
  const moments = Array.from({ length: Math.floor(length / step) + 1 }, (_, index) => index * step);
  return { ticks: () => moments.map((moment) => ({ at: x(moment), words: moment ? span(moment) : "0" })) };
}

// Drawings with axes.
function drawing(width, height, label) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
}

// The part of a drawing inside its axes.
function inner(width, height, { left = 52, right = 12, top = 22, bottom = 38 } = {}) {
  const box = { left, right: width - right, top, bottom: height - bottom };
  return { ...box, width: width - left - right, height: height - top - bottom };
}

function path(points) {
  return "M" + points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L");
}

// A scale at the left or the bottom of a box, with lines across it.
function axis(side, scale, box, { title, count } = {}) {
  const group = svg("g", { class: `axis ${side}` });
  const draw = side === "left" ? leftTick : bottomTick;
  const ticks = scale.ticks(count ?? (side === "left" ? box.height / 40 : box.width / 80));
  for (const tick of ticks) group.append(...draw(tick, box, scale.band));
  const place = side === "left" ? { x: 0, y: 11 } : { x: box.right, y: box.bottom + 33, "text-anchor": "end" };
  if (title) group.append(svg("text", { class: "title", ...place }, title));
  return group;
}

function leftTick({ at, words }, box) {
  const line = svg("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at });
  return [line, svg("text", { x: box.left - 8, y: at, dy: "0.32em", "text-anchor": "end" }, words)];
}

function bottomTick({ at, words }, box, room = Infinity) {
  return [svg("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, shortened(words, room))];
}

function shortened(words, room) {
  const most = Math.max(3, Math.floor(room / 6.6));
  return words.length > most ? words.slice(0, most - 1) + "…" : words;
}

// The room that the words at the left of a scale take.
function leftOf(scale, count = 5) {
  return 16 + 6.6 * Math.max(3, ...scale.ticks(count).map(({ words }) => words.length));
}

function clip(id, area) {
  const box = { x: area.left, y: area.top - 4, width: area.width + 8, height: area.height + 4 };
  return svg("clipPath", { id }, svg("rect", box));
}

// A small drawing beside text, drawn again when the page gets wider or narrower.
const sketches = [];

function sketch(draw) {
  const item = { plot: element("div", { class: "plot" }), draw: () => draw(item.plot, item.width) };
  item.measure = () => (item.width = Math.max(240, item.plot.clientWidth));
  sketches.push(item);
  return item.plot;
}

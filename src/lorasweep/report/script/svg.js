// Elements, axes and figures.
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-") && value !== null) node.setAttribute(key, value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function drawing(width, height, label) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
}

function path(points) {
  return "M" + points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L");
}

// A scale at the left or the bottom of a box, with lines across it.
function axis(side, scale, box, { title, count } = {}) {
  const group = svg("g", { class: `axis ${side}` });
  const isLeft = side === "left";
  const ticks = scale.ticks(count ?? (isLeft ? box.height / 40 : box.width / 80));
  const room = scale.band ?? Infinity;
  for (const { at, words } of ticks) {
    const [x, y] = isLeft ? [box.left - 8, at] : [at, box.bottom + 16];
    const line = isLeft ? { x1: box.left, x2: box.right, y1: at, y2: at } : { x1: at, x2: at, y1: box.top, y2: box.bottom };
    group.append(svg("line", { class: "grid", ...line }));
    group.append(svg("text", { x, y, dy: isLeft ? "0.32em" : 0, "text-anchor": isLeft ? "end" : "middle" }, isLeft ? words : shortened(words, room)));
  }
  if (title) {
    const place = isLeft ? { x: 0, y: 11 } : { x: box.right, y: box.bottom + 33, "text-anchor": "end" };
    group.append(svg("text", { class: "title", ...place }, title));
  }
  return group;
}

function shortened(words, room) {
  const most = Math.max(3, Math.floor(room / 6.6));
  return words.length > most ? words.slice(0, most - 1) + "…" : words;
}

function inner(width, height, { left = 52, right = 12, top = 22, bottom = 38 } = {}) {
  return { left, right: width - right, top, bottom: height - bottom, width: width - left - right, height: height - top - bottom };
}

function leftOf(scale, count) {
  return 16 + 6.6 * Math.max(3, ...scale.ticks(count).map(({ words }) => words.length));
}

function empty(box, words) {
  box.replaceChildren(element("p", { class: "empty" }, words));
}

// A small drawing beside text, drawn again when the page gets wider or narrower.
const sketches = [];

function sketch(draw) {
  const plot = element("div", { class: "plot" });
  sketches.push({ plot, draw });
  return plot;
}

// Figures whose marks stand for trials: drawn for the width there is, found by the pointer, lit up together.
const figures = [];
const REACH = 26;
const GLYPHS = {
  complete: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
  baseline: "M0,-6L6,0L0,6L-6,0Z",
  pruned: "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0Z",
  out_of_memory: "M0,-4.5L4.5,3.5L-4.5,3.5Z",
  diverged: "M0,4.5L4.5,-3.5L-4.5,-3.5Z",
  failed: "M-4,-4L4,4M4,-4L-4,4",
  hung: "M-4,-4L4,-4L-4,4L4,4Z",
  refused: "M-4,0L4,0",
  running: "M-3.5,-4L4.5,0L-3.5,4Z",
  interrupted: "M-2.5,-4L-2.5,4M2.5,-4L2.5,4",
};
let standing = standings(choice.objective);

function glyph(trial) {
  return trial.kind === "baseline" && trial.values ? "baseline" : trial.state;
}

function classOf(trial) {
  return `${trial.state}${glyph(trial) === "baseline" ? " baseline" : ""}`;
}

// A mark that lights up with its trial; its colour says how good the trial is.
function marked(node, trial) {
  node.dataset.n = trial.number;
  if (standing.has(trial.number)) node.style.setProperty("--q", standing.get(trial.number).toFixed(3));
  return node;
}

function mark(trial, x, y, size = 1) {
  const node = svg("path", { class: `mark ${classOf(trial)}`, d: GLYPHS[glyph(trial)], transform: `translate(${x.toFixed(1)},${y.toFixed(1)}) scale(${size})` });
  return marked(node, trial);
}

// The glyph of a state in running text.
function sign(trial) {
  return svg("svg", { class: "sign", viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": true }, mark(trial, 0, 0));
}

function figure(id, draw, ...names) {
  const root = document.getElementById(id);
  const item = { id, root, plot: root.querySelector(".plot"), hits: [], width: 0 };
  item.note = (words) => (root.querySelector(".note").textContent = words);
  item.draw = () => {
    item.width = Math.max(260, Math.floor(item.plot.clientWidth));
    item.hits = [];
    draw(item);
    light(item.plot);
  };
  figures.push(item);
  onChoice(["objective", ...names], item.draw);
  listen(item);
  return item;
}

function hit(item, trial, drawn, points) {
  item.hits.push({ number: trial.number, drawn, points });
}

// The trial whose mark is nearest to a place on the page.
function nearest(item, event) {
  let [found, least] = [null, REACH];
  const places = new Map();
  for (const { number, drawn, points } of item.hits) {
    if (!visible.has(number)) continue;
    if (!places.has(drawn)) {
      const box = drawn.getBoundingClientRect();
      const ratio = drawn.viewBox.baseVal.width / box.width;
      places.set(drawn, [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio]);
    }
    const distance = distanceTo(places.get(drawn), points);
    if (distance < least) [found, least] = [number, distance];
  }
  return found;
}

function distanceTo([x, y], points) {
  let least = Infinity;
  for (let index = 0; index < points.length; index++) {
    const [x1, y1] = points[index];
    const [x2, y2] = points[index + 1] ?? points[index];
    const length = (x2 - x1) ** 2 + (y2 - y1) ** 2;
    const share = length ? Math.min(1, Math.max(0, ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length)) : 0;
    least = Math.min(least, Math.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1)));
  }
  return least;
}

function listen(item) {
  item.plot.addEventListener("pointermove", (event) => point(nearest(item, event), event.clientX, event.clientY));
  item.plot.addEventListener("pointerleave", () => point(null));
  item.plot.addEventListener("click", (event) => {
    const number = nearest(item, event);
    if (number !== null) choose({ [event.shiftKey ? "b" : "a"]: number });
  });
  item.plot.addEventListener("blur", () => point(null));
  item.plot.addEventListener("keydown", (event) => {
    const order = trials.filter((trial) => visible.has(trial.number) && item.hits.some(({ number }) => number === trial.number));
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && order.length) {
      const place = order.findIndex((trial) => trial.number === choice.hover);
      const box = item.plot.getBoundingClientRect();
      point(order[(place + step + order.length) % order.length].number, box.left + 60, box.top + 20);
      event.preventDefault();
    } else if (event.key === "Enter" && choice.hover !== null) choose({ [event.shiftKey ? "b" : "a"]: choice.hover });
  });
}

function point(number, x, y) {
  if (number !== choice.hover) choose({ hover: number });
  if (number !== null && x !== undefined) showTip(byNumber.get(number), x, y);
  else hideTip();
}

// Mark what is filtered out, what is pointed at and what is picked.
function light(root = document) {
  for (const node of root.querySelectorAll("[data-n]")) {
    const number = Number(node.dataset.n);
    node.classList.toggle("off", !visible.has(number));
    node.classList.toggle("a", number === choice.a);
    node.classList.toggle("b", number === choice.b);
    if (node.classList.contains("line") && (number === choice.a || number === choice.b)) node.parentNode.append(node);
  }
}

let lit = [];

function lightHover() {
  for (const node of lit) node.classList.remove("hot");
  lit = choice.hover === null ? [] : [...document.querySelectorAll(`[data-n="${choice.hover}"]`)];
  for (const node of lit) {
    node.classList.add("hot");
    if (node.classList.contains("line")) node.parentNode.append(node);
  }
}

function showTip(trial, x, y) {
  const tip = document.getElementById("tip");
  const rows = columns.filter((column) => column.inTip && column.words(trial) !== "").map((column) => [element("dt", {}, column.name), element("dd", {}, column.words(trial))]);
  tip.replaceChildren(
    element("strong", {}, sign(trial), ` trial ${trial.number} `, element("small", {}, stateWords(trial.state))),
    element("dl", {}, rows),
    element("small", {}, "click: A · shift and click: B"),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 18 + width > innerWidth ? x - 18 - width : x + 18;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y - 20, innerHeight - height - 4))}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}

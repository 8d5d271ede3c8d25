// Marks that stand for trials: a shape per state, a colour that says how good a trial is.
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
let lit = [];

function glyph(trial) {
  return trial === baseline && trial.values ? "baseline" : trial.state;
}

function classOf(trial) {
  return `${trial.state}${glyph(trial) === "baseline" ? " baseline" : ""}`;
}

// Let a node light up with its trial and have its colour.
function marked(node, trial) {
  node.dataset.n = trial.number;
  if (standing.has(trial.number)) node.style.setProperty("--q", standing.get(trial.number).toFixed(3));
  return node;
}

function mark(trial, x, y, size = 1) {
  const place = `translate(${x.toFixed(1)},${y.toFixed(1)}) scale(${size})`;
  return marked(svg("path", { class: `mark ${classOf(trial)}`, d: GLYPHS[glyph(trial)], transform: place }), trial);
}

// The shape of a trial in running text.
function sign(trial) {
  const box = { class: "sign", viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" };
  return svg("svg", box, mark(trial, 0, 0));
}

// The same, of a state rather than of the trial.
function plainSign(trial) {
  const node = sign(trial);
  node.firstChild.removeAttribute("data-n");
  return node;
}

// A number between -0.5 and 0.5 that keeps marks of one value apart.
function apart(trial) {
  return ((trial.number * 0.618) % 1) - 0.5;
}

// Show what is filtered out and what is picked.
function light(root = document) {
  for (const node of root.querySelectorAll("[data-n]")) {
    const number = Number(node.dataset.n), isPicked = number === choice.a || number === choice.b;
    node.classList.toggle("off", !visible.has(number));
    node.classList.toggle("a", number === choice.a);
    node.classList.toggle("b", number === choice.b);
    if (isPicked && node.classList.contains("line")) node.parentNode.append(node); // above the others
  }
}

// Show what is pointed at.
function lightHover() {
  for (const node of lit) node.classList.remove("hot");
  lit = choice.hover === null ? [] : [...document.querySelectorAll(`[data-n="${choice.hover}"]`)];
  for (const node of lit) {
    node.classList.add("hot");
    if (node.classList.contains("line")) node.parentNode.append(node);
  }
}

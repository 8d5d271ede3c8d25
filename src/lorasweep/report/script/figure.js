// Figures: drawn for the width there is, and again when what they show changes.
const figures = [];

// `draw` is given the figure and fills its plot; it is called again when one of `names` is chosen anew.
function figure(id, draw, ...names) {
  const root = document.getElementById(id), item = { id, root, plot: root.querySelector(".plot"), hits: [], width: 0 };
  item.note = (words) => (root.querySelector(".note").textContent = words);
  item.measure = () => (item.width = Math.max(260, Math.floor(item.plot.clientWidth)));
  item.draw = () => {
    item.hits = [];
    draw(item);
    light(item.plot);
  };
  figures.push(item);
  onChoice(["objective", ...names], item.draw);
  listen(item);
  return item;
}

// Let a trial be found where it is drawn: at a point or along a line.
function hit(item, trial, drawn, points) {
  item.hits.push({ number: trial.number, drawn, points });
}

function marker(item, drawn, trial, place, size) {
  drawn.append(mark(trial, ...place, size));
  hit(item, trial, drawn, [place]);
}

function line(item, drawn, trial, points, group) {
  group.append(marked(svg("path", { class: `line ${classOf(trial)}`, d: path(points) }), trial));
  hit(item, trial, drawn, points);
}

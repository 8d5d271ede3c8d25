// Pointing at trials: in figures at what is nearest, in the table at a row; a note says which it is.
const REACH = 26;

// The number of the trial whose mark is nearest to the pointer, if one is near.
function nearest(item, event) {
  let [found, least] = [null, REACH];
  const places = new Map();
  for (const { number, drawn, points } of item.hits) {
    if (!visible.has(number)) continue;
    if (!places.has(drawn)) places.set(drawn, placeIn(drawn, event));
    const distance = distanceTo(places.get(drawn), points);
    if (distance < least) [found, least] = [number, distance];
  }
  return found;
}

function placeIn(drawn, { clientX, clientY }) {
  const box = drawn.getBoundingClientRect(), ratio = drawn.viewBox.baseVal.width / box.width;
  return [(clientX - box.left) * ratio, (clientY - box.top) * ratio];
}

// How far a place is from a line through some points, or from a single one.
function distanceTo([x, y], points) {
  let least = Infinity;
  for (let index = 0; index < points.length; index++) {
    const [x1, y1] = points[index], [x2, y2] = points[index + 1] ?? points[index];
    const length = (x2 - x1) ** 2 + (y2 - y1) ** 2;
    const along = length ? ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length : 0;
    const share = Math.min(1, Math.max(0, along));
    least = Math.min(least, Math.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1)));
  }
  return least;
}

function point(number, x, y) {
  if (number !== choice.hover) choose({ hover: number });
  const tip = document.getElementById("tip");
  tip.hidden = number === null || x === undefined;
  if (tip.hidden) return;
  tip.replaceChildren(...tipOf(byNumber.get(number)));
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 18 + width > innerWidth ? x - 18 - width : x + 18;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y - 20, innerHeight - height - 4))}px`;
}

function tipOf(trial) {
  const told = columns.filter((column) => !column.isExtra && !NOT_IN_TIP.includes(column.key) && column.words(trial));
  const rows = told.map((column) => [element("dt", {}, column.name), element("dd", {}, column.words(trial))]);
  const name = [sign(trial), ` trial ${trial.number} `, element("small", {}, stateWords(trial.state))];
  const hint = element("small", {}, "click: A · shift and click: B");
  return [element("strong", {}, name), element("dl", {}, rows), hint];
}

// Let a figure's marks be pointed at and picked, with the pointer and with keys.
function listen(item) {
  const picking = (event, number) => number !== null && choose({ [event.shiftKey ? "b" : "a"]: number });
  item.plot.addEventListener("pointermove", (event) => point(nearest(item, event), event.clientX, event.clientY));
  item.plot.addEventListener("pointerleave", () => point(null));
  item.plot.addEventListener("blur", () => point(null));
  item.plot.addEventListener("click", (event) => picking(event, nearest(item, event)));
  item.plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Enter") picking(event, choice.hover);
    if (!step) return;
    event.preventDefault();
    walk(item, step);
  });
}

// Point at the next or the previous trial of a figure, in the order of the leaderboard.
function walk(item, step) {
  const drawn = new Set(item.hits.map(({ number }) => number));
  const numbers = trials.map((trial) => trial.number).filter((number) => drawn.has(number) && visible.has(number));
  if (!numbers.length) return;
  const box = item.plot.getBoundingClientRect(), place = numbers.indexOf(choice.hover) + step;
  point(numbers[(place + numbers.length) % numbers.length], box.left + 60, box.top + 20);
}

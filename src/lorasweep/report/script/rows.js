// The evaluation rows on which the two differ most, and whether the difference over all rows is more than chance.
const MOST_ROWS = 12;

function lossesOf(number) {
  return number === UNTUNED ? study.rows.untuned : study.rows.losses[number];
}

function drawRows() {
  const root = document.getElementById("rows"), content = root.querySelector(".content");
  root.hidden = !study.rows;
  if (root.hidden) return;
  const known = Object.keys(study.rows.losses).length;
  const some = known < Object.keys(study.configs.own).length
    ? ` On this page are those of ${plural(known, "trial")}: the first of the table, and the baseline.` : "";
  root.querySelector(".note").textContent = `loss per supervised token of each evaluation row.${some}`;
  const [one, other] = [lossesOf(choice.a), lossesOf(choice.b)];
  if (!one || !other) return empty(content, "No losses row by row are here of one of the two.");
  if (choice.a === choice.b) return empty(content, "Pick two that differ.");
  const { tokens, numbers } = study.rows;
  const rows = tokens.map((count, index) => {
    const [a, b] = [one[index], other[index]];
    return { number: numbers[index], tokens: count, a: a / count, b: b / count, gain: b - a };
  });
  const most = [...rows].sort((x, y) => Math.abs(y.gain) - Math.abs(x.gain)).slice(0, MOST_ROWS);
  const plot = element("div", { class: "plot" });
  const tables = element("div", { class: "tables uneven" }, plot, rowTable(most));
  content.replaceChildren(element("p", {}, overAll(rows)), tables);
  drawScatter(plot, rows, new Set(most));
}

// The paired difference of two losses per token with its 95 % interval: a ratio, whose spread is that of its residuals.
function overAll(rows) {
  const sum = (of) => rows.reduce((total, row) => total + of(row), 0), count = rows.length;
  const tokens = sum((row) => row.tokens), mean = sum((row) => row.gain) / tokens;
  const better = `B is better on ${rows.filter((row) => row.gain < 0).length} of ${plural(count, "row")}`;
  const words = (value) => significant(value, 3);
  const change = `${mean < 0 ? "lower" : "higher"} by ${words(Math.abs(mean))} per token`;
  const so = `${better}; over all of them its loss is ${change}`;
  if (count < 3) return `${so}.`;
  const residuals = sum((row) => (row.gain - mean * row.tokens) ** 2);
  const half = (studentsT(count - 1) * Math.sqrt((residuals * count) / (count - 1))) / tokens;
  const verdict = Math.abs(mean) > half ? "more than chance in these rows" : "which may be chance";
  return `${so} (95 % interval ${signed(mean - half, words)} to ${signed(mean + half, words)}): ${verdict}.`;
}

// The 97.5 % point (Abramowitz & Stegun 26.7.5).
function studentsT(freedom) {
  if (freedom < 3) return [12.706, 4.303][freedom - 1];
  const z = 1.959964;
  const third = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384;
  const terms = [(z ** 3 + z) / 4, (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96, third];
  return terms.reduce((total, term, index) => total + term / freedom ** (index + 1), z);
}

function rowTable(rows) {
  const questions = (study.answers?.questions ?? []).filter(({ row }) => row !== null);
  const texts = new Map(questions.map(({ row, inner, expected }) => [row, `${inner} → ${expected}`]));
  const last = rows.some((row) => texts.has(row.number)) ? "text" : "look";
  const [tokens, difference] = ["tokens", "B − A"].map((words) => figureCell(words, "", "th"));
  const head = [element("th", {}, "row"), tokens, sideHead()[1], difference, element("th", {}, last)];
  const words = "By their share in the difference. Texts are kept of rows that were answered (evaluation.generate);"
    + " the copied command shows any other.";
  return element("div", {}, plainTable(head, rows.map((row) => rowLine(row, texts.get(row.number)))), note(words));
}

function rowLine(row, text) {
  const digits = (value) => value.toFixed(4);
  const difference = figureCell(signed(row.b - row.a, digits), row.gain < 0 ? "gain" : "loss");
  const numbers = [row.tokens, digits(row.a), digits(row.b)].map((words) => figureCell(words));
  const words = element("td", { class: "text" }, text ?? looking(row));
  return element("tr", {}, rowHead(row.number + 1), numbers, difference, words);
}

// A button for the command that shows a row.
function looking(row) {
  const kept = [choice.a, choice.b].map((number) => byNumber.get(number)).find((trial) => trial?.again);
  if (!kept) return null;
  const preview = kept.again.replace("python train.py", "lorasweep preview");
  const number = row.number + 1;
  return copyButton(`${preview} --split eval --row ${number}`, `Copy the command that shows row ${number}`);
}

function drawScatter(plot, rows, most) {
  const width = Math.min(Math.max(240, plot.clientWidth), 420), height = Math.min(width, 340);
  const values = rows.flatMap((row) => [row.a, row.b]);
  const domain = padded(Math.min(...values), Math.max(...values));
  const area = inner(width, height, { left: leftOf(linear(domain, [0, 180])) });
  const [x, y] = [linear(domain, [area.left, area.right]), linear(domain, [area.bottom, area.top])];
  const drawn = drawing(width, height, "Loss per token of every row: of A across, of B upwards");
  drawn.append(axis("left", y, area, { title: "B" }), axis("bottom", x, area, { title: "A" }));
  const [low, high] = domain;
  drawn.append(svg("line", { class: "reference", x1: x(low), y1: y(low), x2: x(high), y2: y(high) }));
  for (const row of rows) {
    const values = `A ${row.a.toFixed(4)}, B ${row.b.toFixed(4)}`;
    const title = svg("title", {}, `row ${row.number + 1}, ${plural(row.tokens, "token")}: ${values}`);
    const style = { class: most.has(row) ? "row most" : "row", r: rows.length > 500 ? 2 : 3 };
    drawn.append(svg("circle", { cx: x(row.a), cy: y(row.b), ...style }, title));
  }
  plot.replaceChildren(drawn, note("each point a row; below the line B is better"));
}

// The evaluation rows on which the two differ most, and whether the difference over all rows is more than chance.
const MOST_ROWS = 12;

function lossesOf(number) {
  return number === UNTUNED ? study.rows?.untuned : study.rows?.losses[number];
}

function drawRows() {
  const root = document.getElementById("rows"), content = root.querySelector(".content");
  root.hidden = !study.rows;
  if (root.hidden) return;
  const [one, other] = [lossesOf(choice.a), lossesOf(choice.b)];
  const limit = study.detailed || Object.keys(study.rows.losses).length < complete.length ? ` Losses row by row are here of the first ${Object.keys(study.rows.losses).length} trials only.` : "";
  root.querySelector(".note").textContent = `loss per supervised token of each evaluation row.${limit}`;
  if (!one || !other || choice.a === choice.b) return empty(content, one && other ? "Pick two that differ." : "No losses row by row are here of one of the two.");
  const { tokens, numbers } = study.rows;
  const rows = tokens.map((count, index) => ({ number: numbers[index], tokens: count, a: one[index] / count, b: other[index] / count, gain: other[index] - one[index] }));
  const most = [...rows].sort((x, y) => Math.abs(y.gain) - Math.abs(x.gain)).slice(0, MOST_ROWS);
  const plot = element("div", { class: "plot" });
  content.replaceChildren(element("p", {}, overAll(rows)), element("div", { class: "tables uneven" }, plot, rowTable(most)));
  drawScatter(plot, rows, most);
}

// The paired difference of two losses per token with its 95 % interval: a ratio, whose spread is that of its residuals.
function overAll(rows) {
  const sum = (of) => rows.reduce((total, row) => total + of(row), 0);
  const tokens = sum((row) => row.tokens), mean = sum((row) => row.gain) / tokens;
  const better = rows.filter((row) => row.gain < 0).length;
  const words = `B is better on ${better} of ${plural(rows.length, "row")}; over all of them its loss is ${mean < 0 ? "lower" : "higher"} by ${significant(Math.abs(mean), 3)} per token`;
  if (rows.length < 3) return `${words}.`;
  const residuals = sum((row) => (row.gain - mean * row.tokens) ** 2);
  const half = (studentsT(rows.length - 1) * Math.sqrt((residuals * rows.length) / (rows.length - 1))) / tokens;
  const verdict = Math.abs(mean) > half ? "more than chance in these rows" : "which may be chance";
  return `${words} (95 % interval ${signed(mean - half, (value) => significant(value, 3))} to ${signed(mean + half, (value) => significant(value, 3))}): ${verdict}.`;
}

// The 97.5 % point (Abramowitz & Stegun 26.7.5).
function studentsT(freedom) {
  if (freedom < 3) return [12.706, 4.303][freedom - 1];
  const z = 1.959964;
  const terms = [(z ** 3 + z) / 4, (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96, (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384];
  return terms.reduce((total, term, index) => total + term / freedom ** (index + 1), z);
}

function rowTable(rows) {
  const texts = new Map((study.answers?.questions ?? []).filter(({ row }) => row !== null).map((question) => [question.row, question]));
  const shown = [choice.a, choice.b].map((number) => byNumber.get(number)).find((trial) => trial?.again);
  const line = (row) => {
    const text = texts.get(row.number);
    const command = shown?.again.replace("python train.py", "lorasweep preview") + ` --split eval --row ${row.number + 1}`;
    const looking = shown && copyButton(command, `Copy the command that shows row ${row.number + 1}`);
    return element("tr", {}, element("th", { scope: "row" }, row.number + 1), element("td", { class: "number" }, row.tokens),
      element("td", { class: "number" }, row.a.toFixed(4)), element("td", { class: "number" }, row.b.toFixed(4)), element("td", { class: `number ${row.gain < 0 ? "gain" : "loss"}` }, signed(row.b - row.a, (value) => value.toFixed(4))),
      element("td", { class: "text" }, text ? `${text.prompt} → ${text.expected}` : looking));
  };
  const head = element("tr", {}, element("th", {}, "row"), element("th", { class: "number" }, "tokens"), ["a", "b"].map((side) => element("th", { class: "number" }, element("span", { class: `badge ${side}` }, side.toUpperCase()))), element("th", { class: "number" }, "B − A"), element("th", {}, rows.some((row) => texts.has(row.number)) ? "text" : "look"));
  return element("div", {}, element("div", { class: "scroll" }, element("table", { class: "plain" }, element("thead", {}, head), element("tbody", {}, rows.map(line)))),
    element("p", { class: "note" }, "By their share in the difference. Texts are kept of rows that were answered (evaluation.generate); the copied command shows any other."));
}

function drawScatter(plot, rows, most) {
  const width = Math.min(Math.max(240, plot.clientWidth), 420), height = Math.min(width, 340);
  const values = rows.flatMap((row) => [row.a, row.b]);
  const domain = padded(Math.min(...values), Math.max(...values));
  const area = inner(width, height, { left: leftOf(linear(domain, [0, 180]), 5) });
  const [x, y] = [linear(domain, [area.left, area.right]), linear(domain, [area.bottom, area.top])];
  const drawn = drawing(width, height, "Loss per token of every row: of A across, of B upwards");
  drawn.append(axis("left", y, area, { title: "B" }), axis("bottom", x, area, { title: "A", count: width / 80 }), svg("line", { class: "reference", x1: x(domain[0]), y1: y(domain[0]), x2: x(domain[1]), y2: y(domain[1]) }));
  const places = new Set(most);
  for (const row of rows) {
    const words = `row ${row.number + 1}, ${plural(row.tokens, "token")}: A ${row.a.toFixed(4)}, B ${row.b.toFixed(4)}`;
    drawn.append(svg("circle", { class: `row${places.has(row) ? " most" : ""}`, cx: x(row.a), cy: y(row.b), r: rows.length > 500 ? 2 : 3 }, svg("title", {}, words)));
  }
  plot.replaceChildren(drawn, element("p", { class: "note" }, "each point a row; below the line B is better"));
}

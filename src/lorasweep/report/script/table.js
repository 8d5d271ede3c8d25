// The leaderboard: every column sorts, rows pick trials for the comparison.
const FIRST_ROWS = 100; // laying out 500 takes a browser a second
const builtRows = new Map();
let showsAllColumns = false, showsAllRows = false;

function shownColumns() {
  return columns.slice(2).filter((column) => showsAllColumns || !column.isExtra); // trial and rank come first
}

function drawTable() {
  const shown = shownColumns();
  builtRows.clear();
  const parts = [element("thead"), element("tbody"), ...untunedRow(shown)];
  document.querySelector("#trials table").replaceChildren(...parts);
  drawHeadings();
  fillTable();
  drawTableNote();
}

function drawHeadings() {
  const last = element("th", {}, element("span", { class: "unseen" }, "links"));
  const row = element("tr", {}, columns.slice(0, 2).map(heading), shownColumns().map(heading), last);
  document.querySelector("#trials thead").replaceChildren(row);
}

function heading({ key, name, isNumber }) {
  const isSorted = choice.sort.replace(/^-/, "") === key, isDown = choice.sort.startsWith("-");
  const sorting = () => {
    choose({ sort: isSorted && !isDown ? `-${key}` : key });
    document.querySelector(`#trials th[title="${CSS.escape(key)}"] button`).focus();
  };
  const arrow = element("span", { class: "arrow", "aria-hidden": "true" }, isSorted && (isDown ? "▼" : "▲"));
  const order = isSorted ? (isDown ? "descending" : "ascending") : null;
  const attributes = { class: isNumber ? "number" : null, "aria-sort": order, scope: "col", title: key };
  return element("th", attributes, button([name, arrow], sorting, { class: null }));
}

// The rows that the filter lets through, sorted, the first of them unless all are asked for.
function fillTable() {
  const seen = sorted().filter((trial) => visible.has(trial.number)), most = showsAllRows ? seen.length : FIRST_ROWS;
  document.querySelector("#trials tbody").replaceChildren(...seen.slice(0, most).map(rowOf));
  const showing = () => {
    showsAllRows = true;
    fillTable();
  };
  const rest = seen.length > most ? [`${most} of ${seen.length} `, button("show all", showing)] : [];
  document.getElementById("more-rows").replaceChildren(...rest);
  markPicks();
}

function sorted() {
  const [isDown, key] = [choice.sort.startsWith("-"), choice.sort.replace(/^-/, "")];
  const { get } = columns.find((column) => column.key === key) ?? columnNamed("rank");
  return trials.toSorted((one, other) => {
    const [x, y] = [get(one), get(other)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return isDown ? compare(y, x) : compare(x, y);
  });
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return show(one).localeCompare(show(other), "en", { numeric: true });
}

function rowOf(trial) {
  if (!builtRows.has(trial.number)) builtRows.set(trial.number, buildRow(trial));
  return builtRows.get(trial.number);
}

function buildRow(trial) {
  const picks = ["a", "b"].map((side) => pickButton(trial, side));
  const front = trial.front && element("span", { class: "front", title: "on the Pareto front" }, "◆");
  const node = element("tr", { class: classOf(trial) },
    rowHead(element("span", {}, picks, sign(trial), trial.number)),
    element("td", { class: "number rank" }, trial.rank ?? "", front),
    shownColumns().map((column) => cell(trial, column)),
    element("td", { class: "links" }, links(trial), runAgain(trial)));
  node.dataset.n = trial.number;
  return node;
}

function pickButton(trial, side) {
  const label = `Show trial ${trial.number} as ${side.toUpperCase()} in the comparison`;
  const attributes = { class: `side ${side}`, title: label, "aria-label": label, "data-side": side };
  return button(side.toUpperCase(), () => choose({ [side]: trial.number }), attributes);
}

function cell(trial, column) {
  const words = column.words(trial), style = [column.isNumber && "number"];
  if (column.isObjective) style.push(trial.values ? "objective" : "reached");
  if (column.key === "difference" && trial.difference) style.push(isBetter(trial.difference, 0) ? "gain" : "loss");
  const title = column.key === "state" ? trial.why : words.length > 24 ? words : null;
  const short = words.length > 24 ? `${words.slice(0, 23)}…` : words;
  return element("td", { class: style.filter(Boolean).join(" ") || null, title }, short);
}

function links(trial) {
  return [link(trial.folder, "folder"), link(trial.log, "log"), link(trial.wandb, "W&B")];
}

function untunedRow(shown) {
  if (!study.untuned) return [];
  const words = ({ key, write }) => {
    const value = study.untuned[key];
    return key === "state" ? UNTUNED : typeof value === "number" && key !== "difference" ? write(value) : "";
  };
  const cells = shown.map((column) => element("td", { class: column.isNumber ? "number" : null }, words(column)));
  return [element("tfoot", {}, element("tr", {}, rowHead(UNTUNED), element("td"), cells, element("td")))];
}

function markPicks() {
  for (const [number, node] of builtRows)
    for (const side of ["a", "b"])
      node.querySelector(`[data-side=${side}]`).setAttribute("aria-pressed", choice[side] === number);
}

function drawTableNote() {
  const toggling = () => {
    showsAllColumns = !showsAllColumns;
    drawTable();
  };
  const toggle = button("all columns", toggling, { "aria-pressed": showsAllColumns });
  const file = study.table && [" · ", link(study.table, "leaderboard.csv"), " "];
  const words = ["best first; a grey value is what a trial had reached when it ended", constants(), ...(file || " ")];
  const isMore = columns.some((column) => column.isExtra);
  document.querySelector("#trials .note").replaceChildren(...words, isMore ? toggle : "");
}

// What the columns that are left out for it say of every trial.
function constants() {
  const same = columns.filter((column) => column.isConstant && IN_TABLE.test(column.key));
  const words = same.map((column) => `${column.name} ${trials.map(column.words).find(Boolean)}`);
  return words.length ? `; the same in every trial: ${words.join(", ")}` : "";
}

function listenToTable() {
  const table = document.querySelector("#trials table");
  table.addEventListener("pointerover", (event) => point(numberAt(event.target)));
  table.addEventListener("pointerleave", () => point(null));
  onChoice(["sort"], () => {
    drawHeadings();
    fillTable();
  });
  onChoice(["a", "b"], markPicks);
}

function numberAt(target) {
  const row = target.closest("tbody tr");
  return row ? Number(row.dataset.n) : null;
}

// The leaderboard: every column sorts, rows pick trials for the comparison.
const rowsOf = new Map();
let showsAll = false;

function drawTable() {
  const table = document.querySelector("#trials table");
  const shown = columns.filter((column) => !["rank", "trial"].includes(column.key) && (showsAll || !column.isExtra));
  rowsOf.clear();
  for (const trial of trials) rowsOf.set(trial.number, row(trial, shown));
  const head = element("tr", {}, heading(columns[1], "trial"), heading(columns[0], "rank"), shown.map((column) => heading(column)), element("th", {}, element("span", { class: "unseen" }, "links")));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}), ...untunedRow(shown));
  order();
}

function heading(column, name = column.name) {
  const isSorted = choice.sort.replace("-", "") === column.key;
  const direction = choice.sort.startsWith("-") ? "descending" : "ascending";
  const sorting = () => choose({ sort: isSorted && !choice.sort.startsWith("-") ? `-${column.key}` : column.key });
  return element("th", { class: column.isNumber ? "number" : "", "aria-sort": isSorted ? direction : null, scope: "col", title: column.key },
    element("button", { type: "button", onclick: sorting }, name, element("span", { class: "arrow", "aria-hidden": true }, isSorted ? (direction === "ascending" ? "▲" : "▼") : "")));
}

function row(trial, shown) {
  const cells = shown.map((column) => cell(trial, column));
  const picks = ["a", "b"].map((side) => pickButton(trial, side));
  const node = element("tr", { class: classOf(trial) },
    element("th", { scope: "row" }, element("span", {}, picks, sign(trial), trial.number)),
    element("td", { class: "number rank" }, trial.rank ?? "", trial.front ? element("span", { class: "front", title: "on the Pareto front" }, "◆") : null),
    cells, element("td", { class: "links" }, links(trial)));
  node.dataset.n = trial.number;
  return node;
}

function pickButton(trial, side) {
  const label = `Show trial ${trial.number} as ${side.toUpperCase()} in the comparison`;
  return element("button", { type: "button", class: `side ${side}`, title: label, "aria-label": label, "data-side": side, onclick: () => choose({ [side]: trial.number }) }, side.toUpperCase());
}

function cell(trial, column) {
  const words = column.words(trial);
  const style = [column.isNumber ? "number" : "", column.isKnob ? "knob" : ""];
  const attributes = {};
  if (column.key === "state") Object.assign(attributes, { title: trial.why ?? null });
  if (column.key === "difference" && words) style.push(isBetter(trial.difference, 0) ? "gain" : trial.difference === 0 ? "" : "loss");
  if (column.isObjective) style.push(trial.values ? "objective" : "reached");
  if (words.length > 24) attributes.title = words;
  return element("td", { class: style.filter(Boolean).join(" "), ...attributes }, words.length > 24 ? `${words.slice(0, 23)}…` : words);
}

function links(trial) {
  const link = (address, name) => (address ? element("a", { href: address, target: "_blank", rel: "noopener" }, name) : null);
  const command = trial.again && copyButton(trial.again, `Copy the command that runs trial ${trial.number} again`);
  return [link(trial.folder, "folder"), link(trial.log, "log"), link(trial.wandb, "W&B"), command];
}

function untunedRow(shown) {
  if (!study.untuned) return [];
  const cells = shown.map((column) => {
    const value = study.untuned[column.key];
    const words = typeof value !== "number" || column.key === "difference" ? "" : column.write ? column.write(value) : show(value);
    return element("td", { class: column.isNumber ? "number" : "" }, column.key === "state" ? "untuned" : words);
  });
  return [element("tfoot", {}, element("tr", {}, element("th", { scope: "row" }, "untuned"), element("td"), cells, element("td")))];
}

function order() {
  const [isDown, key] = [choice.sort.startsWith("-"), choice.sort.replace(/^-/, "")];
  const column = columns.find((item) => item.key === key) ?? columns[0];
  const compare = (one, other) => (typeof one === "number" && typeof other === "number" ? one - other : show(one).localeCompare(show(other), "en", { numeric: true }));
  const sorted = [...trials].sort((one, other) => {
    const [x, y] = [column.get(one), column.get(other)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return isDown ? compare(y, x) : compare(x, y);
  });
  document.querySelector("#trials tbody").append(...sorted.map((trial) => rowsOf.get(trial.number)));
  shade();
}

// Which rows are to be seen, and which two are picked.
function shade() {
  for (const [number, node] of rowsOf) {
    node.hidden = !visible.has(number);
    for (const side of ["a", "b"]) {
      node.classList.toggle(side, choice[side] === number);
      node.querySelector(`[data-side=${side}]`).setAttribute("aria-pressed", choice[side] === number);
    }
  }
}

function tableNote() {
  const more = columns.some((column) => column.isExtra);
  const toggle = element("button", { type: "button", class: "quiet", "aria-pressed": showsAll, onclick: () => { showsAll = !showsAll; drawTable(); tableNote(); } }, "all columns");
  document.querySelector("#trials .note").replaceChildren("best first; a grey value is what a trial had reached when it ended", constants(), " ", more ? toggle : "");
}

// What the columns that are left out for it say of every trial.
function constants() {
  const same = columns.filter((column) => column.isConstant && /^eval\/(?!perplexity)|^memory\/peak_gib/.test(column.key));
  const words = same.map((column) => `${column.name} ${trials.map(column.words).find(Boolean)}`);
  return words.length ? `; the same in every trial: ${words.join(", ")}` : "";
}

function listenToTable() {
  const body = document.querySelector("#trials table");
  body.addEventListener("pointerover", (event) => point(Number(event.target.closest("tbody tr")?.dataset.n ?? NaN) >= 0 ? Number(event.target.closest("tbody tr").dataset.n) : null));
  body.addEventListener("pointerleave", () => point(null));
  onChoice(["sort"], () => { drawTable(); });
  onChoice(["a", "b"], shade);
}

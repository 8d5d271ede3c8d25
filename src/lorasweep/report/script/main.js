// Everything drawn, and drawn again when the filter, the picks or the width change.
const filterField = document.getElementById("filter");

function head() {
  const counts = Map.groupBy(trials, (trial) => trial.state);
  const words = [...counts].map(([state, group]) => `${group.length} ${stateWords(state)}`);
  const tokens = trials.reduce((sum, trial) => sum + (trial.metrics["tokens/total"] ?? 0), 0);
  const facts = [plural(trials.length, "trial"), ...(counts.size > 1 ? words : []), tokens ? `${compact(tokens)} tokens trained` : null].filter(Boolean);
  const live = study.running && element("span", { class: "live", title: `run by ${study.running}` }, "running");
  document.getElementById("counts").replaceChildren(live || "", facts.join(" · "));
  document.getElementById("surroundings").replaceChildren(...study.surroundings.map(([name, line]) => element("div", {}, element("dt", {}, name), element("dd", {}, line))));
  const watching = document.documentElement.dataset.reload;
  document.getElementById("foot").textContent = `written ${study.written}${watching ? `, again every ${watching} s` : ""} by lorasweep report; needs no network`;
}

// Buttons that narrow the table and the figures down to some states.
function stateButtons() {
  const counts = Map.groupBy(trials, (trial) => trial.state);
  const place = document.getElementById("states");
  const chosen = parseFilter(choice.filter).terms.find((term) => term.column?.key === "state" && term.sign === "=")?.options ?? [];
  const toggled = (state) => (chosen.includes(state) ? chosen.filter((item) => item !== state) : [...chosen, state]);
  const toggle = (state) => {
    const states = toggled(state);
    choose({ filter: withConditions(choice.filter, "state", states.length ? [`state=${states.join(",")}`] : []) });
    place.querySelector(`[data-state=${state}]`).focus();
  };
  const buttons = [...counts].map(([state, group]) => element("button", { type: "button", "data-state": state, "aria-pressed": chosen.includes(state), onclick: () => toggle(state) }, plainSign(group.find((trial) => trial !== baseline) ?? group[0]), `${group.length} ${stateWords(state)}`));
  place.replaceChildren(...(counts.size > 1 ? buttons : []));
}

function refilter() {
  const problem = applyFilter();
  filterField.setAttribute("aria-invalid", Boolean(problem));
  if (filterField.value !== choice.filter) filterField.value = choice.filter;
  document.getElementById("matches").textContent = problem ?? (visible.size < trials.length ? `${visible.size} of ${trials.length}` : "");
  stateButtons();
  shade();
  light();
  const parallel = figures.find((item) => item.id === "parallel");
  if (parallel.axes) drawBrushes(parallel);
}

function offerObjectives() {
  const label = document.getElementById("objectives"), list = label.querySelector("select");
  label.hidden = !isMultiple;
  list.append(...study.objectives.map(({ name }, index) => element("option", { value: index }, name)));
  list.value = choice.objective;
  list.addEventListener("change", () => choose({ objective: Number(list.value) }));
}

function drawAll() {
  sketches.length = 0;
  headline();
  for (const { plot, draw } of sketches) draw(plot);
  for (const item of figures) item.draw();
  drawComparison();
  drawRows();
  drawAnswers();
}

// In watch mode the page is written again and again: load it, unless the reader is in the middle of something.
function watch() {
  const seconds = Number(document.documentElement.dataset.reload);
  if (!seconds) return;
  const kept = sessionStorage.getItem("scroll");
  if (kept) scrollTo(0, Number(kept));
  addEventListener("pagehide", () => sessionStorage.setItem("scroll", scrollY));
  setInterval(() => {
    const isBusy = document.hidden || choice.hover !== null || document.activeElement?.matches("input, select");
    if (!isBusy) location.reload();
  }, 1000 * seconds);
}

onChoice(["objective"], () => (standing = standings(choice.objective)));
listeners.unshift(listeners.pop());
onChoice(["objective"], drawComparison);
onChoice(["hover"], lightHover);
onChoice(["filter"], refilter);
onChoice(["a", "b"], () => { light(); drawComparison(); drawRows(); drawAnswers(); });
filterField.addEventListener("input", () => choose({ filter: filterField.value }));
document.getElementById("bar").addEventListener("submit", (event) => event.preventDefault());

applyFilter();
head();
offerObjectives();
drawTable();
tableNote();
listenToTable();
drawAll();
drawEnds();
refilter();

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  drawAll();
});
watch();
document.documentElement.dataset.drawn = Math.round(performance.now());

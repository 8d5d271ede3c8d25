// Everything drawn, and drawn again when the filter, the picks or the width change.
const filterField = document.getElementById("filter");
const countsOf = Map.groupBy(trials, (trial) => trial.state);

function drawHead() {
  const states = [...countsOf].map(([state, group]) => `${group.length} ${stateWords(state)}`);
  const tokens = trials.reduce((sum, trial) => sum + (trial.metrics["tokens/total"] ?? 0), 0);
  const counts = [plural(trials.length, "trial"), ...(countsOf.size > 1 ? states : [])];
  if (study.left) counts.push(`${study.left} to come`);
  if (tokens) counts.push(`${compact(tokens)} tokens trained`);
  const live = study.running && element("span", { class: "live", title: `run by ${study.running}` }, "running");
  document.getElementById("counts").replaceChildren(live || "", counts.join(" · "));
  const facts = study.surroundings.map(([name, words]) => [element("dt", {}, name), element("dd", {}, words)]);
  document.getElementById("surroundings").append(...facts.map((pair) => element("div", {}, pair)));
  const { reload } = document.documentElement.dataset, again = reload ? `, again every ${Number(reload)} s` : "";
  const foot = `written ${study.written}${again} by lorasweep report; needs no network`;
  document.getElementById("foot").textContent = foot;
}

// Buttons that narrow the table and the figures down to some states.
function drawStates() {
  const term = parseFilter(choice.filter).terms.find(({ column, sign }) => column?.key === "state" && sign === "=");
  const chosen = term?.options ?? [], place = document.getElementById("states");
  const toggle = (state) => {
    const states = chosen.includes(state) ? chosen.filter((item) => item !== state) : [...chosen, state];
    choose({ filter: withConditions(choice.filter, "state", states.length ? [`state=${states.join(",")}`] : []) });
    place.querySelector(`[data-state=${state}]`).focus();
  };
  const buttons = [...countsOf].map(([state, group]) => {
    const shape = plainSign(group.find((trial) => trial !== baseline) ?? group[0]);
    const attributes = { "data-state": state, "aria-pressed": chosen.includes(state) };
    return button([shape, `${group.length} ${stateWords(state)}`], () => toggle(state), attributes);
  });
  place.replaceChildren(...(countsOf.size > 1 ? buttons : []));
}

function refilter() {
  const problem = applyFilter(), some = visible.size < trials.length ? `${visible.size} of ${trials.length}` : "";
  filterField.setAttribute("aria-invalid", Boolean(problem));
  if (filterField.value !== choice.filter) filterField.value = choice.filter;
  document.getElementById("matches").textContent = problem ?? some;
  drawStates();
  fillTable();
  light();
  drawBrushes(figures.find((item) => item.id === "parallel"));
}

function offerObjectives() {
  const label = document.getElementById("objectives"), list = label.querySelector("select");
  label.hidden = !isMultiple;
  list.append(...study.objectives.map(({ name }, index) => element("option", { value: index }, name)));
  list.value = choice.objective;
  list.addEventListener("change", () => choose({ objective: Number(list.value) }));
}

function drawPicked() {
  drawComparison();
  drawRows();
  drawAnswers();
}

function drawAll() {
  sketches.length = 0;
  drawHeadline();
  const items = [...sketches, ...figures];
  for (const item of items) item.measure(); // before anything is drawn: each would be a layout of its own
  for (const item of items) item.draw();
  drawPicked();
}

listeners.unshift({ names: ["objective"], action: () => (standing = standings(choice.objective)) });
onChoice(["hover"], lightHover);
onChoice(["filter"], refilter);
onChoice(["a", "b"], () => {
  light();
  drawPicked();
});
filterField.addEventListener("input", () => choose({ filter: filterField.value }));
document.getElementById("bar").addEventListener("submit", (event) => event.preventDefault());

drawHead();
offerObjectives();
applyFilter();
drawTable();
listenToTable();
drawAll();
drawEnds();
refilter();

let drawnFor = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnFor) return;
  drawnFor = innerWidth;
  drawAll();
});
follow();
document.documentElement.dataset.drawn = Math.round(performance.now());

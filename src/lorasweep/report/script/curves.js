// How trials learnt: the objective, or the training loss, against the supervised tokens they had seen.
const CURVES = {
  objective: study.objectives[0].key === "objective" ? study.objectives[0].name : "objective",
  training: "training loss",
};

figure("curves", (item) => {
  offerCurves(item.root);
  const isTraining = choice.curves === "training", name = CURVES[choice.curves] ?? CURVES.objective;
  const of = (trial) => (isTraining ? study.training[trial.number] : trial.curve) ?? [];
  const known = (trial) => of(trial).filter(([, value]) => Number.isFinite(value));
  const shown = trials.map((trial) => ({ trial, points: known(trial) })).filter(({ points }) => points.length);
  const nothing = study.running ? "No evaluations yet." : "No trial was evaluated on its way.";
  if (!shown.length) return empty(item.plot, nothing);
  const maximised = !isTraining && study.objectives[0].maximised;
  // the start, which all share, may be far off what matters
  const later = ({ points }, index) => points.slice(points.length > 1 && index ? 1 : 0);
  const values = shown.flatMap(later).map(([, value]) => value);
  const area = inner(item.width, 292, { left: leftOf(objectiveScale(values, maximised, [0, 180])) });
  const y = objectiveScale(values, maximised, [area.bottom, area.top]);
  const most = Math.max(...shown.map(({ points }) => points.at(-1)[0]));
  const x = linear([0, most * 1.02 || 1], [area.left, area.right]);
  const drawn = drawing(item.width, 292, `${name} against supervised tokens`);
  const lines = svg("g", { "clip-path": "url(#curves-area)", class: shown.length > 60 ? "many" : null });
  drawn.append(clip("curves-area", area), axis("left", y, area, { title: name }));
  drawn.append(axis("bottom", x, area, { title: "supervised tokens" }), lines);
  for (const { trial, points } of shown.reverse()) {
    const places = points.map(([tokens, value]) => [x(tokens), y(value)]);
    line(item, drawn, trial, places, lines);
    if (trial.state !== "complete" || places.length === 1) lines.append(mark(trial, ...places.at(-1), 0.8));
  }
  item.plot.replaceChildren(drawn);
  const some = `of ${study.detailed} trials: the first of the table, and the baseline`;
  item.note(isTraining && study.detailed ? some : "");
}, "curves");

function offerCurves(root) {
  const place = root.querySelector(".switch");
  if (!Object.keys(study.training).length) return;
  for (const [kind, name] of Object.entries(CURVES)) {
    const found = place.querySelector(`[data-kind=${kind}]`);
    const node = found ?? button(name, () => choose({ curves: kind }), { class: null, "data-kind": kind });
    node.setAttribute("aria-pressed", choice.curves === kind);
    if (!found) place.append(node);
  }
}

// How trials learnt: the objective, or the training loss, against the supervised tokens they had seen.
const KINDS = { objective: study.objectives[0].key === "objective" ? study.objectives[0].name : "objective", training: "training loss" };

figure("curves", (item) => {
  const isTraining = choice.curves === "training";
  const of = (trial) => (isTraining ? study.training[trial.number] : trial.curve) ?? [];
  const drawable = trials.map((trial) => ({ trial, points: of(trial).filter(([, value]) => Number.isFinite(value)) })).filter(({ points }) => points.length);
  switchCurves(item.root);
  if (!drawable.length) return empty(item.plot, isTraining ? "No training losses are kept." : study.running ? "No evaluations yet." : "No trial was evaluated on its way.");
  const height = 292, maximised = !isTraining && study.objectives[0].maximised;
  const ends = drawable.flatMap(({ points }) => points.slice(points.length > 1 ? 1 : 0).map(([, value]) => value));
  const starts = drawable.filter(({ points }) => points.length > 1).map(({ points }) => points[0][1]);
  const area = inner(item.width, height, { left: leftOf(objectiveScale(ends, maximised, [0, 180]), 5) });
  const y = objectiveScale([...ends, ...starts.slice(0, 1)], maximised, [area.bottom, area.top]);
  const longest = Math.max(...drawable.flatMap(({ points }) => points.map(([tokens]) => tokens)));
  const x = linear([0, longest * 1.02], [area.left, area.right]);
  const drawn = drawing(item.width, height, `${KINDS[choice.curves]} against supervised tokens`);
  drawn.append(clip("curves-area", area), axis("left", y, area, { title: KINDS[choice.curves] }), axis("bottom", x, area, { title: "supervised tokens" }));
  const lines = svg("g", { "clip-path": "url(#curves-area)", class: drawable.length > 60 ? "many" : "" });
  for (const { trial, points } of drawable.reverse()) {
    const places = points.map(([tokens, value]) => [x(tokens), y(value)]);
    lines.append(marked(svg("path", { class: `line ${classOf(trial)}`, d: path(places) }), trial));
    if (trial.state !== "complete" || places.length === 1) lines.append(mark(trial, ...places.at(-1), 0.8));
    hit(item, trial, drawn, places);
  }
  drawn.append(lines);
  item.plot.replaceChildren(drawn);
  item.note(isTraining && study.detailed ? `of the first ${study.detailed} trials` : "");
}, "curves");

function switchCurves(root) {
  const place = root.querySelector(".switch");
  if (!Object.keys(study.training).length) return place.replaceChildren();
  const buttons = Object.keys(KINDS).map((kind) => element("button", { type: "button", "aria-pressed": choice.curves === kind, onclick: () => choose({ curves: kind }) }, KINDS[kind]));
  if (place.childElementCount) buttons.forEach((button, index) => place.children[index].setAttribute("aria-pressed", button.getAttribute("aria-pressed")));
  else place.replaceChildren(...buttons);
}

function clip(id, area) {
  return svg("clipPath", { id }, svg("rect", { x: area.left, y: area.top - 4, width: area.width + 8, height: area.height + 4 }));
}

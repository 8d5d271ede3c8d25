// Whether the winner won: what other seeds, and rows that nothing was chosen by, say.
function certaintyCard() {
  const found = study.confirmed;
  if (!found) return complete.length < 2 || isMultiple ? null : unconfirmed();
  const [style, head] = !found.compared ? ["", "Confirmed alone"]
    : found.inside_noise ? ["doubtful", "Inside the noise"] : ["sure", "Outside the noise"];
  const seeds = element("small", {}, ` ${plural(found.seeds.length, "new seed")} each`);
  return element("div", { class: `card certainty ${style}` },
    element("h2", {}, head, seeds), note(found.verdict), sketch(drawNoise), testScores(found.test));
}

function unconfirmed() {
  const words = "One seed each: the best of many trials flatters itself. This trains the best ones again:";
  const run = command(`lorasweep confirm ${study.called}`, "Copy the command");
  return element("div", { class: "card certainty" }, element("h2", {}, "Not confirmed"), note(words), run);
}

function drawNoise(plot, width) {
  const { candidates } = study.confirmed, { maximised, name } = study.objectives[0];
  const height = 44 + 26 * candidates.length;
  const area = inner(width, height, { left: 96, right: 14, top: 4, bottom: 36 });
  const ends = ({ mean, spread }) => [mean - (spread ?? 0), mean + (spread ?? 0)];
  const all = candidates.flatMap((item) => [...item.values, item.in_study, ...ends(item)]);
  const range = maximised ? [area.left, area.right] : [area.right, area.left];
  const x = linear(padded(Math.min(...all), Math.max(...all)), range);
  const drawn = drawing(width, height, "Values of the repeated trials by seed, with mean and spread");
  drawn.append(axis("bottom", x, area, { count: width / 110, title: `${name} · better to the right` }));
  drawn.append(...candidates.map((item, row) => seeds(item, area.top + 13 + 26 * row, x)));
  plot.replaceChildren(drawn, note("dots: a seed each; bars: mean and spread; rings: in the study, which chose them"));
}

function seeds(item, y, x) {
  const { mean, spread, in_study } = item, trial = byNumber.get(item.trial);
  const [low, high] = [x(mean - (spread ?? 0)), x(mean + (spread ?? 0))].sort((one, other) => one - other);
  const group = svg("g", { class: "seeds" },
    svg("text", { x: 0, y: y + 4 }, `${item.trial}${item.baseline ? " · baseline" : ""}`),
    svg("rect", { class: "spread", x: low, y: y - 6, height: 12, width: high - low, rx: 3 }),
    item.values.map((value) => svg("circle", { class: "seed", cx: x(value), cy: y, r: 3 })),
    svg("line", { class: "mean", x1: x(mean), x2: x(mean), y1: y - 9, y2: y + 9 }),
    svg("circle", { class: "before", cx: x(in_study), cy: y, r: 4 }));
  return trial ? marked(group, trial) : group;
}

function testScores(test) {
  if (!test) return note("No rows were held out of all choices; data.test_fraction=0.1 in a study does.");
  const sides = ["untuned", "baseline", "winner"].filter((side) => test[`${side}/metrics`]);
  const head = [element("th", {}, "test rows"), sides.map((side) => figureCell(side, "", "th"))];
  const rows = Object.keys(test[`${sides[0]}/metrics`]).map((name) => {
    const values = sides.map((side) => test[`${side}/metrics`][name]), words = exactly(values);
    return element("tr", {}, rowHead(metricName(name)), values.map((value) => figureCell(words(value))));
  });
  return plainTable(head, rows);
}

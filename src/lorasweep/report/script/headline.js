// What came of it in one glance: the best trial against the baseline and the untuned model, and whether it is noise.
function headline() {
  const root = document.getElementById("headline");
  root.replaceChildren(...(best ? [result(), changes(), certainty()] : [nothingYet()]).filter(Boolean));
}

function nothingYet() {
  const going = trials.filter((trial) => trial.state === "running").length;
  const words = trials.length ? `No trial is complete yet${going ? `; ${going} running` : ""}.` : "No trials yet.";
  return element("div", { class: "card" }, element("p", { class: "empty" }, words));
}

function wordsOf(index) {
  return exactly(trials.map((trial) => objectiveOf(trial, index)));
}

function result() {
  const parts = study.objectives.map((objective, index) => {
    const first = isMultiple ? [...complete].sort((x, y) => (isBetter(objectiveOf(x, index), objectiveOf(y, index), index) ? -1 : 1))[0] : best;
    const words = wordsOf(index);
    return element("div", { class: "best" },
      element("p", { class: "label" }, `${objective.maximised ? "highest" : "lowest"} ${objective.name}`),
      element("p", { class: "value" }, words(objectiveOf(first, index))),
      element("p", { class: "label" }, pick(first), first === baseline ? " the baseline: nothing beat it" : ""),
      gains(first, index, words));
  });
  const front = complete.filter((trial) => trial.front).length;
  const note = isMultiple && element("p", { class: "note" }, `${front} of ${plural(complete.length, "complete trial")} on the Pareto front: no other is better in everything.`);
  return element("div", { class: `card result${isMultiple ? " several" : ""}` }, parts, note, ground());
}

function gains(trial, index, words) {
  const value = objectiveOf(trial, index);
  const others = [["baseline", trial !== baseline && baseline && objectiveOf(baseline, index)], ["untuned", untunedOf(index)]];
  const rows = others.filter(([, other]) => typeof other === "number").map(([name, other]) => {
    const style = isBetter(value, other, index) ? "gain" : value === other ? "" : "loss";
    const share = other !== 0 ? ` ${signed((value - other) / Math.abs(other), percent)}` : "";
    return element("div", {}, element("dt", {}, `${name} ${words(other)}`), element("dd", { class: style }, signed(value - other, words), element("small", {}, share)));
  });
  const again = index === 0 && study.confirmed?.candidates.find((item) => item.trial === trial.number);
  const repeated = again && element("div", {}, element("dt", {}, plural(study.confirmed.seeds.length, "new seed")), element("dd", {}, words(again.mean), again.spread === null ? "" : element("small", {}, `± ${words(again.spread)}`)));
  return element("dl", { class: "gains" }, rows, repeated);
}

// A button that picks a trial for the comparison.
function pick(trial) {
  const choosing = (event) => choose({ [event.shiftKey ? "b" : "a"]: trial.number });
  return element("button", { type: "button", class: "pick", title: "compare: A; with shift: B", onclick: choosing }, sign(trial), `trial ${trial.number}`);
}

function changes() {
  const shown = study.keys.filter((key) => best.point[key.key] !== undefined);
  if (!shown.length) return null;
  const rows = shown.map((key) => {
    const [now, before] = [best.point[key.key], baseline?.point[key.key]];
    const isSame = !baseline || best === baseline || keyOf(now) === keyOf(before);
    const from = isSame ? null : element("span", { class: "from" }, show(before), " → ");
    return element("div", { class: isSame ? "same" : "changed" }, element("dt", { title: key.key }, key.name), element("dd", {}, from, show(now)));
  });
  const title = isMultiple ? `Trial ${best.number}, first of the front` : "Settings of the best";
  return element("div", { class: "card settings" }, element("h2", {}, title), element("dl", {}, rows), again(best));
}

function again(trial) {
  if (!trial.again) return null;
  return element("p", { class: "again" }, element("code", {}, trial.again), copyButton(trial.again, `Copy the command that runs trial ${trial.number} again`));
}

function copyButton(text, label) {
  const copied = async (event) => {
    const button = event.currentTarget;
    event.stopPropagation();
    await toClipboard(text);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };
  return element("button", { type: "button", class: "copy", title: label, "aria-label": label, onclick: copied });
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

// All trials on one line, with what they are measured against.
function ground() {
  if (isMultiple || complete.length < 2) return null;
  return element("div", { class: "ground" }, sketch(drawGround));
}

function drawGround(plot) {
  const width = Math.max(240, plot.clientWidth), height = 210;
  const area = inner(width, height, { left: 14, right: 14, top: 46, bottom: 36 });
  const maximised = study.objectives[0].maximised;
  const values = complete.map((trial) => objectiveOf(trial));
  const x = objectiveScale(values, maximised, maximised ? [area.left, area.right] : [area.right, area.left]);
  const drawn = drawing(width, height, "The objective of all complete trials on one axis");
  const middle = (area.top + area.bottom) / 2;
  drawn.append(axis("bottom", x, area, { count: width / 90, title: `${study.objectives[0].name} · better to the right` }));
  for (const trial of [...complete].reverse()) {
    const at = clamped(x, objectiveOf(trial));
    const jitter = trial === best || trial === baseline ? 0 : (((trial.number * 0.618) % 1) - 0.5) * area.height * 0.7;
    drawn.append(mark(trial, at, middle + jitter, trial === best ? 1.6 : trial === baseline ? 1.3 : 0.8));
  }
  const named = [["untuned", untunedOf()], best !== baseline && ["baseline", baseline && objectiveOf(baseline)], [best === baseline ? "best: the baseline" : "best", objectiveOf(best)]];
  flags(named.filter((item) => item && typeof item[1] === "number"), x, area).forEach((flag) => drawn.append(flag));
  plot.replaceChildren(drawn);
}

function flags(named, x, area) {
  return named.map(([name, value], row) => {
    const at = clamped(x, value), isOutside = value < x.domain[0] || value > x.domain[1];
    const isLeft = at < (area.left + area.right) / 2;
    const words = isOutside ? (isLeft ? `← ${name} ${wordsOf(0)(value)}` : `${name} ${wordsOf(0)(value)} →`) : name;
    const y = 10 + row * 14;
    return svg("g", { class: `flag ${name.split(":")[0]}` },
      isOutside ? null : svg("line", { x1: at, x2: at, y1: y + 3, y2: area.bottom }),
      svg("text", { x: isLeft ? Math.max(at, area.left) + (isOutside ? 0 : 4) : at - (isOutside ? 0 : 4), y, "text-anchor": isLeft ? "start" : "end" }, words));
  });
}

// Whether the winner won: what other seeds and rows that nothing was chosen by say.
function certainty() {
  const found = study.confirmed;
  if (!found && isMultiple) return null;
  if (!found) {
    const command = `lorasweep confirm ${study.name}`;
    return complete.length < 2 ? null : element("div", { class: "card certainty" }, element("h2", {}, "Not confirmed"),
      element("p", { class: "note" }, "One seed each: the best of many trials flatters itself. This trains the best ones again with other seeds:"),
      element("p", { class: "again" }, element("code", {}, command), copyButton(command, "Copy the command")));
  }
  const style = !found.compared ? "" : found.inside_noise ? "doubtful" : "sure";
  const head = !found.compared ? "Confirmed alone" : found.inside_noise ? "Inside the noise" : "Outside the noise";
  return element("div", { class: `card certainty ${style}` },
    element("h2", {}, head, element("small", {}, ` ${plural(found.seeds.length, "new seed")} each`)),
    element("p", { class: "note" }, found.verdict), sketch(drawNoise), testScores(found.test));
}

function drawNoise(plot) {
  const { candidates } = study.confirmed;
  const width = Math.max(240, plot.clientWidth), height = 44 + 26 * candidates.length;
  const area = inner(width, height, { left: 96, right: 14, top: 4, bottom: 36 });
  const all = candidates.flatMap((item) => [...item.values, item.in_study, item.mean - (item.spread ?? 0), item.mean + (item.spread ?? 0)]);
  const x = linear(padded(Math.min(...all), Math.max(...all)), study.objectives[0].maximised ? [area.left, area.right] : [area.right, area.left]);
  const drawn = drawing(width, height, "Values of the repeated trials by seed, with mean and spread");
  drawn.append(axis("bottom", x, area, { count: width / 110, title: `${study.objectives[0].name} · better to the right` }));
  candidates.forEach((item, row) => {
    const y = area.top + 13 + 26 * row, trial = byNumber.get(item.trial);
    const spread = item.spread ?? 0;
    const words = `mean ${significant(item.mean, 5)}, spread ${significant(spread, 2)}; in the study ${significant(item.in_study, 5)}`;
    const group = svg("g", { class: "seeds" }, svg("title", {}, words),
      svg("text", { x: 0, y: y + 4 }, `${item.trial}${item.baseline ? " · baseline" : ""}`),
      svg("rect", { class: "spread", x: Math.min(x(item.mean - spread), x(item.mean + spread)), y: y - 6, height: 12, width: Math.abs(x(item.mean + spread) - x(item.mean - spread)), rx: 3 }),
      item.values.map((value) => svg("circle", { class: "seed", cx: x(value), cy: y, r: 3 })),
      svg("line", { class: "mean", x1: x(item.mean), x2: x(item.mean), y1: y - 9, y2: y + 9 }),
      svg("circle", { class: "before", cx: x(item.in_study), cy: y, r: 4 }));
    drawn.append(trial ? marked(group, trial) : group);
  });
  plot.replaceChildren(drawn, element("p", { class: "note legend" }, "dots: a seed each; bars: mean and spread; rings: in the study, which chose them"));
}

function testScores(test) {
  if (!test) return element("p", { class: "note" }, "No rows were held out of all choices; data.test_fraction=0.1 in a study does.");
  const sides = ["untuned", "baseline", "winner"].filter((side) => test[`${side}/metrics`]);
  const names = Object.keys(test[`${sides[0]}/metrics`]);
  const head = element("tr", {}, element("th", {}, "test rows"), sides.map((side) => element("th", { class: "number" }, side)));
  const body = names.map((name) => {
    const values = sides.map((side) => test[`${side}/metrics`][name]), words = exactly(values);
    return element("tr", {}, element("th", { scope: "row" }, metricName(name)), values.map((value) => element("td", { class: "number" }, words(value))));
  });
  return element("table", { class: "plain" }, element("thead", {}, head), element("tbody", {}, body));
}

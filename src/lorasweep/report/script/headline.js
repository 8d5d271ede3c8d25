// What came of it in one glance: the best trial against the baseline and the untuned model, and how it was set.
function drawHeadline() {
  const cards = best ? [resultCard(), settingsCard(), certaintyCard()] : [nothingYet()];
  document.getElementById("headline").replaceChildren(...cards.filter(Boolean));
}

function nothingYet() {
  const going = trials.filter((trial) => trial.state === "running").length;
  const words = trials.length ? `No trial is complete yet${going ? `; ${going} running` : ""}.` : "No trials yet.";
  return element("div", { class: "card" }, element("p", { class: "empty" }, words));
}

function resultCard() {
  const front = complete.filter((trial) => trial.front).length;
  const words = `${front} of ${plural(complete.length, "complete trial")} on the Pareto front`;
  const ground = complete.length > 1 && element("div", { class: "ground" }, sketch(drawGround));
  const more = isMultiple ? note(`${words}: no other is better in everything.`) : ground;
  return element("div", { class: `card result${isMultiple ? " several" : ""}` }, study.objectives.map(bestOf), more);
}

function bestOf({ name, maximised }, index) {
  const better = (one, other) => (isBetter(objectiveOf(one, index), objectiveOf(other, index), index) ? -1 : 1);
  const first = isMultiple ? [...complete].sort(better)[0] : best;
  return element("div", { class: "best" },
    element("p", { class: "label" }, `${maximised ? "highest" : "lowest"} ${name}`),
    element("p", { class: "value" }, wordsOf(index)(objectiveOf(first, index))),
    element("p", { class: "label" }, pick(first), first === baseline ? " the baseline: nothing beat it" : ""),
    gains(first, index));
}

function wordsOf(index) {
  return exactly(trials.map((trial) => objectiveOf(trial, index)));
}

function gains(trial, index) {
  const value = objectiveOf(trial, index), words = wordsOf(index);
  const before = trial !== baseline && baseline && objectiveOf(baseline, index);
  const others = [["baseline", before], [UNTUNED, untunedOf(index)]];
  const rows = others.filter(([, other]) => typeof other === "number").map(([name, other]) => {
    const share = other === 0 ? null : element("small", {}, signed((value - other) / Math.abs(other), percent));
    const style = value === other ? null : isBetter(value, other, index) ? "gain" : "loss";
    const difference = element("dd", { class: style }, signed(value - other, words), share);
    return element("div", {}, element("dt", {}, `${name} ${words(other)}`), difference);
  });
  return element("dl", { class: "gains" }, rows, index === 0 && repeated(trial, words));
}

function repeated(trial, words) {
  const again = study.confirmed?.candidates.find((item) => item.trial === trial.number);
  if (!again) return null;
  const spread = again.spread === null ? null : element("small", {}, `± ${words(again.spread)}`);
  const seeds = element("dt", {}, plural(study.confirmed.seeds.length, "new seed"));
  return element("div", {}, seeds, element("dd", {}, words(again.mean), spread));
}

// A button that picks a trial for the comparison.
function pick(trial) {
  const picking = (event) => choose({ [event.shiftKey ? "b" : "a"]: trial.number });
  const title = "compare: A; with shift: B";
  return button([sign(trial), `trial ${trial.number}`], picking, { class: "pick", title });
}

function settingsCard() {
  const shown = study.keys.filter((key) => best.point[key.key] !== undefined);
  if (!shown.length) return null;
  const title = isMultiple ? `Trial ${best.number}, first of the front` : "Settings of the best";
  const run = best.again && command(best.again, `Copy the command that runs trial ${best.number} again`);
  const list = element("dl", {}, shown.map(setting));
  return element("div", { class: "card settings" }, element("h2", {}, title), list, run);
}

function setting({ key, name }) {
  const [now, before] = [best.point[key], baseline?.point[key]];
  const isSame = !baseline || best === baseline || keyOf(now) === keyOf(before);
  const from = isSame ? null : element("span", { class: "from" }, show(before), " → ");
  const value = element("dd", {}, from, show(now));
  return element("div", { class: isSame ? "same" : "changed" }, element("dt", { title: key }, name), value);
}

// All trials on one line, with what they are measured against.
function drawGround(plot, width) {
  const height = 210, { maximised, name } = study.objectives[0];
  const area = inner(width, height, { left: 14, right: 14, top: 46, bottom: 36 });
  const values = complete.map((trial) => objectiveOf(trial));
  const x = objectiveScale(values, maximised, maximised ? [area.left, area.right] : [area.right, area.left]);
  const drawn = drawing(width, height, "The objective of all complete trials on one axis");
  drawn.append(axis("bottom", x, area, { count: width / 90, title: `${name} · better to the right` }));
  for (const trial of [...complete].reverse()) {
    const isNamed = trial === best || trial === baseline;
    const y = (area.top + area.bottom) / 2 + (isNamed ? 0 : apart(trial) * area.height * 0.7);
    drawn.append(mark(trial, clamped(x, objectiveOf(trial)), y, trial === best ? 1.6 : isNamed ? 1.3 : 0.8));
  }
  const others = [[UNTUNED, untunedOf()], ["baseline", best !== baseline && baseline && objectiveOf(baseline)]];
  const named = [...others, [best === baseline ? "best: the baseline" : "best", objectiveOf(best)]];
  drawn.append(...named.filter(([, value]) => typeof value === "number").map((item, row) => flag(item, row, x, area)));
  plot.replaceChildren(drawn);
}

function flag([name, value], row, x, area) {
  const at = clamped(x, value), isOutside = value < x.domain[0] || value > x.domain[1];
  const isLeft = at < (area.left + area.right) / 2, y = 10 + row * 14, gap = isOutside ? 0 : 4;
  const known = `${name} ${wordsOf(0)(value)}`;
  const words = isOutside ? (isLeft ? `← ${known}` : `${known} →`) : name;
  const place = { x: isLeft ? at + gap : at - gap, y, "text-anchor": isLeft ? "start" : "end" };
  const line = isOutside ? null : svg("line", { x1: at, x2: at, y1: y + 3, y2: area.bottom });
  return svg("g", { class: `flag ${name.split(":")[0]}` }, line, svg("text", place, words));
}

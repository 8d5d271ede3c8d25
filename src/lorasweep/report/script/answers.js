// What trials answer, beside the untuned model and what was expected.
const FEW = 4;
let showsEvery = false;

function drawAnswers() {
  const root = document.getElementById("answers"), content = root.querySelector(".content");
  root.hidden = !study.answers;
  if (root.hidden) return;
  const { questions, given, untuned } = study.answers;
  const top = complete.slice(0, 3).map((trial) => trial.number);
  const wanted = [...new Set([choice.a, choice.b, ...top])].filter((number) => number in given);
  const sides = [...(untuned ? [{ name: "untuned", items: untuned }] : []), ...wanted.map((number) => ({ number, items: given[number] }))];
  const cards = questions.slice(0, showsEvery ? Infinity : FEW).map((question, index) => questionCard(question, sides, index));
  const more = questions.length > FEW && element("button", { type: "button", class: "quiet", onclick: () => { showsEvery = !showsEvery; drawAnswers(); } }, showsEvery ? "fewer" : `all ${questions.length} questions`);
  root.querySelector(".note").textContent = `${plural(questions.length, "question")}; greedy answers of the untuned model, of A and B and of the best trials${study.detailed ? `; kept of the first ${study.detailed}` : ""}`;
  content.replaceChildren(...cards, more || "");
}

function questionCard(question, sides, index) {
  return element("article", {},
    element("div", { class: "question" }, element("pre", {}, question.prompt), element("p", { class: "expected" }, element("span", { class: "label" }, "expected "), element("span", {}, question.expected))),
    element("div", { class: "given" }, sides.map((side) => side.items[index] && answer(side, side.items[index]))));
}

function answer({ number, name }, { text, scores }) {
  const badges = ["a", "b"].filter((side) => choice[side] === number).map((side) => element("span", { class: `badge ${side}` }, side.toUpperCase()));
  const trial = byNumber.get(number);
  const marks = Object.entries(scores ?? {}).map(([metric, score], _, all) => element("span", { class: `score ${score >= 1 ? "gain" : score <= 0 ? "loss" : ""}`, title: `${metricName(metric)} ${score}` }, all.length > 1 ? `${metricName(metric)} ` : "", score >= 1 ? "✓" : score <= 0 ? "✗" : significant(score, 2)));
  return element("div", { class: "answer" }, element("p", { class: "head" }, badges, trial ? `trial ${number}` : name, trial?.rank ? element("small", {}, ` rank ${trial.rank}`) : "", marks), element("pre", {}, text || "(nothing)"));
}

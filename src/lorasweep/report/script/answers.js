// What trials answer, beside the untuned model and what was expected.
const FIRST_QUESTIONS = 4;
let showsAllQuestions = false;

function drawAnswers() {
  const root = document.getElementById("answers");
  root.hidden = !study.answers;
  if (root.hidden) return;
  const { questions, given, untuned } = study.answers;
  const numbers = new Set([choice.a, choice.b, ...complete.slice(0, 3).map((trial) => trial.number)]);
  const sides = [...numbers].filter((number) => number in given).map((number) => ({ number, items: given[number] }));
  if (untuned) sides.unshift({ number: UNTUNED, items: untuned });
  const shown = showsAllQuestions ? questions : questions.slice(0, FIRST_QUESTIONS);
  const toggling = () => {
    showsAllQuestions = !showsAllQuestions;
    drawAnswers();
  };
  const more = button(showsAllQuestions ? "fewer" : `all ${questions.length} questions`, toggling);
  const some = study.detailed ? `; kept here of ${study.detailed} trials, the first of the table and the baseline` : "";
  const who = `${untuned ? "the untuned model, " : ""}A, B and the best trials`;
  const what = `${plural(questions.length, "question")}, answered greedily by ${who}${some}`;
  root.querySelector(".note").textContent = what;
  const cards = shown.map((question, index) => questionCard(question, sides, index));
  root.querySelector(".content").replaceChildren(...cards, questions.length > FIRST_QUESTIONS ? more : "");
}

function questionCard({ prompt, expected }, sides, index) {
  const label = element("span", { class: "label" }, "expected ");
  const question = [element("pre", {}, prompt), element("p", { class: "expected" }, label, expected)];
  const cards = sides.map(({ number, items }) => items[index] && answerCard(number, items[index]));
  const given = element("div", { class: "given" }, cards);
  return element("article", {}, element("div", { class: "question" }, question), given);
}

function answerCard(number, { text, scores }) {
  const trial = byNumber.get(number), sides = ["a", "b"].filter((side) => choice[side] === number);
  const rank = trial?.rank && element("small", {}, ` rank ${trial.rank}`);
  const words = [sides.map(badge), trial ? `trial ${number}` : UNTUNED, rank];
  const marks = Object.entries(scores ?? {}).map(([name, score], _, all) => scoreMark(name, score, all.length > 1));
  const head = element("p", { class: "head" }, words, marks);
  return element("div", { class: "answer" }, head, element("pre", {}, text || "(nothing)"));
}

function scoreMark(name, score, isNamed) {
  const words = score >= 1 ? "✓" : score <= 0 ? "✗" : significant(score, 2);
  const style = score >= 1 ? "score gain" : score <= 0 ? "score loss" : "score";
  const title = `${metricName(name)} ${score}`;
  return element("span", { class: style, title }, isNamed && `${metricName(name)} `, words);
}

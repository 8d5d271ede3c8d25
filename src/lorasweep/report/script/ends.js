// Trials that came to nothing, equal reasons together.
const TO_NOTHING = ["failed", "hung", "out_of_memory", "diverged", "refused"];

function drawEnds() {
  const root = document.getElementById("ends");
  const ended = trials.filter((trial) => TO_NOTHING.includes(trial.state));
  const together = Map.groupBy(ended, (trial) => `${trial.state}\n${(trial.why ?? "").split("\n")[0]}`);
  const place = ([trial]) => TO_NOTHING.indexOf(trial.state);
  const groups = [...together.values()].sort((one, other) => place(one) - place(other) || other.length - one.length);
  root.hidden = !groups.length;
  root.querySelector(".content").replaceChildren(...groups.map(reasonOf));
}

function reasonOf(group) {
  const [first] = group, [line, ...rest] = (first.why ?? "no reason is known").split("\n");
  const count = group.length > 1 ? ` × ${group.length}` : "";
  const state = element("p", { class: "state" }, plainSign(first), stateWords(first.state), count);
  const more = element("details", {}, element("summary", {}, line), element("pre", {}, rest.join("\n")));
  const numbers = group.map((trial) => element("li", {}, pick(trial), link(trial.log, "log"), runAgain(trial)));
  const words = [rest.length ? more : element("p", {}, line), element("ul", {}, numbers)];
  return element("div", { class: "reason" }, state, element("div", {}, words));
}

function runAgain(trial) {
  return trial.again && copyButton(trial.again, `Copy the command that runs trial ${trial.number} again`);
}

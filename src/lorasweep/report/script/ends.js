// Trials that came to nothing, equal reasons together.
const TO_NOTHING = ["failed", "hung", "out_of_memory", "diverged", "refused"];

function drawEnds() {
  const root = document.getElementById("ends"), content = root.querySelector(".content");
  const together = Map.groupBy(trials.filter((trial) => TO_NOTHING.includes(trial.state)), (trial) => `${trial.state}\n${(trial.why ?? "").split("\n")[0]}`);
  root.hidden = !together.size;
  const groups = [...together.values()].sort((one, other) => TO_NOTHING.indexOf(one[0].state) - TO_NOTHING.indexOf(other[0].state) || other.length - one.length);
  content.replaceChildren(...groups.map(reason));
}

function reason(group) {
  const [first] = group, lines = (first.why ?? "no reason is known").split("\n");
  const numbers = group.map((trial) => element("li", {}, pick(trial), trial.log ? element("a", { href: trial.log, target: "_blank", rel: "noopener" }, "log") : null, trial.again ? copyButton(trial.again, `Copy the command that runs trial ${trial.number} again`) : null));
  const words = lines.length > 1 ? element("details", {}, element("summary", {}, lines[0]), element("pre", {}, lines.slice(1).join("\n"))) : element("p", {}, lines[0]);
  return element("div", { class: "reason" }, element("p", { class: "state" }, plainSign(first), stateWords(first.state), group.length > 1 ? ` × ${group.length}` : ""), element("div", {}, words, element("ul", {}, numbers)));
}

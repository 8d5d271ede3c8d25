// The study as it was gathered, and what is asked of it everywhere.
const study = JSON.parse(document.getElementById("data").textContent);
const trials = study.trials;
const byNumber = new Map(trials.map((trial) => [trial.number, trial]));
const complete = trials.filter((trial) => trial.values);
const baseline = trials.find((trial) => trial.kind === "baseline");
const best = trials.find((trial) => trial.rank === 1);
const isMultiple = study.objectives.length > 1;
const LESS_IS_BETTER = /^(memory\/|train\/seconds|seconds|adapter\/)|loss$|perplexity$/;
const SHORT = {
  "memory/peak_gib": "peak GiB",
  "tokens/per_second": "tokens/s",
  "train/seconds": "train s",
};
for (const objective of study.objectives) objective.name = metricName(objective.name);

function metricName(key) {
  return SHORT[key] ?? key.replace(/^eval\//, "").replaceAll("_", " ");
}

// The value of an objective; of a trial that ended early what it had reached only if asked for.
function objectiveOf(trial, index = 0, reached = false) {
  return trial.values?.[index] ?? (reached && index === 0 ? trial.reached ?? undefined : undefined);
}

function isBetter(one, other, index = 0) {
  return study.objectives[index].maximised ? one > other : one < other;
}

function untunedOf(index = 0) {
  return study.untuned?.[study.objectives[index].key];
}

// Where a complete trial stands among all, from 1, the best, to 0.
function standings(index) {
  const better = (one, other) => (isBetter(objectiveOf(one, index), objectiveOf(other, index), index) ? -1 : 1);
  const last = complete.length - 1;
  return new Map([...complete].sort(better).map((trial, place) => [trial.number, last ? 1 - place / last : 1]));
}

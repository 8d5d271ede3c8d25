// What there is to say about a trial: columns of the table, names in the filter, lines under the pointer.
const columns = [
  { key: "rank", name: "rank", isNumber: true, get: (trial) => trial.rank },
  { key: "trial", name: "trial", isNumber: true, get: (trial) => trial.number },
  { key: "state", name: "state", get: (trial) => trial.state, words: (trial) => stateWords(trial.state) },
  ...study.objectives.map(objectiveColumn),
  ...(baseline?.values ? [differenceColumn()] : []),
  ...study.keys.map((key) => ({ key: key.key, name: key.name, isKnob: true, inTip: true, get: (trial) => trial.point[key.key] })),
  ...study.metrics.filter((name) => !repeats(name)).map(metricColumn),
  { key: "seconds", name: "time", isNumber: true, inTip: true, get: (trial) => trial.seconds, words: (trial) => (trial.seconds === undefined ? "" : clock(trial.seconds)) },
  { key: "kind", name: "kind", isExtra: true, get: (trial) => trial.kind },
  { key: "slot", name: "slot", isExtra: true, isNumber: true, get: (trial) => trial.slot ?? undefined },
].map(completed);

function objectiveColumn(objective, index) {
  const get = (trial) => objectiveOf(trial, index, true);
  return { key: objective.key, name: objective.name, isNumber: true, isObjective: true, index, inTip: true, get, write: exactly(trials.map(get)) };
}

function differenceColumn() {
  const words = exactly(complete.map((trial) => objectiveOf(trial)));
  const get = (trial) => (trial === baseline ? undefined : trial.difference);
  return { key: "difference", name: "vs baseline", isNumber: true, get, write: (value) => signed(value, words) };
}

function metricColumn(name) {
  const shown = (name.startsWith("eval/") && name !== "eval/perplexity") || ["memory/peak_gib", "tokens/per_second"].includes(name);
  const isConstant = trials.length > 1 && new Set(trials.map((trial) => trial.metrics[name]).filter((value) => value !== undefined)).size < 2;
  return { key: name, name: metricName(name), isExtra: !shown || isConstant, isConstant, inTip: shown && !isConstant, get: (trial) => trial.metrics[name] };
}

function repeats(name) {
  return name.startsWith("eval/") && complete.length > 0 && complete.every((trial) => trial.metrics[name] === objectiveOf(trial));
}

function completed(column) {
  const values = trials.map(column.get);
  const isNumber = column.isNumber ?? (values.some((value) => typeof value === "number") && values.every((value) => value === undefined || typeof value === "number"));
  const write = column.write ?? formatter(values);
  const words = (trial) => {
    const value = column.get(trial);
    return value === undefined ? "" : write(value);
  };
  return { words, ...column, isNumber };
}

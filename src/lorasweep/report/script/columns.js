// What there is to say about a trial: columns of the table, names in the filter, lines under the pointer.
const UNTUNED = "untuned";
const IN_TABLE = /^eval\/(?!perplexity)|^memory\/peak_gib$|^tokens\/per_second$/;
const columns = [
  { key: "trial", name: "trial", isNumber: true, get: (trial) => trial.number },
  { key: "rank", name: "rank", isNumber: true, get: (trial) => trial.rank },
  { key: "state", name: "state", get: (trial) => trial.state, write: stateWords },
  ...study.objectives.map(objectiveColumn),
  ...(baseline?.values ? [differenceColumn()] : []),
  ...study.keys.map((key) => ({ key: key.key, name: key.name, isKnob: true, get: (trial) => trial.point[key.key] })),
  ...study.metrics.filter((name) => !repeats(name)).map(metricColumn),
  { key: "seconds", name: "time", isNumber: true, get: (trial) => trial.seconds, write: clock },
  { key: "kind", name: "kind", isExtra: true, get: (trial) => trial.kind },
  { key: "slot", name: "slot", isExtra: true, isNumber: true, get: (trial) => trial.slot ?? undefined },
].map(completed);
const NOT_IN_TIP = ["trial", "rank", "state", "difference"];

function objectiveColumn({ key, name }, index) {
  const get = (trial) => objectiveOf(trial, index, true);
  return { key, name, isNumber: true, isObjective: true, index, get, write: exactly(trials.map(get)) };
}

function differenceColumn() {
  const words = exactly(complete.map((trial) => objectiveOf(trial)));
  const get = (trial) => (trial === baseline ? undefined : trial.difference);
  return { key: "difference", name: "vs baseline", isNumber: true, get, write: (value) => signed(value, words) };
}

function metricColumn(key) {
  const get = (trial) => trial.metrics[key];
  const values = new Set(trials.map(get).filter((value) => value !== undefined));
  const isConstant = trials.length > 1 && values.size < 2;
  return { key, name: metricName(key), isExtra: isConstant || !IN_TABLE.test(key), isConstant, get };
}

// Whether a metric says what the objective says.
function repeats(name) {
  const isSame = (trial) => trial.metrics[name] === objectiveOf(trial);
  return name.startsWith("eval/") && complete.length > 0 && complete.every(isSame);
}

function completed(column) {
  const values = trials.map(column.get).filter((value) => value !== undefined);
  const isNumber = column.isNumber ?? (values.length > 0 && values.every((value) => typeof value === "number"));
  const write = column.write ?? formatter(values);
  const words = (trial) => (column.get(trial) === undefined ? "" : write(column.get(trial)));
  return { ...column, isNumber, write, words };
}

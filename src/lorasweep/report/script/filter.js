// What a filter says: words that a trial's row holds, and conditions on columns, all of which must hold.
const CONDITION = /^([^<>=!\s"]+)(<=|>=|!=|=|<|>)(.*)$/;
const WORDS = /(?:[^\s"]|"[^"]*")+/g;

function columnNamed(name) {
  const asked = name.toLowerCase();
  const names = (column) => [column.key, column.name].map((item) => item.toLowerCase());
  return columns.find((column) => names(column).includes(asked)) ?? columns.find((column) => column.key.toLowerCase().endsWith("." + asked));
}

function parseFilter(text) {
  const terms = (text.match(WORDS) ?? []).map((word) => {
    const [, name, sign, wanted] = CONDITION.exec(word) ?? [];
    if (!name) return { text: word.replaceAll('"', "").toLowerCase() };
    const column = columnNamed(name);
    const options = (wanted.match(/"[^"]*"|[^,"]+/g) ?? []).map((option) => option.replaceAll('"', ""));
    return column && options.length ? { column, sign, options } : { problem: column ? `${word}: a value?` : `no column ${name}` };
  });
  return { terms, problem: terms.find((term) => term.problem)?.problem };
}

function holds(term, trial) {
  if (term.problem) return true;
  if (term.text) return columns.some((column) => column.words(trial).toLowerCase().includes(term.text));
  const value = term.column.get(trial);
  return term.sign === "!=" ? !term.options.some((option) => fits(value, "=", option)) : term.options.some((option) => fits(value, term.sign, option));
}

function fits(value, sign, option) {
  const [one, other] = [typeof value === "number" ? value : NaN, Number(option.replace(MINUS, "-"))];
  if (sign === "=") return one === other || show(value).toLowerCase() === option.toLowerCase();
  if (Number.isNaN(one) || Number.isNaN(other)) return false;
  return { "<": one < other, ">": one > other, "<=": one <= other, ">=": one >= other }[sign];
}

// A filter with other conditions on one column, all else as it was.
function withConditions(text, key, conditions) {
  const kept = (text.match(WORDS) ?? []).filter((word) => {
    const name = CONDITION.exec(word)?.[1];
    return !name || columnNamed(name)?.key !== key;
  });
  return [...kept, ...conditions].join(" ");
}

function quoted(value) {
  const words = show(value);
  return /[\s,"]/.test(words) ? `"${words.replaceAll('"', "")}"` : words.replace(MINUS, "-");
}

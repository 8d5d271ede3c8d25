// What a filter says: words that a trial's row holds, and conditions on columns, all of which must hold.
const CONDITION = /^([^<>=!\s"]+)(<=|>=|!=|=|<|>)(.*)$/;
const WORDS = /(?:[^\s"]|"[^"]*")+/g;

function columnNamed(name) {
  const asked = name.toLowerCase(), last = `.${asked}`;
  const isNamed = ({ key, name }) => [key, name].some((item) => item.toLowerCase() === asked);
  return columns.find(isNamed) ?? columns.find(({ key }) => key.toLowerCase().endsWith(last));
}

function parseFilter(text) {
  const terms = (text.match(WORDS) ?? []).map(parseTerm);
  return { terms, problem: terms.find((term) => term.problem)?.problem };
}

function parseTerm(word) {
  const [, name, sign, wanted] = CONDITION.exec(word) ?? [];
  if (!name) return { text: word.replaceAll('"', "").toLowerCase() };
  const column = columnNamed(name), options = (wanted.match(/"[^"]*"|[^,"]+/g) ?? []);
  if (!column) return { problem: `no column ${name}` };
  return options.length ? { column, sign, options: options.map(unquoted) } : { problem: `${word} needs a value` };
}

function holds(term, trial) {
  if (term.problem) return true;
  if (term.text) return columns.some((column) => column.words(trial).toLowerCase().includes(term.text));
  const value = term.column.get(trial), fitting = (sign) => term.options.some((option) => fits(value, sign, option));
  return term.sign === "!=" ? !fitting("=") : fitting(term.sign);
}

function fits(value, sign, option) {
  const [one, other] = [typeof value === "number" ? value : NaN, Number(option.replaceAll(MINUS, "-"))];
  if (sign === "=") return one === other || show(value).toLowerCase() === option.toLowerCase();
  if (Number.isNaN(one) || Number.isNaN(other)) return false;
  return { "<": one < other, ">": one > other, "<=": one <= other, ">=": one >= other }[sign];
}

// A filter with other conditions on one column, all else as it was.
function withConditions(text, key, conditions) {
  const isOfOther = (word) => columnNamed(CONDITION.exec(word)?.[1] ?? "")?.key !== key;
  return [...(text.match(WORDS) ?? []).filter(isOfOther), ...conditions].join(" ");
}

function quoted(value) {
  const words = typeof value === "number" ? String(value) : show(value);
  return /[\s,"]/.test(words) ? `"${words.replaceAll('"', "")}"` : words;
}

function unquoted(text) {
  return text.replaceAll('"', "");
}

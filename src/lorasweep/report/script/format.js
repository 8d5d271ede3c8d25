// Numbers and values as they are read.
const MINUS = "\u2212";

function negated(text) {
  return text.replaceAll("-", MINUS);
}

function signed(value, words) {
  return (value < 0 ? MINUS : "+") + words(Math.abs(value));
}

// A number with so many digits and no zeros behind them.
function significant(value, digits = 4) {
  const size = Math.abs(value), trimmed = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (value === 0) return "0";
  if (size < 1e-3 || size >= 1e7) {
    const [number, power] = value.toExponential(digits - 1).split("e");
    return negated(`${trimmed(number)}e${Number(power)}`);
  }
  return negated(size >= 10 ** digits ? String(Math.round(value)) : trimmed(value.toPrecision(digits)));
}

function show(value) {
  if (value === undefined) return "";
  if (Array.isArray(value)) return value.map(show).join(",");
  if (typeof value === "number") return Number.isInteger(value) ? negated(String(value)) : significant(value);
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}

// Values of an objective: four decimals, more where all are small, fewer where they are large.
function exactly(values) {
  const most = Math.max(...values.filter(Number.isFinite).map(Math.abs), 0) || 1, size = Math.floor(Math.log10(most));
  if (size > 6) return (value) => (typeof value === "number" ? significant(value, 5) : "");
  const decimals = Math.min(Math.max(size < 0 ? 3 - size : 4 - size, 0), 8);
  return (value) => (typeof value === "number" ? negated(value.toFixed(decimals)) : "");
}

// One way of writing all numbers of a column: as many decimals for each, so that they stand below each other.
function formatter(values, digits = 4) {
  const numbers = values.filter((value) => typeof value === "number"), sizes = numbers.filter(Boolean).map(Math.abs);
  if (!sizes.length || numbers.every(Number.isInteger)) return show;
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  if (least < 1e-3 && most < 1) return exponential(numbers);
  if (most / least > 1e4 || most >= 1e6) return show;
  // as many as largest and smallest need, and none that are always 0
  const wanted = Math.max(digits - 1 - Math.floor(Math.log10(most)), 3 - Math.floor(Math.log10(least)), 0);
  const needed = Math.max(...numbers.map((value) => (significant(value, 15).split(".")[1] ?? "").length));
  const decimals = Math.min(wanted, needed, 6);
  return (value) => (typeof value === "number" ? negated(value.toFixed(decimals)) : show(value));
}

function exponential(numbers) {
  const digits = numbers.map((value) => Number(value.toPrecision(4)).toExponential().split("e")[0].replace(/\D/g, ""));
  const decimals = Math.max(...digits.map((text) => text.length)) - 1;
  return (value) => {
    if (typeof value !== "number" || value === 0) return show(value);
    return negated(value.toExponential(decimals).replace("+", ""));
  };
}

function clock(seconds) {
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

// A length of time in its two largest units.
function span(seconds) {
  if (seconds < 10) return `${significant(seconds, 2)} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => seconds >= size);
  const [[unit, size], [smaller, part] = []] = units.slice(at, at + 2);
  const rest = part ? Math.round((seconds % size) / part) : 0;
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}

function percent(part) {
  return `${significant(100 * part, Math.abs(part) < 0.1 ? 2 : 3)} %`;
}

function compact(number) {
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [size, unit] = units.find(([least]) => Math.abs(number) >= least) ?? [1, ""];
  return significant(number / size, 3) + unit;
}

function stateWords(state) {
  return state.replaceAll("_", " ");
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// Numbers and values as they are read.
const MINUS = "\u2212";

function signed(value, words) {
  return (value < 0 ? MINUS : "+") + words(Math.abs(value));
}

function significant(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 1e-3 || size >= 1e7 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  const [number, exponent] = text.split("e");
  const short = number.includes(".") ? number.replace(/\.?0+$/, "") : number;
  const whole = exponent && size >= 1e-3 && size < 1e7 ? String(Math.round(value)) : short + (exponent ? "e" + exponent.replace("+", "") : "");
  return whole.replace("-", MINUS).replace("e" + MINUS, "e-").replace("e-", "e" + MINUS);
}

function show(value) {
  if (value === undefined) return "";
  if (Array.isArray(value)) return value.map(show).join(",");
  if (typeof value === "number") return Number.isInteger(value) ? String(value).replace("-", MINUS) : significant(value);
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}

// Values of an objective: four decimals, more where all are small.
function exactly(values) {
  const most = Math.max(...values.filter(Number.isFinite).map(Math.abs), 0) || 1;
  const decimals = Math.min(Math.max(4 - Math.max(0, Math.floor(Math.log10(most)) - 1), 3 - Math.floor(Math.log10(most)), 0), 8);
  return (value) => (typeof value === "number" ? value.toFixed(decimals).replace("-", MINUS) : "");
}

// One way of writing all numbers of a column: as many decimals for each, so that they stand below each other.
function formatter(values, digits = 4) {
  const numbers = values.filter((value) => typeof value === "number");
  const sizes = numbers.filter(Boolean).map(Math.abs);
  if (!sizes.length || numbers.every(Number.isInteger)) return show;
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  if (least < 1e-3 && most < 1) return exponential(numbers);
  if (most / least > 1e4 || most >= 1e6) return show;
  // as many as the largest needs, three for the smallest, and none that are always 0
  const wanted = Math.max(digits - 1 - Math.floor(Math.log10(most)), 2 - Math.floor(Math.log10(least)), 0);
  const needed = Math.max(...numbers.map((value) => (significant(value, 15).replace(/e.*/, "").split(".")[1] ?? "").length));
  const decimals = Math.min(wanted, needed, 6);
  return (value) => (typeof value === "number" ? value.toFixed(decimals).replace("-", MINUS) : show(value));
}

function exponential(numbers) {
  const decimals = Math.max(...numbers.map((value) => Number(value.toPrecision(4)).toExponential().split("e")[0].replace(/^-?\d\.?/, "").length));
  return (value) => {
    if (typeof value !== "number" || value === 0) return show(value);
    const [front, power] = value.toExponential(decimals).split("e");
    return `${front}e${power}`.replaceAll("-", MINUS).replace("+", "");
  };
}

function clock(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = Math.max(units.findIndex(([, size]) => seconds >= size), 0);
  const [unit, size] = seconds >= 1 ? units[at] : units[3];
  const rest = units[at + 1] && seconds >= 60 ? Math.round((seconds % size) / units[at + 1][1]) : 0;
  return seconds < 10 ? `${significant(seconds, 2)} s` : `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${units[at + 1][0]}` : "");
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

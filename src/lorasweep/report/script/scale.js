// From values to places: linear, logarithmic, one place per value. A scale is a function with ticks.
const keyOf = (value) => JSON.stringify(value ?? null);

function linear([low, high], [begin, end]) {
  const size = high - low || 1;
  const scale = (value) => begin + ((value - low) / size) * (end - begin);
  scale.invert = (place) => low + ((place - begin) / (end - begin)) * size;
  scale.ticks = (count = 5) => {
    const rough = size / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * power).find((wide) => wide >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    const marks = Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, index) => (first + index) * step);
    const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 10);
    const words = (value) => (step >= 1e4 ? compact(value) : decimals > 4 ? significant(value, 3) : value.toFixed(decimals).replace("-", MINUS));
    return marks.map((value) => ({ value, at: scale(value), words: words(value) }));
  };
  return Object.assign(scale, { domain: [low, high], range: [begin, end] });
}

function logarithmic([low, high], range) {
  const inner = linear([Math.log10(low), Math.log10(high)], range);
  const scale = (value) => inner(Math.log10(value));
  scale.invert = (place) => 10 ** inner.invert(place);
  scale.ticks = (count = 5) => {
    const powers = Array.from({ length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, index) => Math.floor(Math.log10(low)) + index);
    const inside = (factors) => powers.flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`))).filter((value) => value >= low && value <= high);
    const found = [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]].map(inside).find((marks) => marks.length <= count + 1) ?? inside([1]);
    const every = Math.ceil(found.length / (count + 1));
    return found.filter((_, index) => index % every === 0).map((value) => ({ value, at: scale(value), words: significant(value, 2) }));
  };
  return Object.assign(scale, { domain: [low, high], range, isLog: true });
}

function ordinal(values, [begin, end]) {
  const places = new Map(values.map((value, index) => [keyOf(value), index]));
  const at = (index) => (values.length > 1 ? begin + ((index + 0.5) / values.length) * (end - begin) : (begin + end) / 2);
  const scale = (value) => at(places.get(keyOf(value)) ?? 0);
  scale.ticks = () => values.map((value, index) => ({ value, at: at(index), words: value === undefined ? "–" : show(value) }));
  return Object.assign(scale, { values, band: Math.abs(end - begin) / Math.max(values.length, 1), range: [begin, end] });
}

// The values of a key that varies: in the order of the space, numbers among them by size.
function valuesOf(key) {
  const seen = trials.map((trial) => trial.point[key.key]).filter((value) => value !== undefined);
  const known = new Map([...(key.options ?? []), ...seen].map((value) => [keyOf(value), value]));
  const values = [...known.values()];
  return values.every((value) => typeof value === "number") ? values.sort((one, other) => one - other) : values;
}

// How a key is laid out: a place per value where it is chosen from a few, else a line.
function scaleOf(key, range) {
  const values = valuesOf(key);
  const isNumeric = values.length > 0 && values.every((value) => typeof value === "number");
  if (!isNumeric || key.options || values.length === 1) return ordinal(values, range);
  const [low, high] = [values[0], values.at(-1)];
  return key.log || (low > 0 && high / low > 50) ? logarithmic(padded(low, high, true), range) : linear(padded(low, high), range);
}

function padded(low, high, isLog = false, share = 0.04) {
  if (isLog) return [low * (low / high) ** share, high * (high / low) ** share];
  const more = (high - low || Math.abs(high) || 1) * share;
  return [low - more, high + more];
}

function quantile(sorted, share) {
  const place = (sorted.length - 1) * share;
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return low + (high - low) * (place % 1);
}

// The part of an objective's axis worth looking at: everything but what is far off on the worse side.
function focus(values, maximised) {
  const sorted = values.filter(Number.isFinite).sort((one, other) => one - other);
  if (!sorted.length) return [0, 1];
  const [first, third] = [quantile(sorted, 0.25), quantile(sorted, 0.75)];
  const reach = 2.5 * (third - first) || Infinity;
  const inside = sorted.filter((value) => (maximised ? value >= first - reach : value <= third + reach));
  return [inside[0], inside.at(-1)];
}

function objectiveScale(values, maximised, range) {
  return linear(padded(...focus(values, maximised), false, 0.06), range);
}

function clamped(scale, value) {
  const [low, high] = scale.domain;
  return scale(Math.min(Math.max(value, low), high));
}

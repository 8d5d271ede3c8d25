// From values to places: linear, logarithmic, one place per value. A scale is a function with ticks.
const keyOf = (value) => JSON.stringify(value ?? null);
const ascending = (one, other) => one - other;

function linear([low, high], [begin, end]) {
  const size = high - low || 1;
  const scale = (value) => begin + ((value - low) / size) * (end - begin);
  scale.invert = (place) => low + ((place - begin) / (end - begin)) * size;
  scale.ticks = (count = 5) => {
    const rough = size / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * power).find((wide) => wide >= rough * 0.999);
    const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
    const values = Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => (first + index) * step);
    return values.map((value) => ({ value, at: scale(value), words: tickWords(value, step) }));
  };
  return Object.assign(scale, { domain: [low, high] });
}

function tickWords(value, step) {
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  if (step >= 1e4) return compact(value);
  return decimals > 4 ? significant(value, 3) : negated(value.toFixed(decimals));
}

function logarithmic([low, high], range) {
  const inside = linear([Math.log10(low), Math.log10(high)], range), [first, last] = inside.domain.map(Math.floor);
  const scale = (value) => inside(Math.log10(value));
  const powers = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  const among = (factors) => powers.flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`)));
  const within = (factors) => among(factors).filter((value) => value >= low && value <= high);
  scale.invert = (place) => 10 ** inside.invert(place);
  scale.ticks = (count = 5) => {
    const choices = [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]].map(within);
    const found = choices.find((values) => values.length <= count + 1) ?? choices.at(-1);
    const some = found.filter((_, index) => index % Math.ceil(found.length / (count + 1)) === 0);
    return some.map((value) => ({ value, at: scale(value), words: significant(value, 2) }));
  };
  return Object.assign(scale, { domain: [low, high] });
}

function ordinal(values, [begin, end]) {
  const places = new Map(values.map((value, index) => [keyOf(value), index]));
  const at = (index) => begin + ((index + 0.5) / Math.max(values.length, 1)) * (end - begin);
  const scale = (value) => at(places.get(keyOf(value)) ?? 0);
  scale.ticks = () => values.map((value, index) => ({ value, at: at(index), words: show(value) }));
  return Object.assign(scale, { values, band: Math.abs(end - begin) / Math.max(values.length, 1) });
}

// The values of a key that varies: in the order of the space, numbers by size.
function valuesOf(key) {
  const seen = trials.map((trial) => trial.point[key.key]).filter((value) => value !== undefined);
  const values = [...new Map([...(key.options ?? []), ...seen].map((value) => [keyOf(value), value])).values()];
  return values.every((value) => typeof value === "number") ? values.sort(ascending) : values;
}

// How a key is laid out: a place per value where it is chosen from some, else a line.
function scaleOf(key, range) {
  const values = valuesOf(key), isNumeric = values.every((value) => typeof value === "number");
  if (!isNumeric || key.options || values.length < 2) return ordinal(values, range);
  const [low, high] = [values[0], values.at(-1)], isLog = low > 0 && (key.log || high / low > 50);
  return isLog ? logarithmic(padded(low, high, true), range) : linear(padded(low, high), range);
}

function padded(low, high, isLog = false, share = 0.04) {
  if (isLog) return [low * (low / high) ** share, high * (high / low) ** share];
  const more = (high - low || Math.abs(high) || 1) * share;
  return [low - more, high + more];
}

function quantile(sorted, share) {
  const place = (sorted.length - 1) * share, low = sorted[Math.floor(place)];
  return low + (sorted[Math.ceil(place)] - low) * (place % 1);
}

// The part of an objective's axis worth looking at: everything but what is far off on the worse side.
function focus(values, maximised) {
  const sorted = values.filter(Number.isFinite).sort(ascending);
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

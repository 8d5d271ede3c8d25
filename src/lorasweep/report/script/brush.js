// Dragging along an axis of the parallel coordinates writes conditions into the filter; a click takes them away.
function grip(key, scale, area) {
  const top = area.top - 8, height = area.height + 16;
  const node = svg("rect", { class: "grip", x: -14, width: 28, y: top, height });
  const at = ({ clientY }) => {
    const box = node.getBoundingClientRect();
    return top + ((clientY - box.top) / box.height) * height;
  };
  let begin = null;
  node.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") return; // that scrolls
    begin = at(event);
    node.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  node.addEventListener("pointerup", (event) => {
    if (begin === null) return;
    const [low, high] = [begin, at(event)].sort(ascending);
    begin = null;
    choose({ filter: withConditions(choice.filter, key, high - low < 4 ? [] : conditions(key, scale, low, high)) });
  });
  node.addEventListener("click", (event) => event.stopPropagation());
  return node;
}

function conditions(key, scale, low, high) {
  if (!scale.values) {
    const [least, most] = [low, high].map((place) => Number(scale.invert(place).toPrecision(3))).sort(ascending);
    return [`${key}>=${least}`, `${key}<=${most}`];
  }
  const inside = scale.values.filter((value) => scale(value) >= low && scale(value) <= high);
  return inside.length ? [`${key}=${inside.map(quoted).join(",")}`] : [];
}

// Show on every axis what the filter says of it.
function drawBrushes(item) {
  const { terms } = parseFilter(choice.filter);
  for (const { key, scale } of item.axes ?? []) {
    const mine = terms.filter((term) => term.column?.key === key);
    const layer = item.plot.querySelector(`[data-axis="${CSS.escape(key)}"]`);
    layer.replaceChildren(...(mine.length ? spans(mine, scale).map(bar) : []));
  }
}

function spans(terms, scale) {
  if (scale.values) {
    const agrees = (value) => ({ sign, options }) =>
      options.some((option) => fits(value, sign.replace("!", ""), option)) !== sign.startsWith("!");
    const kept = scale.values.filter((value) => terms.every(agrees(value)));
    return kept.map((value) => [scale(value) - 8, scale(value) + 8]);
  }
  const ends = [...scale.domain];
  for (const { sign, options } of terms) {
    if (sign.startsWith(">")) ends[0] = Number(options[0]);
    if (sign.startsWith("<")) ends[1] = Number(options[0]);
  }
  return [ends.map((value) => clamped(scale, value))];
}

function bar([one, other]) {
  return svg("rect", { x: -5, width: 10, rx: 3, y: Math.min(one, other), height: Math.max(4, Math.abs(other - one)) });
}

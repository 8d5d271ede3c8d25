// Elements, and the few kinds of them that come up again and again.
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

// What is absent (null, undefined, false) is left out, among attributes as among children.
function filled(node, attributes, children) {
  const isAbsent = (value) => value === null || value === undefined || value === false;
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-") && typeof value === "boolean") node.setAttribute(key, value);
    else if (!isAbsent(value)) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => !isAbsent(child)));
  return node;
}

function button(words, onclick, attributes = {}) {
  return element("button", { type: "button", class: "quiet", ...attributes, onclick }, words);
}

function note(...words) {
  return element("p", { class: "note" }, words);
}

function link(address, words) {
  return address ? element("a", { href: address, target: "_blank", rel: "noopener" }, words) : null;
}

function badge(side) {
  return element("span", { class: `badge ${side}` }, side.toUpperCase());
}

// A cell whose numbers stand below each other; `style` may say whether it is a gain or a loss.
function figureCell(words, style = "", name = "td") {
  return element(name, { class: `number ${style}`.trim() }, words);
}

function rowHead(words, attributes = {}) {
  return element("th", { scope: "row", ...attributes }, words);
}

// A table that scrolls in a box of its own where it is too wide.
function plainTable(head, rows) {
  const body = element("tbody", {}, rows);
  const thead = head ? element("thead", {}, element("tr", {}, head)) : null;
  return element("div", { class: "scroll" }, element("table", { class: "plain" }, thead, body));
}

function empty(box, words) {
  box.replaceChildren(element("p", { class: "empty" }, words));
}

function copyButton(text, label) {
  const copying = async (event) => {
    const node = event.currentTarget;
    await toClipboard(text);
    node.classList.add("done");
    setTimeout(() => node.classList.remove("done"), 1200);
  };
  return button("", copying, { class: "copy", title: label, "aria-label": label });
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not every browser lets a file do that
    const area = element("textarea", { class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function command(text, label) {
  return element("p", { class: "again" }, element("code", {}, text), copyButton(text, label));
}

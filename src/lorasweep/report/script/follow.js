// A page that is written again and again loads itself, where it was, when the reader is not in the middle of something.
const SECONDS_AT_REST = 3;
const PLACES = "scroll";

function follow() {
  const seconds = Number(document.documentElement.dataset.reload);
  if (!seconds) return;
  scrollAsBefore();
  addEventListener("pagehide", keepPlaces);
  let last = -Infinity;
  const touched = () => (last = performance.now());
  for (const kind of ["pointermove", "keydown", "wheel", "touchmove"]) addEventListener(kind, touched);
  setInterval(() => {
    const now = performance.now(), isResting = now - last > 1000 * SECONDS_AT_REST && !document.hidden;
    if (now >= 1000 * seconds && isResting) location.reload();
  }, 1000);
}

function scrollers() {
  return [document.documentElement, ...document.querySelectorAll(".scroll")];
}

function keepPlaces() {
  const places = scrollers().map(({ scrollTop, scrollLeft }) => [scrollTop, scrollLeft]);
  sessionStorage.setItem(PLACES, JSON.stringify(places));
}

function scrollAsBefore() {
  const places = JSON.parse(sessionStorage.getItem(PLACES) ?? "[]"), nodes = scrollers();
  places.forEach(([top, left], index) => nodes[index]?.scrollTo(left, top));
}

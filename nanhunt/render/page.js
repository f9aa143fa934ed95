
"use strict";
// Without this script the page loses only the line under a strip: every bin also has a native tooltip.
for (const strip of document.querySelectorAll(".strip")) {
  const bins = [...strip.querySelectorAll(".hit")];
  const detail = strip.nextElementSibling;
  const told = (bin) => bin.querySelector("title").textContent;
  const bad = (bin) => !/: healthy/.test(told(bin));
  let at = 0;
  const show = (index) => {
    bins[at].classList.remove("on");
    at = Math.min(Math.max(index, 0), bins.length - 1);
    bins[at].classList.add("on");
    detail.textContent = told(bins[at]);
    strip.setAttribute("aria-valuenow", String(at + 1));
    strip.setAttribute("aria-valuetext", told(bins[at]));
  };
  const nextBad = (step) => {
    let index = at + step;
    while (index >= 0 && index < bins.length && !bad(bins[index])) index += step;
    return index < 0 || index >= bins.length ? at : index;
  };
  const keys = {
    ArrowRight: () => at + 1, ArrowUp: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => at - 1,
    Home: () => 0, End: () => bins.length - 1, PageDown: () => nextBad(1), PageUp: () => nextBad(-1),
  };
  strip.addEventListener("pointermove", (event) => {
    const index = bins.indexOf(event.target);
    if (index >= 0) show(index);
  });
  strip.addEventListener("focus", () => show(at));
  strip.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    show(keys[event.key]());
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

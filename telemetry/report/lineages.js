"use strict";
// Picks out a lineage: in every figure all others fade. The choice stands in the page's address, so that it outlives
// a reload and can be sent to somebody.
(() => {
  const PREFIX = "#lineage=";
  const buttons = [...document.querySelectorAll("button[data-lineage]")];
  const marks = [...document.querySelectorAll("svg [data-lineage]")];
  const figures = new Set(marks.map((mark) => mark.ownerSVGElement));
  const now = document.getElementById("lineage-now"), hint = now.textContent;
  const nameOf = (button) => button.textContent.trim();
  const choose = (chosen) => {
    const number = chosen ? chosen.dataset.lineage : null;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
    for (const figure of figures) figure.classList.toggle("choosing", chosen !== null);
    for (const mark of marks) mark.classList.toggle("chosen", mark.dataset.lineage === number);
    now.textContent = chosen ? `${nameOf(chosen)}: ${chosen.dataset.told}. Press it again to see all.` : hint;
    history.replaceState(null, "", chosen ? PREFIX + encodeURIComponent(nameOf(chosen)) : location.pathname + location.search);
  };
  const toggle = (button) => choose(button.getAttribute("aria-pressed") === "true" ? null : button);
  for (const button of buttons) button.addEventListener("click", () => toggle(button));
  for (const mark of marks)
    mark.addEventListener("click", () => toggle(buttons.find((button) => button.dataset.lineage === mark.dataset.lineage)));
  const wanted = buttons.find((button) => PREFIX + encodeURIComponent(nameOf(button)) === location.hash);
  if (wanted) choose(wanted);
})();

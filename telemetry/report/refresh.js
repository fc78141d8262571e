"use strict";
// Loads a served page anew when its run has moved on, and puts the reader back to where they were.
(() => {
  const KEY = "place", EVERY = 3000;
  const version = document.documentElement.dataset.version;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const focusable = () => all("button, select, input, summary, [tabindex]");
  const remember = () =>
    sessionStorage.setItem(
      KEY,
      JSON.stringify({
        top: scrollY,
        open: all("details").map((one) => one.open),
        across: all(".scroll").map((one) => one.scrollLeft),
        chosen: all("select").map((one) => one.selectedOptions[0].text),
        step: all("input").map((one) => one.value),
        focus: focusable().indexOf(document.activeElement),
      }),
    );
  const recall = () => {
    const place = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    sessionStorage.removeItem(KEY);
    if (!place) return;
    all("details").forEach((one, at) => (one.open = place.open[at] ?? one.open));
    all("select").forEach((one, at) => {
      const option = [...one.options].find((option) => option.text === place.chosen[at]);
      if (option) one.value = option.value;
      one.dispatchEvent(new Event("change"));
    });
    all("input").forEach((one, at) => {
      one.value = place.step[at] ?? one.value;
      one.dispatchEvent(new Event("input"));
    });
    all(".scroll").forEach((one, at) => (one.scrollLeft = place.across[at] ?? 0));
    focusable()[place.focus]?.focus({ preventScroll: true });
    scrollTo(0, place.top);
  };
  const playing = () => document.getElementById("replay-play")?.textContent === "Stop";
  const look = async () => {
    if (document.hidden || playing()) return;
    try {
      const reply = await fetch("/version", { cache: "no-store" });
      if (!reply.ok || (await reply.text()) === version) return;
    } catch {
      return; // nobody serves it any more: what is shown stays
    }
    remember();
    location.reload();
  };
  recall();
  setInterval(look, EVERY);
})();

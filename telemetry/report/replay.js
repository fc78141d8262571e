"use strict";
// Plays lives side by side. Everything that worlds and agents wrote enters the page as text.
(() => {
  const lives = JSON.parse(document.getElementById("replay-data").textContent);
  const byId = (id) => document.getElementById(id);
  const slider = byId("replay-step"), play = byId("replay-play"), now = byId("replay-now");
  const panels = [...document.querySelectorAll(".replay-panel")].map((panel) => ({
    choice: panel.querySelector("select"),
    fate: panel.querySelector(".fate"),
    line: panel.querySelector("polyline"),
    mark: panel.querySelector("circle"),
    picture: panel.querySelector("pre"),
    saw: panel.querySelector(".saw"),
    did: panel.querySelector(".did"),
    energy: panel.querySelector(".energy"),
  }));
  let timer = 0;
  const chosen = (panel) => lives[Number(panel.choice.value)];
  const longest = () => Math.max(...panels.map((panel) => chosen(panel).frames.length));
  const place = (life, step) => {
    const most = Math.max(1, ...life.frames.map((frame) => frame.energy));
    const across = life.frames.length > 1 ? (step / (life.frames.length - 1)) * 292 + 4 : 4;
    return [across, 46 - (Math.max(0, life.frames[step].energy) / most) * 42];
  };
  const show = () => {
    const step = Number(slider.value);
    now.textContent = `step ${step + 1} of ${longest()}`;
    for (const panel of panels) {
      const life = chosen(panel), last = life.frames.length - 1, at = Math.min(step, last), frame = life.frames[at];
      panel.fate.textContent = step < last ? "alive" : `${life.end} after ${life.steps} steps`;
      panel.line.setAttribute("points", life.frames.map((_, index) => place(life, index).join(",")).join(" "));
      const [x, y] = place(life, at);
      panel.mark.setAttribute("cx", x);
      panel.mark.setAttribute("cy", y);
      panel.picture.textContent = frame.picture;
      panel.saw.textContent = frame.saw;
      panel.did.textContent = `${frame.did} (${Math.round(frame.p * 100)}%${frame.explored ? ", explored" : ""})`;
      panel.energy.textContent = `${frame.before} \u2192 ${frame.energy}`;
    }
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const forward = () => {
    if (Number(slider.value) + 1 >= longest()) return stop();
    slider.value = Number(slider.value) + 1;
    show();
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) + 1 >= longest()) slider.value = 0;
    play.textContent = "Stop";
    timer = setInterval(forward, 300);
  });
  slider.addEventListener("input", show);
  for (const panel of panels)
    panel.choice.addEventListener("change", () => {
      slider.max = longest() - 1;
      show();
    });
  slider.max = longest() - 1;
  byId("replay").hidden = false;
  show();
})();

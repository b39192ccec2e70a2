"use strict";
// Drag over the timeline to choose a time. The two fields below it do the same.

const line = document.querySelector(".timeline");
if (line) {
  const drawing = line.querySelector("svg");
  const chosen = drawing.querySelector(".chosen");
  const [from, to] = ["from", "to"].map((name) => document.getElementById(name));
  const [first, last] = [Number(line.dataset.first), Number(line.dataset.last)];
  const wide = drawing.viewBox.baseVal.width;
  let start = null;

  const written = (seconds) => new Date(Math.round(seconds) * 1000).toISOString().slice(0, 19);
  const read = (field, otherwise) => (field.value ? Date.parse(`${field.value}Z`) / 1000 : otherwise);
  const within = (value) => Math.min(Math.max(value, 0), 1);
  const share = (event) => {
    const shown = drawing.getBoundingClientRect();
    return within((event.clientX - shown.left) / shown.width);
  };
  const seconds = (part) => first + part * (last - first);

  const draw = () => {
    const some = from.value || to.value;
    chosen.setAttribute("visibility", some ? "visible" : "hidden");
    const left = within((read(from, first) - first) / (last - first));
    const right = within((read(to, last) - first) / (last - first));
    chosen.setAttribute("x", left * wide);
    chosen.setAttribute("width", Math.max(0, right - left) * wide);
  };

  const choose = (one, other) => {
    const [low, high] = [Math.min(one, other), Math.max(one, other)];
    from.value = written(Math.floor(seconds(low)));
    to.value = written(Math.ceil(seconds(high)));
    draw();
  };

  drawing.addEventListener("pointerdown", (event) => {
    start = share(event);
    drawing.setPointerCapture(event.pointerId);
  });
  drawing.addEventListener("pointermove", (event) => {
    if (start !== null && Math.abs(share(event) - start) > 0.003) choose(start, share(event));
  });
  drawing.addEventListener("pointerup", () => {
    start = null;
  });
  drawing.addEventListener("pointercancel", () => {
    start = null;
  });
  const all = document.getElementById("all-times");
  all.hidden = false;
  all.addEventListener("click", () => {
    from.value = "";
    to.value = "";
    draw();
  });
  for (const field of [from, to]) field.addEventListener("input", draw);
  line.classList.add("live");
  draw();
}

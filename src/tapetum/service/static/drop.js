"use strict";
// Drop or paste a picture, look at it, draw a box around the person. The file field and the four numbers do the same.

const area = document.querySelector(".drop");
if (area) {
  const field = area.querySelector("input[type=file]");
  const canvas = area.querySelector("canvas");
  const mark = area.querySelector(".mark");
  const said = document.getElementById("drop-said");
  const doubt = document.getElementById("doubt");
  const part = document.getElementById("part");
  const numbers = ["left", "top", "width", "height"].map((name) => document.getElementById(name));
  const pen = canvas.getContext("2d");
  let picture = null;
  let start = null;

  const box = () => {
    const values = numbers.map((number) => Number.parseInt(number.value, 10));
    return values.every(Number.isFinite) && values[2] > 0 && values[3] > 0 ? values : null;
  };

  const draw = () => {
    if (!picture) return;
    pen.drawImage(picture, 0, 0);
    const chosen = box();
    if (!chosen) return;
    const [left, top, width, height] = chosen;
    pen.fillStyle = "rgba(5, 8, 12, .62)";
    pen.fillRect(0, 0, canvas.width, top);
    pen.fillRect(0, top + height, canvas.width, canvas.height);
    pen.fillRect(0, top, left, height);
    pen.fillRect(left + width, top, canvas.width, height);
    pen.lineWidth = Math.max(2, canvas.width / 200);
    pen.strokeStyle = "#7ef0c1";
    pen.strokeRect(left, top, width, height);
  };

  const forget = () => {
    for (const number of numbers) number.value = "";
  };

  const show = async () => {
    const files = [...field.files];
    forget();
    picture = null;
    canvas.hidden = true;
    mark.removeAttribute("hidden"); // a drawing knows the attribute, not the property
    part.hidden = files.length !== 1;
    look();
    if (files.length === 0) {
      said.textContent = "";
      return;
    }
    said.textContent = files.length === 1 ? files[0].name : `${files.length} pictures of one person`;
    try {
      picture = await createImageBitmap(files[0]);
    } catch {
      said.textContent += " (no preview of this kind of file)";
      return;
    }
    [canvas.width, canvas.height] = [picture.width, picture.height];
    canvas.hidden = false;
    mark.setAttribute("hidden", "");
    canvas.classList.toggle("tall", picture.height > picture.width);
    if (files.length === 1) said.textContent += `, ${picture.width} × ${picture.height}. Draw a box if it shows more than the person.`;
    draw();
  };

  let asked = 0;
  const look = async () => {  // what is doubtful about the pictures is said before anybody searches with them
    const mine = ++asked;
    doubt.hidden = true;
    if (field.files.length === 0) return;
    const form = new FormData();
    for (const file of field.files) form.append("pictures", file);
    const chosen = field.files.length === 1 ? box() : null;
    form.append("options", JSON.stringify({boxes: chosen ? [chosen] : []}));
    try {
      const answer = await fetch("/api/v1/pictures", {
        method: "POST",
        headers: {"x-csrf-token": document.querySelector("input[name=csrf]").value},
        body: form,
      });
      if (!answer.ok || mine !== asked) return; // the search itself says what is wrong
      const told = await answer.json();
      if (mine !== asked) return;
      const lines = told.pictures.filter((each) => each.doubt).map((each) => `${each.label} is ${each.doubt}.`);
      doubt.textContent = lines.join(" ");
      doubt.hidden = lines.length === 0;
    } catch {
      // no network: searching will say so
    }
  };

  const take = (files) => {
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    if (pictures.length === 0) {
      said.textContent = "That was no picture.";
      return;
    }
    const list = new DataTransfer();
    for (const file of pictures) list.items.add(file);
    field.files = list.files;
    show();
  };

  const place = (event) => {
    const shown = canvas.getBoundingClientRect();
    const within = (value, most) => Math.round(Math.min(Math.max(value, 0), 1) * most);
    return [
      within((event.clientX - shown.left) / shown.width, canvas.width),
      within((event.clientY - shown.top) / shown.height, canvas.height),
    ];
  };

  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files);
  });
  field.addEventListener("change", show);
  for (const number of numbers) {
    number.addEventListener("input", draw);
    number.addEventListener("change", look);
  }
  document.getElementById("whole").addEventListener("click", () => {
    forget();
    draw();
    look();
  });

  canvas.addEventListener("pointerdown", (event) => {
    if (field.files.length !== 1) return;
    start = place(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    const end = place(event);
    numbers[0].value = Math.min(start[0], end[0]);
    numbers[1].value = Math.min(start[1], end[1]);
    numbers[2].value = Math.abs(start[0] - end[0]);
    numbers[3].value = Math.abs(start[1] - end[1]);
    draw();
  });
  const lift = () => {
    if (!start) return;
    start = null;
    const chosen = box();
    if (!chosen || chosen[2] < 4 || chosen[3] < 4) forget(); // a click is no box
    else part.open = true;
    draw();
    look();
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);

  document.querySelector("[data-needs-drop]")?.removeAttribute("hidden");
  if (field.files.length) show(); // the browser kept the choice when it came back
}

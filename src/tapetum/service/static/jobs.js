"use strict";
// Jobs that are at work tell how far they are. Without this, loading the page again does.

const EVERY = 1500; // milliseconds
const working = () => [...document.querySelectorAll('.job[data-state="waiting"], .job[data-state="running"]')];

const look = async (shown) => {
  const answer = await fetch(`/api/v1/jobs/${encodeURIComponent(shown.dataset.job)}`, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const job = await answer.json();
  if (job.state !== "waiting" && job.state !== "running") {
    location.reload(); // report and buttons are written by the server
    return;
  }
  if (job.state !== shown.dataset.state) {
    shown.dataset.state = job.state;
    shown.querySelector(".state").textContent = job.state;
  }
  const bar = shown.querySelector("progress");
  if (job.total) {
    bar.max = job.total;
    bar.value = job.done;
    shown.querySelector(".far").textContent = `${job.done.toLocaleString("en")} of ${job.total.toLocaleString("en")} frames and pictures`;
  }
};

const poll = async () => {
  try {
    for (const shown of working()) await look(shown);
  } catch {
    // the server is busy or gone: the next look tells
  }
  if (working().length) setTimeout(poll, EVERY);
};
if (working().length) setTimeout(poll, EVERY);

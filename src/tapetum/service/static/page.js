"use strict";
// Every page works without this. What it adds: the choice of "brighten" is remembered, and long work says it has begun.

const brighten = document.getElementById("brighten");
if (brighten) {
  brighten.checked = localStorage.getItem("brighten") === "yes";
  brighten.addEventListener("change", () => localStorage.setItem("brighten", brighten.checked ? "yes" : "no"));
}

for (const form of document.querySelectorAll("form[data-busy]")) {
  form.addEventListener("submit", () => {
    const said = form.querySelector("[role=status]");
    if (said) said.textContent = form.dataset.busy;
  });
}
// Back from the cache of the browser: nothing is under way any more.
addEventListener("pageshow", () => {
  for (const said of document.querySelectorAll("form[data-busy] [role=status]")) said.textContent = "";
});

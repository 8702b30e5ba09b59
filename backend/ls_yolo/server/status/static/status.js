"use strict";
// The page works without this: it adds dropping of images, and looks that keep up to date.

const EVERY = 10000; // ms between two looks
const form = document.getElementById("try-form");
const follow = document.getElementById("follow");

if (form) {
  const drop = document.getElementById("drop");
  const input = document.getElementById("image");
  document.querySelectorAll(".js").forEach((part) => { part.hidden = false; });

  // What is dropped beside the field would else replace the page.
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault());
  }
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    form.requestSubmit();
  });
  form.addEventListener("submit", () => {
    form.setAttribute("aria-busy", "true");
    form.querySelector("button").textContent = "Predicting …";
  });
}

// What was tried is what the person waits for.
const result = document.getElementById("result");
if (result) result.focus();

async function look() {
  const answer = await fetch("/", { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const changed = fresh.getElementById(old.id);
    // Nobody's focus is taken away, and what was opened stays open.
    if (!changed || old.contains(document.activeElement)) continue;
    for (const open of old.querySelectorAll("details[open]")) {
      const same = changed.querySelector(`details[data-keep="${CSS.escape(open.dataset.keep)}"]`);
      if (same) same.open = true;
    }
    old.replaceWith(document.adoptNode(changed));
  }
}

follow.parentElement.hidden = false;
setInterval(() => {
  if (follow.checked && !document.hidden) look().catch(() => {});
}, EVERY);

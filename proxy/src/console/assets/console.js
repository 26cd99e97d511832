// Keeps lists fresh, counts down, and gives the pages keys. Everything works without it.
"use strict";

const main = () => document.getElementById("main");

// Times left are counted from when the page was made, by a clock that nobody sets.
let made = performance.now();

const span = (s) =>
  s <= 0 ? "over"
  : s < 60 ? `${s} s left`
  : s < 3600 ? `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s left`
  : `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, "0")} min left`;

const count = () => {
  const gone = Math.floor((performance.now() - made) / 1000);
  for (const time of document.querySelectorAll("time[data-left]")) {
    const left = Math.max(0, Number(time.dataset.left) - gone);
    time.textContent = span(left);
    time.classList.toggle("soon", left < 60);
  }
};

// Takes the new page's content, and keeps what has the focus.
const refresh = async () => {
  const answer = await fetch(location.pathname, { credentials: "same-origin" });
  if (answer.status === 401) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("main");
  if (!fresh) return location.reload();
  const at = document.activeElement && document.activeElement.getAttribute("href");
  main().replaceWith(document.adoptNode(fresh));
  const nav = page.querySelector("header nav");
  if (nav) document.querySelector("header nav").replaceWith(document.adoptNode(nav));
  document.title = page.title;
  made = performance.now();
  count();
  if (at) {
    for (const link of main().querySelectorAll("a")) {
      if (link.getAttribute("href") === at) { link.focus(); break; }
    }
  }
};

const follow = async () => {
  let pause = 1000;
  while (main() && main().dataset.live) {
    try {
      const seen = encodeURIComponent(main().dataset.live);
      const answer = await fetch(`/console/changes?seen=${seen}`, { credentials: "same-origin" });
      if (answer.status === 401) return location.reload();
      if (answer.status === 200) await refresh();
      if (answer.status >= 400) throw new Error(String(answer.status));
      pause = 1000;
    } catch {
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 2, 30000);
    }
  }
};

const move = (by) => {
  const all = [...document.querySelectorAll("main .cards a, main .rows a")];
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = all[Math.min(all.length - 1, Math.max(0, at + (at < 0 && by < 0 ? 0 : by)))];
  next.focus();
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "u" && !document.querySelector("[data-key=u]")) location.href = "/console";
  else {
    const link = /^[a-z]$/.test(event.key) && document.querySelector(`[data-key="${event.key}"]`);
    if (!link) return;
    link.click();
  }
  event.preventDefault();
});

// A vote is sent once, however often the button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

const keys = document.getElementById("keys");
if (keys && document.querySelector("header nav")) {
  keys.textContent = "keys: j and k move · enter opens · a approves · d denies · u goes back";
  keys.hidden = false;
}
count();
setInterval(count, 1000);
follow();

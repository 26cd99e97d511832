// Keeps lists fresh, counts down, replays sessions and gives the pages keys. All works without it.
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
    const bar = time.parentElement.querySelector("progress");
    if (bar) bar.value = Math.min(left, bar.max);
    time.parentElement.classList.toggle("soon", left < 60);
  }
};

// Moments in the reader's own zone, with the exact one on hover.
const localise = () => {
  const form = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of document.querySelectorAll("time.at")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime()) || time.title) continue;
    time.title = time.textContent;
    time.textContent = form.format(at);
  }
};

// Takes the new page's content, and keeps what has the focus.
const refresh = async () => {
  // With what was asked for: a vote that was just confirmed stays confirmed.
  const answer = await fetch(location.pathname + location.search, { credentials: "same-origin" });
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
  localise();
  if (at) {
    for (const link of document.querySelectorAll("a")) {
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

// A session as it went: lines appear when they did, with long pauses made short.
const replay = () => {
  const player = document.querySelector(".player");
  const lines = [...document.querySelectorAll(".story li")];
  if (!player || lines.length < 2) return;
  const [play, speed, reel] = ["play", "speed", "reel"].map((name) => player.querySelector(`[data-${name}]`));
  let timer = 0;
  const to = (shown) => {
    reel.value = shown;
    lines.forEach((line, at) => line.classList.toggle("ahead", at >= shown));
  };
  const stop = () => {
    clearTimeout(timer);
    timer = 0;
    play.textContent = "Replay";
  };
  const step = () => {
    const shown = Number(reel.value);
    if (shown >= lines.length) return stop();
    to(shown + 1);
    if (shown + 1 >= lines.length) return stop();
    const pause = Number(lines[shown + 1].dataset.since) - Number(lines[shown].dataset.since);
    timer = setTimeout(step, Math.min(3, Math.max(0.05, pause)) * 1000 / Number(speed.value));
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(reel.value) >= lines.length) to(0);
    play.textContent = "Pause";
    step();
  });
  reel.addEventListener("input", () => { stop(); to(Number(reel.value)); });
  player.hidden = false;
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
  const field = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && field) return event.target.blur();
  if (field) return;
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

// Bytes as base64url, as forms carry them.
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const encoded = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

// Has a security key sign what the form says, or make itself known; then sends the form.
const signed = async (form) => {
  const { webauthn, rp, user, label, keys } = form.dataset;
  const chosen = form.elements.window?.selectedOptions[0];
  const challenge = bytes(chosen?.dataset.challenge ?? form.dataset.challenge);
  const credentials = keys.split(" ").filter(Boolean).map((id) => ({ type: "public-key", id: bytes(id) }));
  const timeout = 120000;
  let made;
  if (webauthn === "create") {
    made = await navigator.credentials.create({ publicKey: {
      challenge, timeout, attestation: "none", excludeCredentials: credentials,
      rp: { id: rp, name: "holdpoint" },
      user: { id: bytes(user), name: label, displayName: label },
      pubKeyCredParams: [-7, -8, -257].map((alg) => ({ type: "public-key", alg })),
      authenticatorSelection: { userVerification: "required", residentKey: "discouraged" },
    } });
    form.elements.authenticator_data.value = encoded(made.response.getAuthenticatorData());
  } else {
    made = await navigator.credentials.get({ publicKey: {
      challenge, timeout, rpId: rp, allowCredentials: credentials, userVerification: "required",
    } });
    form.elements.credential.value = encoded(made.rawId);
    form.elements.authenticator_data.value = encoded(made.response.authenticatorData);
    form.elements.signature.value = encoded(made.response.signature);
  }
  form.elements.client_data.value = encoded(made.response.clientDataJSON);
  form.submit();
};

// A vote is sent once, however often the button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
  if (!form.dataset.webauthn) return;
  event.preventDefault();
  const failed = form.querySelector("[data-failed]");
  failed.hidden = true;
  signed(form).catch((error) => {
    delete form.dataset.sent;
    failed.textContent = `Your security key gave nothing: ${error.message || error.name}`;
    failed.hidden = false;
  });
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

const keys = document.getElementById("keys");
if (keys && document.querySelector("header nav")) keys.hidden = false;
count();
localise();
replay();
setInterval(count, 1000);
follow();

// What rules can ask of reviewers, in a real browser, as told by tests/it/browser_rules.rs.
//
//   node rules.mjs NODE_MODULES CHROMIUM BASE_URL SCREENSHOTS
//
// `hold NAME`, `justify NAME ID`, `ran NAME` and `again NAME` on standard output ask the test for
// something; `ok WHAT` says what was seen. The last line is `done`.

import { base, browser, check, click, everywhere, judged, say, tell, text, watched } from "./common.mjs";

const person = async (name) => {
  const context = await browser.createBrowserContext();
  const page = await watched(1280, 820, "light", { within: context });
  await page.goto(`${base}/console`);
  await click(page, 'a[href^="/console/login"]');
  await click(page, `button[value="${name}"]`);
  check(page.url() === `${base}/console`, `${name} is at ${page.url()}`);
  return { context, page };
};

// Opens the one command that waits with this text; gives the path of its page.
const held = async (page, words) => {
  await page.goto(`${base}/console`);
  await page.waitForFunction(
    (words) => [...document.querySelectorAll(".card")].some((card) => card.innerText.includes(words)), {}, words);
  const path = await page.evaluate(
    (words) => [...document.querySelectorAll(".card")].find((card) => card.innerText.includes(words)).getAttribute("href"), words);
  await page.goto(base + path);
  return path;
};
const id = (path) => path.split("/").pop();
const shows = async (page, words) => check((await text(page)).includes(words), `no "${words}" at ${page.url()}: ${await text(page)}`);

await tell(async () => {
  const rita = await person("rita");
  const lea = await person("lea");
  const sam = await person("sam");

  // A reason first, then step by step.
  say("hold steps");
  const steps = await held(rita.page, "CREATE TABLE staged");
  await shows(rita.page, "has not said why yet");
  await everywhere([["steps-unjustified", steps]], rita.context);
  await rita.page.goto(`${base}${steps}/approve`);
  await click(rita.page, "button.go");
  await shows(rita.page, "HP-NOT-JUSTIFIED");
  say(`justify steps ${id(steps)}`);
  await rita.page.goto(base + steps);
  await rita.page.waitForFunction(() => document.body.innerText.includes("release 7 needs it"));
  await everywhere([["steps-first", steps], ["steps-approve", `${steps}/approve`]], rita.context);
  await lea.page.goto(`${base}${steps}/approve`);
  await click(lea.page, "button.go");
  await shows(lea.page, "is not yours to decide now");
  await rita.page.goto(`${base}${steps}/approve`);
  await click(rita.page, "button.go");
  await shows(rita.page, "the next step is asked");
  await judged(rita.page, "steps-advanced");
  await everywhere([["steps-second", steps]], lea.context);
  await lea.page.goto(`${base}${steps}/approve`);
  await click(lea.page, "button.go");
  await shows(lea.page, "it settled the approval");
  say("ran steps");

  // More often than once.
  say("hold windows");
  const windows = await held(rita.page, "UPDATE bills");
  await everywhere([["windows-approve", `${windows}/approve`]], rita.context);
  await rita.page.goto(`${base}${windows}/approve`);
  const offered = await rita.page.$$eval("#window option", (all) => all.map((one) => one.value));
  check(String(offered) === ",session,10m", `the windows are ${offered}`);
  check((await rita.page.$eval("#window", (one) => one.value)) === "", "once, unless one says otherwise");
  await rita.page.select("#window", "10m");
  await click(rita.page, "button.go");
  await shows(rita.page, "it settled the approval");
  say("ran windows");
  say("again windows");

  // An emergency, and looking into it afterwards.
  say("hold glass");
  const glass = await held(rita.page, "VACUUM bills");
  await rita.page.goto(`${base}${glass}/glass`);
  await rita.page.type("#reason", "I would like to");
  await click(rita.page, "button.stop");
  await shows(rita.page, "lets you break no glass");
  await everywhere([["glass", glass], ["glass-confirm", `${glass}/glass`]], sam.context);
  await sam.page.goto(`${base}${glass}/glass`);
  await sam.page.click("button.stop");
  check(sam.page.url().endsWith("/glass"), "no glass is broken without a reason");
  await sam.page.type("#reason", "checkout is down, INC-42");
  await click(sam.page, "button.stop");
  await shows(sam.page, "checkout is down, INC-42");
  say("ran glass");
  await everywhere([["glass-broken", glass], ["glass-list", "/console"], ["glass-review", `/console/reviews/${id(glass)}`]], rita.context);
  await sam.page.goto(`${base}/console/reviews/${id(glass)}`);
  await click(sam.page, "button.go");
  await shows(sam.page, "somebody else reviews it");
  await rita.page.goto(`${base}/console`);
  await click(rita.page, 'a[href^="/console/reviews/"]');
  await rita.page.type("#note", "seen, nothing to undo");
  await click(rita.page, "button.go");
  await shows(rita.page, "recorded with your name");
  await rita.page.goto(base + glass);
  await shows(rita.page, "(looked into)");

  // A sign-in of just before: the issuer asks again, and she comes back to the same page.
  say("hold recent");
  const recent = await held(rita.page, "GRANT SELECT");
  for (let tries = 0; tries < 40; tries++) {
    await rita.page.goto(`${base}${recent}/approve`);
    if ((await text(rita.page)).includes("Sign in again first")) break;
    await new Promise((done) => setTimeout(done, 1000));
  }
  await everywhere([["recent", recent], ["recent-approve", `${recent}/approve`]], rita.context);
  await rita.page.goto(`${base}${recent}/approve`);
  await click(rita.page, 'a.go[href^="/console/login"]');
  check(!(await text(rita.page)).includes("Go on as"), "the issuer asks anew");
  await click(rita.page, 'button[value="rita"]');
  check(rita.page.url() === `${base}${recent}/approve`, `came back to ${rita.page.url()}`);
  await click(rita.page, "button.go");
  await shows(rita.page, "it settled the approval");
  say("ran recent");

  // A security key: none, one without a PIN, one that is verified.
  say("hold keys");
  const keys = await held(rita.page, "CREATE TABLE vault");
  await everywhere([["keys-none", "/console/keys"], ["keys-needed", `${keys}/approve`]], rita.context);
  const cdp = await rita.page.createCDPSession();
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options: {
    protocol: "ctap2", transport: "usb", hasResidentKey: false, hasUserVerification: true,
    isUserVerified: true, automaticPresenceSimulation: true,
  } });
  await rita.page.goto(`${base}${keys}/approve`);
  await click(rita.page, 'a[href="/console/keys"].go');
  await rita.page.type("#name", "key at the desk");
  await click(rita.page, "button.go");
  await shows(rita.page, "key at the desk");
  await everywhere([["keys", "/console/keys"], ["keys-approve", `${keys}/approve`]], rita.context);

  await rita.page.goto(`${base}${keys}/approve`);
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
  await rita.page.click("button.go");
  await rita.page.waitForSelector("[data-failed]:not([hidden])");
  await judged(rita.page, "keys-failed");
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: true });
  let sent;
  rita.page.on("request", (request) => {
    if (request.method() === "POST" && request.url().endsWith("/decision")) sent = request.postData();
  });
  await click(rita.page, "button.go");
  await shows(rita.page, "it settled the approval");
  await shows(rita.page, "signed by a security key");
  await judged(rita.page, "keys-approved");
  say("ran keys");
  check(/signature=[\w-]{80,}/.test(sent), `what was sent is signed: ${sent}`);

  // What was sent, sent again: for the same approval, and for another one of the same kind.
  const replay = (path) => rita.page.evaluate(async (url, body) => {
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const answer = await fetch(url, { method: "POST", headers, body });
    return `${answer.status} ${await answer.text()}`;
  }, `${base}${path}/decision`, sent);
  const same = await replay(keys);
  check(same.startsWith("403") && same.includes("came before"), `replayed: ${same}`);
  say("hold other");
  const other = await held(rita.page, "CREATE TABLE second_vault");
  const elsewhere = await replay(other);
  check(elsewhere.startsWith("403"), `replayed elsewhere: ${elsewhere}`);
  await rita.page.goto(`${base}${other}/deny`);
  await rita.page.type("#reason", "one is enough");
  await click(rita.page, "button.stop");
  await shows(rita.page, "one is enough");
  say("denied other");

  // Signed out, with the way out of the issuer's as far as it has one.
  await click(rita.page, 'form[action="/console/logout"] button');
  await shows(rita.page, "signed out of holdpoint");
  await judged(rita.page, "signed-out");
});

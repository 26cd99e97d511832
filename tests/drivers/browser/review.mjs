// A reviewer's day in a real browser, as told by tests/it/browser.rs.
//
//   node review.mjs NODE_MODULES CHROMIUM BASE_URL SCREENSHOTS
//
// `hold NUMBER` on standard output asks the test to start the command of that number;
// `ok WHAT` says what was seen. The last line is `done`. Anything wrong ends it with a message.

import { base, check, click, everywhere, focused, judged, press, say, shot, tell, text, watched } from "./common.mjs";

await tell(async () => {
  // Signing in, at the development issuer.
  const page = await watched(1280, 820, "light");
  await page.goto(`${base}/console`);
  await judged(page, "01-sign-in");
  await click(page, 'a[href^="/console/login"]');
  await click(page, 'button[value="rita"]');
  check(page.url() === `${base}/console`, `signed in at ${page.url()}`);
  await judged(page, "02-nothing-waits");

  // A held command appears by itself.
  say("hold 0");
  await page.waitForSelector(".card");
  check((await text(page)).includes("UPDATE bills"), "the list shows the command");
  check((await page.title()).startsWith("(1)"), `the title counts: ${await page.title()}`);
  await judged(page, "03-list");

  // By keys alone: find it, open it, approve it.
  await page.keyboard.press("j");
  check((await focused(page)).includes("card"), "j goes to the first card");
  await press(page, "Enter");
  await page.waitForSelector(".decide");
  await judged(page, "04-approval");
  const before = await page.$eval("time[data-left]", (time) => time.textContent);
  await page.waitForFunction((before) => document.querySelector("time[data-left]").textContent !== before, {}, before);
  await press(page, "a");
  await judged(page, "05-approve");
  await page.keyboard.type("ticket 12");
  await page.keyboard.press("Tab");
  check((await focused(page)).includes("Approve it"), "the button follows the note");
  await press(page, "Enter");
  check((await text(page)).includes("it settled the approval"), "the vote is confirmed");
  await judged(page, "06-approved");
  say("approved 0");

  // Denied, with a reason and not without one.
  await page.goto(`${base}/console`);
  say("hold 1");
  await page.waitForSelector(".card");
  await click(page, ".card");
  await click(page, '[data-key="d"]');
  await judged(page, "07-deny");
  await page.click("button.stop");
  check(page.url().endsWith("/deny"), "a denial without a reason is not sent");
  await page.type("#reason", "archive the rows instead");
  await click(page, "button.stop");
  check((await text(page)).includes("archive the rows instead"), "the reason is shown");
  await judged(page, "08-denied");
  say("denied 1");

  // A long one with what nobody should overlook, on a phone, by day and by night.
  say("hold 2");
  await page.goto(`${base}/console`);
  await page.waitForSelector(".card");
  const link = await page.$eval(".card", (card) => card.getAttribute("href"));
  const session = await page.evaluate(async (link) => {
    const answer = await fetch(link);
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    return made.querySelector('a[href^="/console/sessions/"]').getAttribute("href");
  }, link);
  const pages = [
    ["list", "/console"],
    ["approval", link],
    ["approve", `${link}/approve`],
    ["deny", `${link}/deny`],
    ["sessions", "/console/sessions"],
    ["session", session],
    ["rules", "/console/rules"],
    ["health", "/console/health"],
    ["missing", "/console/nothing"],
  ];
  await everywhere(pages);

  // Sessions are searched and replayed.
  await page.goto(`${base}/console/sessions?text=archive_of_nothing`);
  check(!(await text(page)).includes("ada on"), "no session has that text");
  await page.goto(`${base}/console/sessions`);
  await page.type('[name="text"]', "update BILLS");
  await click(page, ".search button");
  await click(page, ".rows a");
  const lines = await page.$$eval(".story li", (all) => all.length);
  await page.select("[data-speed]", "16");
  await page.click("[data-play]");
  check((await page.$$(".story .ahead")).length > 0, "a replay begins at the beginning");
  await page.waitForFunction(() => document.querySelectorAll(".story .ahead").length === 0);
  check(lines > 3, `the session has ${lines} lines`);
  say("ok replay");

  // Without script all the same.
  const plain = await watched(1280, 820, "light", { script: false });
  await plain.goto(`${base}/console`);
  await click(plain, ".card");
  await click(plain, '[data-key="a"]');
  await click(plain, "button.go");
  check((await plain.content()).includes("it settled the approval"), "a vote needs no script");
  await plain.screenshot({ path: shot("09-no-script"), fullPage: true });
  say("approved 2");
});

// What both scripts share: a browser, pages that are watched for complaints, and a judgement of each.

import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [modules, chromium, origin, shots] = process.argv.slice(2);
const require = createRequire(join(modules, "x.js"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });

export const base = origin;
export const shot = (name) => join(shots, `${name}.png`);
export const say = (line) => process.stdout.write(`${line}\n`);
export const check = (good, what) => {
  if (!good) throw new Error(what);
};

export const browser = await puppeteer.launch({
  executablePath: chromium,
  // The tests' machines may have no user namespaces, and only our own pages are opened.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});

export const violations = [];
// `within` is the browser, or somebody's own context of it.
export const watched = async (width, height, scheme, { script = true, within = browser } = {}) => {
  const page = await within.newPage();
  await page.setJavaScriptEnabled(script);
  await page.setViewport({ width, height, deviceScaleFactor: 1, isMobile: width < 500, hasTouch: width < 500 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  page.on("console", (message) => {
    const text = message.text();
    // The sign-in page answers 401 and the missing one 404, a form that does not count 403 or 409, and a browser logs each.
    if (message.type() === "error" && !/status of (401|403|404|409)/.test(text)) violations.push(`${page.url()}: ${text}`);
  });
  page.on("pageerror", (error) => violations.push(`${page.url()}: ${error.message}`));
  page.setDefaultTimeout(20000);
  return page;
};

// Serious and critical findings of axe fail; screenshots stay for people to look at.
export const judged = async (page, name) => {
  await page.screenshot({ path: shot(name), fullPage: true });
  const wide = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  check(wide[0] <= wide[1], `${name}: scrolls sideways, ${wide[0]} px in ${wide[1]}`);
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const result = await axe.run(document, { resultTypes: ["violations"] });
    return result.violations.map((one) => ({
      id: one.id,
      impact: one.impact,
      where: one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; "),
    }));
  });
  const grave = found.filter((one) => ["serious", "critical"].includes(one.impact));
  check(grave.length === 0, `${name}: ${JSON.stringify(grave, null, 1)}`);
  say(`ok ${name}${found.length ? ` (${found.map((one) => one.id)})` : ""}`);
};

export const text = (page) => page.evaluate(() => document.body.innerText);
export const click = (page, selector) =>
  Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.click(selector)]);
export const press = (page, key) =>
  Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.keyboard.press(key)]);
export const focused = (page) => page.evaluate(() => document.activeElement?.outerHTML ?? "");

// Opens the same pages at both widths, by day and by night.
export const everywhere = async (pages, within = browser) => {
  for (const scheme of ["light", "dark"]) {
    const phone = await watched(390, 844, scheme, { within });
    const desk = await watched(1280, 820, scheme, { within });
    for (const [name, path] of pages) {
      await phone.goto(base + path);
      await judged(phone, `phone-${scheme}-${name}`);
      await desk.goto(base + path);
      await judged(desk, `desk-${scheme}-${name}`);
    }
    await phone.close();
    await desk.close();
  }
};

// Runs `story`; anything wrong ends the process with a message and a picture of what was open.
export const tell = async (story) => {
  try {
    await story();
    check(violations.length === 0, `the browser complains:\n${violations.join("\n")}`);
    await browser.close();
    say("done");
  } catch (error) {
    console.error(error);
    const open = await browser.pages().catch(() => []);
    for (const [at, page] of open.entries()) {
      await page.screenshot({ path: join(shots, `failed-${at}.png`) }).catch(() => {});
    }
    await browser.close().catch(() => {});
    process.exit(1);
  }
};

/**
 * Uses the page as people do, in a real Chromium, and prints what happened as JSON:
 *
 *     node browse.mjs CHROMIUM URL DIRECTORY_FOR_SCREENSHOTS < drawings.json
 *
 * The drawings are a list of {"digit": 7, "by": "mouse" or "touch", "strokes": [[[x, y], ...]]},
 * their points from 0 to 1.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../examples/web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const FLAGS = [
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-gpu",
  "--disable-quic",
  "--disable-sync",
  "--no-first-run",
  "--no-sandbox",
];
const FORMS = ["float32_web", "int8_web", "pruned_int8_web"];
const DESKTOP = { viewport: { width: 1280, height: 800 } };
const PHONE = {
  viewport: { width: 390, height: 844 },
  colorScheme: "dark",
  deviceScaleFactor: 2,
  hasTouch: true,
  isMobile: true,
};

const [executablePath, url, screenshots] = process.argv.slice(2);
const drawings = JSON.parse(readFileSync(0, "utf8"));
const report = { requests: [], errors: [], drawings: [], written: [] };

/** A page that is ready; what it asks for and what goes wrong on it is reported. */
async function opened(browser, options) {
  const page = await browser.newPage({ reducedMotion: "reduce", ...options });
  page.on("request", (request) => report.requests.push(request.url()));
  page.on("pageerror", (error) => report.errors.push(error.message));
  await page.goto(url);
  await answered(page);
  return page;
}

/** Wait until the student has nothing left to say; then, what it said. */
async function answered(page) {
  await page.waitForSelector("[data-model=ready]:not([data-drawing]) #answer[aria-busy=false]");
  return page.evaluate(() => ({
    digit: document.querySelector(".digit").textContent,
    status: document.querySelector("[role=status]").textContent,
    scores: [...document.querySelectorAll("#answer data")].map((data) => Number(data.value)),
  }));
}

function pixels(page) {
  return page.evaluate(() => {
    const { data } = document.querySelector("#preview").getContext("2d").getImageData(0, 0, 28, 28);
    return [...data].filter((_, index) => index % 4 === 3);
  });
}

/** The strokes in pixels of the page. */
async function onPage(page, strokes) {
  await page.locator("#pad").scrollIntoViewIfNeeded();
  const box = await page.locator("#pad").boundingBox();
  return strokes.map((stroke) =>
    stroke.map(([x, y]) => ({ x: box.x + x * box.width, y: box.y + y * box.height })),
  );
}

async function byMouse(page, strokes) {
  for (const [first, ...others] of await onPage(page, strokes)) {
    await page.mouse.move(first.x, first.y);
    await page.mouse.down();
    for (const { x, y } of others) await page.mouse.move(x, y, { steps: 4 });
    await page.mouse.up();
  }
}

async function byTouch(page, strokes) {
  const session = await page.context().newCDPSession(page);
  const send = (type, touchPoints) =>
    session.send("Input.dispatchTouchEvent", { type, touchPoints });
  for (const [first, ...others] of await onPage(page, strokes)) {
    await send("touchStart", [first]);
    for (const point of others) await send("touchMove", [point]);
    await send("touchEnd", []);
  }
  // Touches are acknowledged before the page has seen them; it has two frames later.
  await page.waitForSelector("body:not([data-empty])");
  await page.evaluate(
    () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))),
  );
}

async function draw(page, { digit, by, strokes }) {
  await page.keyboard.press("Escape");
  await (by === "touch" ? byTouch : byMouse)(page, strokes);
  const { digit: digit_read, status } = await answered(page);
  const result = { digit, by, digit_read, status, pixels: await pixels(page), forms: {} };
  for (const form of FORMS) {
    await page.check(`input[value=${form}]`);
    result.forms[form] = (await answered(page)).scores;
  }
  report.drawings.push(result);
}

async function write(page, digit) {
  await page.keyboard.press(String(digit));
  report.written.push((await answered(page)).digit);
}

/** What the page says where there is no student to be loaded. */
async function failed(browser) {
  const page = await browser.newPage(DESKTOP);
  await page.route("**/*.tflite", (route) => route.fulfill({ status: 404 }));
  await page.goto(url);
  await page.waitForSelector("[data-model=failed]");
  return page.locator("[role=alert]").textContent();
}

async function keys(page) {
  const strokes = [[[0.5, 0.2], [0.5, 0.8]], [[0.3, 0.5], [0.7, 0.5]]];
  await page.keyboard.press("Escape");
  await byMouse(page, strokes.slice(0, 1));
  const one = await answered(page);
  await byMouse(page, strokes.slice(1));
  const two = await answered(page);
  await page.keyboard.press("Control+z");
  const undone = await answered(page);
  await page.keyboard.press("Escape");
  report.keys = { one, two, undone, cleared: await answered(page) };
}

const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  const desktop = await opened(browser, DESKTOP);
  const phone = await opened(browser, PHONE);
  for (const drawing of drawings) await draw(drawing.by === "touch" ? phone : desktop, drawing);
  await desktop.screenshot({ path: `${screenshots}/desktop.png` });
  await phone.evaluate(() => scrollTo(0, 0));
  await phone.screenshot({ path: `${screenshots}/phone.png` });
  for (let digit = 0; digit < 10; digit++) await write(desktop, digit);
  await keys(desktop);
  report.facts = await desktop.locator("dd").allTextContents();
  report.alert = await failed(browser);
  report.widest = await phone.evaluate(() => document.documentElement.scrollWidth);
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));

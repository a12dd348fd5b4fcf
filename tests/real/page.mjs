// Looks at pages in Chromium, as its one argument says (JSON), and prints what it saw. Asserts nothing.
//
// {"module": folder of npm, "chromium": path, "looks": [{"url", "scheme", "width", "do": name of a look below, ...}]}
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const asked = JSON.parse(process.argv[2]);
const require = createRequire(`${asked.module}/node_modules/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function judged(page) {
  const found = await page.evaluate(() => globalThis.axe.run());
  return found.violations.map((one) => `${one.impact} ${one.id}: ${one.nodes[0].html.slice(0, 200)}`);
}

const rows = (page) => page.locator("#table tbody tr:not(.spacer)");
const texts = (page, column) => page.locator(`#table tbody .c-${column}`).allTextContents();
const tally = (page) => page.locator("#tallied").textContent();

const LOOKS = {
  async state(page) {
    return {
      badge: await page.locator("#state").textContent(),
      title: await page.title(),
      balance: await page.locator("#balance").textContent(),
      text: await page.locator("body").innerText(),
      wider: await page.evaluate(() => document.scrollingElement.scrollWidth - document.documentElement.clientWidth),
      shift: await page.evaluate(() => new Promise((done) => {
        let sum = 0;
        new PerformanceObserver((list) => { for (const one of list.getEntries()) if (!one.hadRecentInput) sum += one.value; }).observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(sum), 50);
      })),
      names: await texts(page, "name"),
      canvases: await page.locator("canvas").count(),
    };
  },
  async accessible(page) {
    await page.evaluate(axe);
    const found = await judged(page);
    if (await page.locator("#table tbody button").count()) {
      await page.locator("#table tbody button").first().click();
      found.push(...(await judged(page)));
    }
    return found;
  },
  async used(page) {
    const seen = { all: await tally(page), drawn: await rows(page).count() };
    await page.fill("#search", "legal summary");
    seen.search = { tally: await tally(page), names: await texts(page, "name") };
    await page.fill("#search", "no such prompt");
    seen.nothing = await rows(page).first().textContent();
    await page.fill("#search", "");
    await page.selectOption("#outcome", "failed");
    seen.failed = { tally: await tally(page), whys: await texts(page, "why") };
    await page.selectOption("#reason", "loss");
    seen.loss = await tally(page);
    await page.click("#all");
    seen.again = await tally(page);
    await page.click('th[data-key="id"] button');
    await page.click('th[data-key="id"] button');
    seen.sorted = { way: await page.getAttribute('th[data-key="id"]', "aria-sort"), ids: (await texts(page, "id")).slice(0, 3) };
    await page.locator('#todo button:has-text("Show")').first().click();
    seen.shown = await tally(page);
    await page.click("#all");
    await page.locator("#grid").evaluate((grid) => { grid.scrollTop = grid.scrollHeight; });
    await page.waitForFunction(() => document.querySelector("#table tbody tr:nth-last-child(2)").getAttribute("aria-rowindex") === document.querySelector("#table").getAttribute("aria-rowcount"));
    seen.scrolled = await rows(page).count();
    return seen;
  },
  async typed(page) {
    await page.locator("#table tbody button").first().focus();
    await page.keyboard.press("Enter");
    const seen = { open: await page.locator("#one").evaluate((one) => one.open), one: await page.locator("#one").innerText() };
    seen.links = await page.locator("#one a").evaluateAll((all) => all.map((one) => one.href));
    await page.locator('#one button[aria-label="Copy source id"]').click();
    seen.copied = await page.evaluate(() => navigator.clipboard.readText());
    seen.said = await page.locator("#said").textContent();
    await page.keyboard.press("Escape");
    seen.closed = await page.locator("#one").evaluate((one) => !one.open);
    seen.focus = await page.evaluate(() => document.activeElement.closest("tr") !== null);
    return seen;
  },
  async opened(page) {
    const seen = { closed: [], tall: 0 };
    for (let i = 0; i < 14; i++) {
      await rows(page).locator("button").nth(i).click();
      if (!(await page.locator("#one").evaluate((one) => one.open))) { seen.closed.push(i); continue; }
      seen.tall = Math.max(seen.tall, (await page.locator("#one header button").boundingBox()).height);
      await page.keyboard.press("Escape");
    }
    return seen;
  },
  async counted(page) {
    await page.locator("#time details summary").first().click();
    return {
      sentence: await page.locator("#time figcaption p").first().textContent(),
      numbers: await page.locator("#time .numbers").first().locator("td.num").allTextContents(),
    };
  },
  async chosen(page) {
    const options = () => page.locator("#reason option").allTextContents();
    const seen = { all: await options() };
    await page.selectOption("#outcome", "skipped");
    seen.skipped = await options();
    return seen;
  },
  async picture(page, look) {
    await page.screenshot({ path: look.path, clip: { x: 0, y: 0, width: look.width, height: look.height } });
    return null;
  },
  async printed(page) {
    await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
    await page.emulateMedia({ media: "print" });
    await page.setViewportSize({ width: 680, height: 960 }); // of A4 between its margins
    const narrowest = await page.locator("#todo td:nth-child(2), #todo td:nth-child(4)").evaluateAll((all) => Math.min(...all.map((one) => one.clientWidth)));
    return { rows: await rows(page).count(), search: await page.locator("#search").isVisible(), readable: narrowest > 90 };
  },
};

const browser = await chromium.launch({ executablePath: asked.chromium, args: FLAGS });
const seen = [];
for (const look of asked.looks) {
  const context = await browser.newContext({
    viewport: { width: look.width || 1280, height: look.height || 900 }, colorScheme: look.scheme || "light", bypassCSP: look.do === "accessible",
    permissions: ["clipboard-read", "clipboard-write"],
  });
  const page = await context.newPage();
  const complaints = [], requests = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(look.url);
  await page.waitForSelector("body[data-drawn]");
  seen.push({ ...look, found: await LOOKS[look.do](page, look), complaints, requests });
  await context.close();
}
await browser.close();
console.log(JSON.stringify(seen));

// Opens a live page in Chromium, and does what each line of stdin says; answers each with a line of JSON. Asserts nothing.
//
// Its one argument: {"module": folder of npm, "chromium": path, "url"}. A line: `see STATE`, until the page says that;
// `use`, as somebody does, and `used`, what is left of that; `stop`, the button; `gone`, until the page says that it is no longer served; `end`.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const asked = JSON.parse(process.argv[2]);
const { chromium } = createRequire(`${asked.module}/node_modules/`)("playwright-core");
const browser = await chromium.launch({ executablePath: asked.chromium, args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage();
const complaints = [], requests = new Set();
page.on("console", (message) => complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => requests.add(request.url()));
page.on("dialog", (dialog) => dialog.accept());
page.setDefaultTimeout(60_000);
await page.goto(asked.url);

const DO = {
  async see(state) {
    await page.locator("#state", { hasText: new RegExp(`^${state}$`) }).waitFor();
    return { top: await page.locator("#head .top").innerText(), balance: await page.locator("#balance").textContent() };
  },
  async stop() {
    await page.getByRole("button", { name: "Stop the run" }).click();
    return {};
  },
  async use() {
    await page.locator("#time details summary").first().click();
    await page.locator("#outcome").evaluate((one) => { globalThis.chosen = one; });
    await page.locator('#health button[aria-label="Copy path"]').focus();
    return {};
  },
  async used() {
    return page.evaluate(() => ({
      same: document.getElementById("outcome") === globalThis.chosen, open: document.querySelectorAll("#time details[open] td").length > 0,
      focus: document.activeElement.getAttribute("aria-label"), drawn: document.body.dataset.drawn,
    }));
  },
  async gone() {
    await page.locator("#line", { hasText: "no longer served" }).waitFor();
    return {};
  },
  async end() {
    return { complaints, requests: [...requests] };
  },
};
for await (const line of createInterface({ input: process.stdin })) {
  const [what, ...rest] = line.split(" ");
  console.log(JSON.stringify(await DO[what](rest.join(" "))));
  if (what === "end") break;
}
await browser.close();

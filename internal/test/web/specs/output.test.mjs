// What one does with an output: stay at its end or not, find one's way in it, link to a
// line of it, take it along.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ended, execute, output, rest, rows, text } from "./service.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { waitForState } from "./ui.mjs";

after(leave);

/** @typedef {import("./visitor.mjs").Page} Page */

/** The line is among those that are seen. @param {Page} page @param {string} line */
const seen = async (page, line) => {
  await page.getByTestId("output").getByText(line, { exact: true }).waitFor();
  await page.waitForFunction((line) => {
    const box = document.querySelector("[data-testid=output]")?.getBoundingClientRect();
    const row = [...document.querySelectorAll("[data-testid=output-line]")].find((row) => row.textContent === line)?.getBoundingClientRect();
    return box && row && row.top >= box.top && row.bottom <= box.bottom;
  }, line);
};

/** A page with an output that has its only words on stderr in the middle. @param {import("node:test").TestContext} t @param {import("playwright-core").BrowserContextOptions} [options] */
async function printed(t, options) {
  const { id } = await execute({ command: "for i in $(seq 1000); do echo line $i; done; sleep 0.5; echo wrong >&2; sleep 0.5; for i in $(seq 1001 2000); do echo line $i; done" });
  await ended(id);
  // As where a browser writes no file by itself: its dialog is out of a test's reach.
  const { context, page } = await visit(t, { ...(options && { options }), init: () => void Reflect.deleteProperty(window, "showSaveFilePicker") });
  await open(page, id);
  await page.locator("[data-testid=output][data-complete=true]").waitFor();
  return { id, context, page, chunks: await output(id) };
}

test("the end is followed until one scrolls up", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({ command: "for i in $(seq 500); do echo line $i; done; read x; for i in $(seq 501 600); do echo line $i; done; exec sleep 600", stdinOpen: true });
  await open(page, id);
  await seen(page, "line 500");
  const follow = page.getByTestId("follow-button");
  assert.equal(await follow.getAttribute("aria-pressed"), "true");
  await page.getByTestId("output").hover();
  await page.mouse.wheel(0, -3000);
  await page.locator("[data-testid=follow-button][aria-pressed=false]").waitFor();
  const top = () => page.getByTestId("output").evaluate((e) => e.scrollTop);
  const stays = await top();
  await rest(`/v1/commands/${id}:input`, { body: { data: btoa("\n") } });
  await follow.getByText("100 new").waitFor();
  assert.equal(await top(), stays, "what is read has moved");
  await follow.click();
  await seen(page, "line 600");
});

test("the first error, and a link to a line", async (t) => {
  const { id, context, page, chunks } = await printed(t);
  await page.getByTestId("first-error").click();
  await seen(page, "wrong");
  const wrong = rows(chunks).find(({ text }) => text === "wrong")?.position;
  await page.locator(".out-row", { has: page.getByText("wrong", { exact: true }) }).getByTestId("permalink").click();
  await page.waitForURL(`**/commands/${id}?at=${wrong}`);
  const position = rows(chunks).find(({ text }) => text === "line 1000")?.position;
  await page.locator(".out-row", { hasText: /^line 1000$/ }).getByTestId("permalink").click();
  await page.waitForURL(`**/commands/${id}?at=${position}`);
  const other = await context.newPage();
  await other.goto(page.url());
  await seen(other, "line 1000");
  assert.equal(await other.locator(".out-marked").getByTestId("output-line").textContent(), "line 1000");
});

test("a download has every byte, and a copy every line", async (t) => {
  const { page, chunks } = await printed(t, { permissions: ["clipboard-read", "clipboard-write"] });
  const dir = await mkdtemp(join(tmpdir(), "telexec-"));
  t.after(() => rm(dir, { recursive: true }));
  for (const which of /** @type {const} */ (["both", "stdout", "stderr"])) {
    await page.getByTestId("download-menu").click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByTestId(`download-${which}`).click()]);
    const file = join(dir, which);
    await download.saveAs(file);
    assert.equal(await readFile(file, "utf8"), text(chunks, which === "both" ? undefined : which), which);
  }
  await page.getByTestId("copy-button").click();
  await page.getByTestId("copy-button").getByText("Copied").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), text(chunks).trimEnd());
});

test("what stands at the beginning is a key away", async (t) => {
  const { page } = await printed(t);
  await waitForState(page, "COMPLETED");
  await seen(page, "line 2000");
  await page.keyboard.press("Home");
  await seen(page, "line 1");
  await page.keyboard.press("End");
  await seen(page, "line 2000");
});

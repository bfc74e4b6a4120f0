// A cancel in one tab is on the screen of another at once.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, processes } from "./service.mjs";
import { judge } from "./measure.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { cancel, waitForState } from "./ui.mjs";
import { decode } from "./socket.mjs";

after(leave);

// Keeps every message of a WebSocket, and when the line appears that tells of the end.
function keepTimes() {
  const w = /** @type {any} */ (window);
  w.__messages = [];
  w.WebSocket = class extends WebSocket {
    /** @param {string | URL} url @param {string | string[]} [protocols] */
    constructor(url, protocols) {
      super(url, protocols);
      this.addEventListener("message", (e) => w.__messages.push({ at: performance.now(), data: e.data }));
    }
  };
  new MutationObserver(() => {
    if (w.__cancelledLine === undefined && document.querySelector("[data-testid=cancelled-line]")) w.__cancelledLine = performance.now();
  }).observe(document, { subtree: true, childList: true, attributes: true });
}

/** What the page has kept. @param {import("./visitor.mjs").Page} page */
async function kept(page) {
  const { origin, line, messages } = await page.evaluate(() => {
    const w = /** @type {any} */ (window);
    const plain = (/** @type {string | ArrayBuffer} */ data) =>
      typeof data === "string" ? data : { base64: btoa(Array.from(new Uint8Array(data), (b) => String.fromCharCode(b)).join("")) };
    return {
      origin: performance.timeOrigin,
      line: /** @type {number} */ (w.__cancelledLine),
      messages: w.__messages.map((/** @type {any} */ m) => ({ at: m.at, data: plain(m.data) })),
    };
  });
  const told = messages.find((/** @type {any} */ m) => decode(m.data).state === "COMMAND_STATE_CANCELLED");
  assert.ok(told, "the cancel was not told over the WebSocket");
  return { origin, line, told: /** @type {number} */ (told.at) };
}

test("a cancel in one tab", async (t) => {
  const { context, page: cancels } = await visit(t, { init: keepTimes });
  const watches = await context.newPage();
  /** @type {number[]} */ const own = [];
  /** @type {number[]} */ const shown = [];
  /** @type {number[]} */ const endToEnd = [];
  for (let i = 0; i < 4; i++) {
    const marker = `6${Date.now()}${i}`;
    const { id } = await execute({ command: `echo up; sleep ${marker} & sleep ${marker}; wait` });
    for (const page of [cancels, watches]) {
      await open(page, id);
      await page.getByText("up", { exact: true }).first().waitFor();
    }
    assert.notEqual(await processes(`sleep ${marker}`), 0);
    await cancel(cancels, "no longer needed");
    for (const page of [cancels, watches]) {
      const line = page.getByTestId("cancelled-line");
      await line.waitFor();
      assert.equal((await line.innerText()).trim(), "[CANCELLED] Command terminated by web");
      assert.ok(await line.evaluate((e) => e.getBoundingClientRect().bottom <= innerHeight), "the line is not on the screen");
      await waitForState(page, "CANCELLED");
    }
    const command = await ended(id);
    assert.equal(command.cancellation.by.origin, "ORIGIN_WEB");
    assert.equal(command.cancellation.reason, "no longer needed");
    assert.equal(await processes(`sleep ${marker}`), 0, "it has left something");
    const other = await kept(watches);
    shown.push(other.line - other.told);
    endToEnd.push(other.origin + other.line - Date.parse(command.endTime));
    const { line, told } = await kept(cancels);
    own.push(line - told);
  }
  judge(t, "in the tab that cancels, from the message to the line", own, { limit: 100, lax: 2000 });
  judge(t, "in another tab, from the message to the line", shown, { limit: 100, lax: 2000 });
  judge(t, "in another tab, from the end to the line", endToEnd, { limit: 500, lax: 4000 });
});

test("a cancel through another door", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({ command: "echo up; exec sleep 600" });
  await open(page, id);
  await waitForState(page, "RUNNING");
  const { cli } = await import("./service.mjs");
  await cli("admin", "cancel", id);
  assert.equal((await page.getByTestId("cancelled-line").innerText()).trim(), "[CANCELLED] Command terminated by cli");
});

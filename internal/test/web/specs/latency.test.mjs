// From the moment when the host prints a line to the moment when the page has it.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, output, text } from "./service.mjs";
import { judge } from "./measure.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { runCommand } from "./ui.mjs";

after(leave);

// Of every time stamp in nanoseconds that appears anywhere in the page: when it did.
function stampSeen() {
  /** @type {Record<string, number>} */
  const seen = ((/** @type {any} */ (window)).__seen = {});
  const read = (/** @type {Node} */ node) => {
    for (const stamp of (node.textContent ?? "").match(/\b1\d{18}\b/g) ?? []) seen[stamp] ??= performance.timeOrigin + performance.now();
  };
  new MutationObserver((records) => {
    for (const record of records) {
      if (record.type === "characterData") read(record.target);
      for (const node of record.addedNodes) read(node);
    }
  }).observe(document, { subtree: true, childList: true, characterData: true });
}

/** @param {import("./visitor.mjs").Page} page @param {string} stamp how long after its printing a stamp was in the page, in ms */
async function latency(page, stamp) {
  const seen = await page.waitForFunction((s) => (/** @type {any} */ (window)).__seen[s], stamp);
  return Number(await seen.jsonValue()) - Number(stamp) / 1e6;
}

const limits = { limit: 300, lax: 2000 };

test("the first line of a command that is run from the page", async (t) => {
  const { page } = await visit(t, { init: stampSeen });
  const figures = [];
  for (let i = 0; i < 5; i++) {
    const id = await runCommand(page, "date +%s%N; exec sleep 0.3");
    const stamp = text(await output(id)).trim();
    figures.push(await latency(page, stamp));
  }
  judge(t, "first line, from its printing to the page", figures, limits);
});

test("a line of a command that is watched", async (t) => {
  const { page } = await visit(t, { init: stampSeen });
  const { id } = await execute({ command: "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do date +%s%N; sleep 0.1; done" });
  await open(page, id);
  await ended(id);
  const stamps = text(await output(id)).trim().split("\n");
  assert.equal(stamps.length, 20);
  // Those at the beginning were printed before the page was there.
  const figures = [];
  for (const stamp of stamps.slice(-10)) figures.push(await latency(page, stamp));
  judge(t, "line, from its printing to the page", figures, limits);
});

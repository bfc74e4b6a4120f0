// Much output: the page answers while it comes, needs no more memory for it, and finds
// its way in it.
import { after, test } from "node:test";
import { bigBytes, ended, execute, strict } from "./service.mjs";
import { judge } from "./measure.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { waitForState } from "./ui.mjs";

after(leave);

const lineBytes = 100;

// The longest time between two frames since the last reset.
function watchFrames() {
  const w = /** @type {any} */ (window);
  let last = 0;
  w.__worst = 0;
  const frame = (/** @type {number} */ now) => {
    if (last) w.__worst = Math.max(w.__worst, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

/** @param {import("./visitor.mjs").Page} page the longest frame since the last call, in ms */
const worstFrame = (page) =>
  page.evaluate(() => {
    const w = /** @type {any} */ (window);
    const worst = w.__worst;
    w.__worst = 0;
    return /** @type {number} */ (worst);
  });

/** What the page holds in memory, in MB: objects, and bytes outside of them. @param {import("playwright-core").CDPSession} session */
async function memory(session) {
  await session.send("HeapProfiler.collectGarbage");
  const usage = /** @type {Record<string, number>} */ (/** @type {unknown} */ (await session.send("Runtime.getHeapUsage")));
  return ((usage.usedSize ?? 0) + (usage.embedderHeapUsedSize ?? 0) + (usage.backingStorageSize ?? 0)) / 1e6;
}

test(`an output of ${bigBytes / 1e6} MB`, { timeout: strict ? 1_200_000 : 240_000 }, async (t) => {
  const { context, page } = await visit(t, { init: watchFrames });
  const session = await context.newCDPSession(page);
  const lines = Math.floor(bigBytes / lineBytes);
  const needle = "needle-in-the-hay";
  const { id } = await execute({
    command: `awk 'BEGIN { x = sprintf("%89s", ""); gsub(/ /, "x", x); for (i = 0; i < ${lines}; i++) printf "%09d %s\\n", i, i == ${lines - 1000} ? "${needle}" substr(x, ${needle.length + 1}) : x }'`,
  });
  await open(page, id);
  await waitForState(page, "RUNNING").catch(() => undefined); // it may have ended already
  await worstFrame(page);
  const heaps = [];
  const done = ended(id);
  let over = false;
  void done.then(() => (over = true));
  while (!over) {
    heaps.push(await memory(session));
    await Promise.race([done, page.waitForTimeout(1000)]);
  }
  await waitForState(page, "COMPLETED");
  await page.getByTestId("output").getByText(String(lines - 1).padStart(9, "0")).first().waitFor({ timeout: strict ? 600_000 : 120_000 });
  const frames = [await worstFrame(page)];
  t.diagnostic(`${bigBytes / 1e6} MB were shown ${((Date.now() - Date.parse((await done).startTime)) / 1000).toFixed(1)} s after the start`);

  // A jump to the middle, and a permalink to a line there.
  const middle = Math.floor(lines / 2);
  const line = (/** @type {number} */ n) => page.getByTestId("output").getByText(String(n).padStart(9, "0")).first();
  await page.getByTestId("overview").fill(String(Math.floor((middle * lineBytes) / 1024) * 1024));
  await line(Math.ceil((Math.floor((middle * lineBytes) / 1024) * 1024) / lineBytes)).waitFor();
  heaps.push(await memory(session));
  frames.push(await worstFrame(page));
  await page.goto(`/commands/${id}?at=${middle * lineBytes}`);
  await line(middle).waitFor();
  heaps.push(await memory(session));
  frames.push(await worstFrame(page));

  // A search for what stands near the end.
  await open(page, id);
  await page.getByTestId("output-line").first().waitFor();
  await page.getByTestId("search-input").fill(needle);
  await page.getByTestId("search-input").press("Enter");
  await page.getByTestId("output").getByText(needle).first().waitFor({ timeout: strict ? 600_000 : 120_000 });
  await page.getByTestId("search-count").filter({ hasText: /^1 of 1$/ }).waitFor({ timeout: strict ? 600_000 : 120_000 }); // it has come to the end
  heaps.push(await memory(session));
  frames.push(await worstFrame(page));

  judge(t, "longest frame (streaming, permalink, search)", frames, { limit: 500, lax: 3000 });
  judge(t, "memory of the page", heaps, { limit: 150, lax: 150, unit: "MB" });
});

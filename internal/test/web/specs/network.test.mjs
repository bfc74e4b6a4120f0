// Whatever becomes of the network and the service, a page says so, and catches up by
// itself: every byte is there, once.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { allTicks, ended, execute, get, network, output, rest, rows, service, ticking } from "./service.mjs";
import { leave, open, patience, visit } from "./visitor.mjs";
import { readOutput, sameRows, waitForConnection, waitForSilence, waitForState } from "./ui.mjs";

after(leave);

/** @typedef {import("./visitor.mjs").Page} Page */
/** @typedef {import("./visitor.mjs").Context} Context */

// Keeps what the banner has shown, however shortly.
function keepStates() {
  /** @type {string[]} */
  const states = ((/** @type {any} */ (window)).__states = []);
  new MutationObserver(() => {
    const state = /** @type {HTMLElement | null} */ (document.querySelector("[data-testid=connection-banner]"))?.dataset.state;
    if (state && state !== states.at(-1)) states.push(state);
  }).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
}

/** How many bytes a page has. @param {Page} page */
const total = async (page) => Number(await page.getByTestId("output").getAttribute("data-total"));

/** Waits until a page has more bytes than that. @param {Page} page @param {number} size */
const waitForMore = (page, size) =>
  page.waitForFunction((size) => Number(document.querySelector("[data-testid=output]")?.getAttribute("data-total")) > size, size);

/**
 * Tells the story of a loss: lose has the page lose the service, mend takes that back.
 * A loss that mends itself may be over before it is worth a word. Behind a loss that
 * forgets, lines of the two streams that came shortly before it may stand in another
 * order than the service has them now, until the page is loaded again.
 * @param {import("node:test").TestContext} t
 * @param {{ lose: (page: Page, context: Context) => Promise<unknown>, mend?: (page: Page, context: Context) => Promise<unknown>, forgets?: boolean }} story
 */
async function survive(t, { lose, mend, forgets = false }) {
  // The browser's own words about connections that fail.
  const { page, context } = await visit(t, { init: keepStates, excused: /ERR_|WebSocket|status of 50\d/ });
  const { id } = await execute({ command: ticking(0.03) });
  await open(page, id);
  await page.getByTestId("output").getByText(/^tick \d+$/).nth(5).waitFor();
  await waitForConnection(page, "live");
  const stored = await total(page);
  if (forgets) await waitForMore(page, stored + 400); // a second or two
  await lose(page, context);
  const seen = await total(page);
  await page.waitForFunction(() => (/** @type {any} */ (window)).__states.includes("reconnecting"), undefined, { timeout: 2 * patience });
  if (mend) {
    await page.getByTestId("connection-banner").getByRole("status").filter({ hasText: /lost/ }).waitFor();
    await mend(page, context);
  }
  await waitForConnection(page, "live");
  await waitForSilence(page);
  // It is live again: what is printed from now on comes, too.
  const { stdoutBytes = "0", stderrBytes = "0" } = await get(id);
  const again = Math.max(seen, Number(stdoutBytes) + Number(stderrBytes));
  await waitForMore(page, again);
  await rest(`/v1/commands/${id}:signal`, { body: { signal: "USR1" } });
  await ended(id);
  await waitForState(page, "COMPLETED");
  const chunks = await output(id);
  allTicks(chunks);
  const expected = rows(chunks);
  if (forgets) {
    const shown = await readOutput(page);
    for (const name of ["stdout", "stderr"]) {
      const [is, was] = [shown, expected].map((all) => all.filter(({ stream }) => stream === name).map(({ text }) => text));
      assert.deepEqual(is, was, name);
    }
    /** @param {(position: number) => boolean} where @param {string} what */
    const same = (where, what) => {
      const [is, was] = [shown, expected].map((all) => all.filter(({ position }) => where(position)));
      sameRows(/** @type {typeof shown} */ (is), /** @type {typeof shown} */ (was), what);
    };
    same((position) => position < stored, "what was stored before");
    same((position) => position >= again, "what came afterwards");
    await page.reload();
    await waitForState(page, "COMPLETED");
  }
  sameRows(await readOutput(page), expected);
}

test("the browser is offline", (t) =>
  survive(t, {
    lose: (_, context) => context.setOffline(true),
    mend: (_, context) => context.setOffline(false),
  }));

test("the wire is cut", (t) => survive(t, { lose: () => network("cut"), mend: () => network("open") }));

test("the WebSocket goes silent", { timeout: 120_000 }, (t) => survive(t, { lose: () => network("silent") }));

test("the service is restarted", (t) => survive(t, { lose: () => service("stop"), mend: () => service("start") }));

test("the service is killed", (t) => survive(t, { lose: () => service("kill"), mend: () => service("start"), forgets: true }));

test("a slow network", async (t) => {
  const { page } = await visit(t);
  await network("open", 300);
  t.after(() => network("open"));
  const { id } = await execute({ command: "for i in $(seq 200); do echo $i; done" });
  await open(page, id);
  await waitForState(page, "COMPLETED");
  const expected = rows(await output(id));
  sameRows(await readOutput(page), expected);
});

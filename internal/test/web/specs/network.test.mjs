// Whatever becomes of the network and the service, a page says so, and catches up by
// itself: every byte is there, once.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, get, network, output, rest, rows, service } from "./service.mjs";
import { leave, open, patience, visit } from "./visitor.mjs";
import { readOutput, sameRows, waitForConnection, waitForSilence, waitForState } from "./ui.mjs";

after(leave);

/** @typedef {import("./visitor.mjs").Page} Page */
/** @typedef {import("./visitor.mjs").Context} Context */

// It prints on both streams until it is told to stop.
const ticking = `trap 'echo done; exit 0' USR1; i=0; while :; do i=$((i+1)); echo "tick $i"; [ $((i%7)) = 0 ] && echo "tock $i" >&2; sleep 0.03; done`;

// Keeps what the banner has shown, however shortly.
function keepStates() {
  /** @type {string[]} */
  const states = ((/** @type {any} */ (window)).__states = []);
  new MutationObserver(() => {
    const state = /** @type {HTMLElement | null} */ (document.querySelector("[data-testid=connection-banner]"))?.dataset.state;
    if (state && state !== states.at(-1)) states.push(state);
  }).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
}

/**
 * Tells the story of a loss: lose has the page lose the service, mend takes that back.
 * A loss that mends itself may be over before it is worth a word. Behind a loss that
 * forgets, lines of the two streams that came close together may have changed places.
 * @param {import("node:test").TestContext} t
 * @param {{ lose: (page: Page, context: Context) => Promise<unknown>, mend?: (page: Page, context: Context) => Promise<unknown>, forgets?: boolean }} story
 */
async function survive(t, { lose, mend, forgets = false }) {
  // The browser's own words about connections that fail.
  const { page, context } = await visit(t, { init: keepStates, excused: /ERR_|WebSocket|status of 50\d/ });
  const { id } = await execute({ command: ticking });
  await open(page, id);
  await page.getByTestId("output").getByText(/^tick \d+$/).nth(5).waitFor();
  await waitForConnection(page, "live");
  await lose(page, context);
  await page.waitForFunction(() => (/** @type {any} */ (window)).__states.includes("reconnecting"), undefined, { timeout: 2 * patience });
  if (mend) {
    await page.getByTestId("connection-banner").getByRole("status").filter({ hasText: /lost/ }).waitFor();
    await mend(page, context);
  }
  await waitForConnection(page, "live");
  await waitForSilence(page);
  // It is live again: what is printed from now on comes, too.
  const { stdoutBytes = "0", stderrBytes = "0" } = await get(id);
  await page.waitForFunction((size) => Number(document.querySelector("[data-testid=output]")?.getAttribute("data-total")) > size, Number(stdoutBytes) + Number(stderrBytes));
  await rest(`/v1/commands/${id}:signal`, { body: { signal: "USR1" } });
  await ended(id);
  await waitForState(page, "COMPLETED");
  const expected = rows(await output(id));
  assert.ok(expected.some(({ text }) => text === "done"));
  if (forgets) {
    const shown = await readOutput(page);
    for (const name of ["stdout", "stderr"]) {
      const [was, is] = [expected, shown].map((all) => all.filter(({ stream }) => stream === name).map(({ text }) => text).join(""));
      assert.equal(is, was);
    }
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

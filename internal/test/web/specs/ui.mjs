// What visitors do on the pages, and how they read them.
import assert from "node:assert/strict";
import { facts } from "./service.mjs";

/** @typedef {import("./visitor.mjs").Page} Page */

/** Runs a command from the form, and gives its id. @param {Page} page @param {string} line */
export async function runCommand(page, line, host = facts.host) {
  await page.goto("/?run");
  await page.getByTestId("host-select").selectOption(host);
  await page.getByTestId("command-input").fill(line);
  await page.getByTestId("run-button").click();
  await page.waitForURL(/\/commands\/[0-7][0-9A-Z]{25}/);
  return String(new URL(page.url()).pathname.split("/")[2]);
}

/** Cancels the command of the page. @param {Page} page */
export async function cancel(page, reason = "") {
  await page.getByTestId("cancel-button").click();
  if (reason) await page.getByTestId("cancel-reason").fill(reason);
  await page.getByTestId("cancel-confirm").click();
}

/** @param {Page} page @param {string} state */
export const waitForState = (page, state) => page.locator(`[data-testid=state][data-state=${state}]`).first().waitFor();

/** Waits until the banner says nothing, for all is well. @param {Page} page */
export const waitForSilence = (page) => page.waitForFunction(() => document.querySelector("[data-testid=connection-banner] [role=status]")?.textContent?.trim() === "");

/** Waits until the banner shows how the connection is. @param {Page} page @param {"live" | "reconnecting" | "polling"} state */
export const waitForConnection = (page, state) => page.locator(`[data-testid=connection-banner][data-state=${state}]`).waitFor({ state: "attached" });

/**
 * All rows of the output of the page, from the beginning to the end, once all has come:
 * only those that are seen are in the document.
 * @param {Page} page
 * @returns {Promise<import("./service.mjs").Row[]>}
 */
export async function readOutput(page) {
  await page.bringToFront(); // a tab behind others is drawn once a second
  await page.locator("[data-testid=output][data-complete=true]").waitFor();
  return page.evaluate(async () => {
    const view = /** @type {HTMLElement} */ (document.querySelector("[data-testid=output]"));
    const drawn = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    const found = new Map();
    view.scrollTop = 0;
    for (let steps = 0; ; steps++) {
      await drawn();
      let above = -1;
      for (const line of /** @type {NodeListOf<HTMLElement>} */ (view.querySelectorAll("[data-testid=output-line]"))) {
        const position = Number(line.dataset.position);
        if (!(position > above)) throw new Error(`the row of byte ${line.dataset.position} stands below that of ${above}`);
        above = position;
        found.set(position, { position, stream: /** @type {"stdout" | "stderr"} */ (line.dataset.stream), text: line.textContent ?? "" });
      }
      if (view.scrollTop + view.clientHeight >= view.scrollHeight - 1) break;
      if (steps > 1000) throw new Error(`the output does not scroll to its end, but to ${view.scrollTop} of ${view.scrollHeight}`);
      view.scrollTop += Math.floor(view.clientHeight / 2);
    }
    return [...found.values()].sort((a, b) => a.position - b.position);
  });
}

/**
 * Sees to it that a page shows these rows, all of them, in this order. It tells where it
 * begins to differ; a whole comparison of thousands of rows takes minutes.
 * @param {import("./service.mjs").Row[]} shown @param {import("./service.mjs").Row[]} expected
 */
export function sameRows(shown, expected, what = "the page") {
  const at = expected.findIndex((row, i) => row.position !== shown[i]?.position || row.stream !== shown[i]?.stream || row.text !== shown[i]?.text);
  assert.deepEqual(at < 0 ? [] : shown.slice(at, at + 3), at < 0 ? [] : expected.slice(at, at + 3), `${what} differs from row ${at} on`);
  assert.equal(shown.length, expected.length, what);
}

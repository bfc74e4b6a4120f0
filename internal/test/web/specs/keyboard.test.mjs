// Without a mouse.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, facts } from "./service.mjs";
import { leave, open, settled, visit } from "./visitor.mjs";
import { waitForState } from "./ui.mjs";

after(leave);

/** @typedef {import("./visitor.mjs").Page} Page @typedef {import("playwright-core").Locator} Locator */

/** Presses Tab until the focus is there, and sees to it that each stop can be seen. @param {Page} page @param {Locator} wanted */
async function tabTo(page, wanted) {
  for (let i = 0; i < 80; i++) {
    if (await wanted.first().evaluate((e) => e === document.activeElement || e.contains(document.activeElement)).catch(() => false)) return;
    await page.keyboard.press("Tab");
    const unseen = await page.evaluate(() => {
      const e = document.activeElement;
      if (!e || e === document.body) return "";
      const style = getComputedStyle(e);
      const shown = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
      return shown || !e.matches(":focus-visible") ? "" : e.outerHTML.slice(0, 200);
    });
    assert.equal(unseen, "", "the focus cannot be seen");
  }
  assert.fail(`Tab does not come to ${wanted}`);
}

test("run, and cancel", async (t) => {
  const { page } = await visit(t);
  await page.goto("/");
  await settled(page);
  await page.keyboard.press("r");
  await page.getByTestId("run-form").waitFor();
  const host = page.getByTestId("host-select");
  await tabTo(page, host);
  await host.selectOption(facts.host); // what a platform's own list does with keys is its own affair
  await tabTo(page, page.getByTestId("command-input"));
  await page.keyboard.type("echo by keys; exec sleep 600");
  await tabTo(page, page.getByTestId("run-button"));
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/commands\//);
  await page.getByTestId("output").getByText("by keys").waitFor();
  await page.keyboard.press("x");
  await tabTo(page, page.getByTestId("cancel-confirm"));
  await page.keyboard.press("Enter");
  await page.getByTestId("cancelled-line").waitFor();
  await waitForState(page, "CANCELLED");
});

test("open from the list, and go back", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({ command: "echo in the list; exec sleep 600" });
  await page.goto("/");
  await page.locator(`[data-testid=command-row][data-id="${id}"]`).waitFor();
  await page.keyboard.press("j");
  await page.keyboard.press("k");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("data-id")), id);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/commands/${id}`);
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await page.waitForURL((url) => url.pathname === "/");
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
});

test("approve", async (t) => {
  const { page } = await visit(t, { as: "approver" });
  const { id } = await execute({ command: "factor 2021" }, "asker");
  await page.goto("/");
  await settled(page);
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  const row = page.getByTestId("approvals-row").filter({ hasText: "factor 2021" });
  await row.waitFor();
  await tabTo(page, row.getByTestId("approve-button"));
  await page.keyboard.press("Enter");
  await row.waitFor({ state: "detached" });
  assert.equal((await ended(id)).state, "COMMAND_STATE_COMPLETED");
});

test("over the frame to the content", async (t) => {
  const { page } = await visit(t);
  await page.goto("/hosts");
  await settled(page);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
});

test("a terminal can be left, and a menu closed, by keyboard", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({ command: "exec cat", pty: {}, stdinOpen: true });
  await open(page, id);
  const inside = () => page.evaluate(() => document.activeElement?.closest("[data-testid=terminal]") !== null);
  await page.getByText("What you type goes to the command").waitFor();
  await page.locator("[data-testid=terminal] textarea").focus();
  await page.keyboard.press("Tab");
  assert.equal(await inside(), true, "the tab goes to the command");
  await page.keyboard.press("Shift+F6");
  assert.equal(await inside(), false);
  await page.getByTestId("signal-menu").press("Enter");
  await page.getByTestId("signal-INT").waitFor();
  await page.getByTestId("signal-INT").focus();
  await page.keyboard.press("Escape");
  await page.getByTestId("signal-INT").waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement).dataset.testid), "signal-menu");
});

test("the host that is picked as soon as it can be is the one that is asked", async (t) => {
  const { page } = await visit(t);
  await page.addInitScript((host) => {
    // Before the page has come to anything else.
    const watching = new MutationObserver(() => {
      const select = /** @type {HTMLSelectElement | null} */ (document.querySelector("[data-testid=host-select]"));
      if (!select || ![...select.options].some((o) => o.value === host)) return;
      watching.disconnect();
      select.value = host;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      (/** @type {any} */ (window)).__picked = true;
    });
    watching.observe(document, { subtree: true, childList: true });
  }, facts.host);
  await page.goto("/?run");
  await page.waitForFunction(() => (/** @type {any} */ (window)).__picked);
  await page.getByTestId("command-input").fill("true");
  await page.getByTestId("policy-hint").getByText("Allowed").waitFor(); // all that the choice leads to is done
  assert.equal(await page.getByTestId("host-select").inputValue(), facts.host);
});

test("a part of the page that is not there any more does not take the rest with it", async (t) => {
  const { page } = await visit(t, { excused: /404|dynamically imported/ });
  await page.goto("/");
  await page.route("**/assets/audit-*.js", (route) => route.fulfill({ status: 404 }));
  await page.getByRole("link", { name: "Audit" }).click();
  await page.getByTestId("page-failed").waitFor();
  await page.getByRole("link", { name: "Hosts" }).click();
  await page.getByTestId("hosts-row").first().waitFor();
});

test("durations go by the clock of the service", async (t) => {
  for (const ahead of [3_600_000, -3_600_000]) {
    const { page } = await visit(t);
    await page.addInitScript((ms) => {
      const now = Date.now;
      Date.now = () => now() + ms;
    }, ahead);
    const { id } = await execute({ command: "exec sleep 60" });
    await open(page, id);
    await page.waitForFunction(() => /^[1-9]\d?(\.\d)? s$/.test(document.querySelector("[data-testid=duration]")?.textContent ?? ""));
  }
});

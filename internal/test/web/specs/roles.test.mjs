// Who may what, and what waits for whom.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, facts, output, rest, text } from "./service.mjs";
import { leave, open, settled, signIn, visit } from "./visitor.mjs";
import { runCommand, waitForState } from "./ui.mjs";

after(leave);

test("a viewer looks, and is told what that leaves out", async (t) => {
  const { page } = await visit(t, { as: "viewer", excused: /status of 403/ });
  const { id } = await execute({ command: "echo up; exec sleep 600" });
  await page.goto("/?run");
  await settled(page);
  await page.getByText(/operator/).first().waitFor();
  assert.equal(await page.getByTestId("run-button").and(page.locator(":enabled")).count(), 0);
  await page.goto("/audit");
  await page.getByTestId("audit-barred").getByText(/admin/).first().waitFor();
  assert.equal(await page.getByTestId("audit-row").count(), 0);
  assert.equal(await page.getByRole("link", { name: "Audit" }).count(), 0);
  // Another's command: the service says who may see it.
  await open(page, id);
  await settled(page);
  assert.equal(await page.getByTestId("cancel-button").and(page.locator(":enabled")).count(), 0);
});

test("an approver approves, and both pages follow", async (t) => {
  const [{ page: asks }, { page: decides }] = await Promise.all([visit(t, { as: "asker" }), visit(t, { as: "approver" })]);
  await decides.goto("/approvals");
  await settled(decides);
  const id = await runCommand(asks, "factor 1007");
  await waitForState(asks, "AWAITING_APPROVAL");
  const row = decides.getByTestId("approvals-row").filter({ hasText: "factor 1007" });
  await row.waitFor();
  for (const shown of ["olga", facts.host, "factors-need-a-yes"]) await row.getByText(shown).first().waitFor();
  await row.getByTestId("approve-button").click();
  await waitForState(asks, "COMPLETED");
  await asks.getByTestId("output").getByText("1007: 19 53").waitFor();
  assert.equal(text(await output(id)), "1007: 19 53\n");
  await row.waitFor({ state: "detached" });
});

test("who asks does not approve", async (t) => {
  const { page } = await visit(t, { as: "asker" });
  await execute({ command: "factor 1009" }, "asker");
  await page.goto("/approvals");
  const row = page.getByTestId("approvals-row").filter({ hasText: "factor 1009" });
  await row.waitFor();
  assert.equal(await row.getByTestId("approve-button").and(page.locator(":enabled")).count(), 0);
});

test("two must approve, in two tabs", async (t) => {
  const [{ page: anna }, { page: bert }] = await Promise.all([visit(t, { as: "approver" }), visit(t, { as: "second" })]);
  const { id } = await execute({ command: "printf x | cksum -" }, "asker");
  await Promise.all([anna.goto("/approvals"), bert.goto("/approvals")]);
  const row = (/** @type {import("./visitor.mjs").Page} */ page) => page.getByTestId("approvals-row").filter({ hasText: "cksum -" });
  await row(anna).getByTestId("approve-button").click();
  await row(bert).getByText(/1 of 2/).first().waitFor();
  await row(bert).getByTestId("approve-button").click();
  assert.equal((await ended(id)).state, "COMMAND_STATE_COMPLETED");
});

test("a rejection tells why", async (t) => {
  const { page: asks } = await visit(t, { as: "asker" });
  const { id } = await execute({ command: "factor 1013" }, "asker");
  await open(asks, id);
  await waitForState(asks, "AWAITING_APPROVAL");
  await rest("/v1/approvals:decide", { as: "approver", body: { decisions: [{ commandId: id, verdict: "VERDICT_REJECT", reason: "not on a Friday" }] } });
  await waitForState(asks, "REJECTED");
  await asks.getByText("not on a Friday").first().waitFor();
});

test("an approver rejects with a reason, and lets less run than was asked for", async (t) => {
  const { page } = await visit(t, { as: "approver" });
  const [rejected, modified] = await Promise.all([execute({ command: "factor 1019" }, "asker"), execute({ command: "factor 1021; factor 1023" }, "asker")]);
  await page.goto("/approvals");
  const row = (/** @type {string} */ line) => page.getByTestId("approvals-row").filter({ hasText: line });
  await row("factor 1019").getByTestId("reject-button").click();
  await row("factor 1019").getByTestId("reason-input").fill("not today");
  await row("factor 1019").getByTestId("decide-confirm").click();
  const refused = await ended(rejected.id);
  assert.equal(refused.state, "COMMAND_STATE_REJECTED");
  assert.match(JSON.stringify(refused), /not today/);
  await row("factor 1021").getByTestId("modify-button").click();
  await row("factor 1021").getByTestId("modify-input").fill("factor 1023");
  await row("factor 1021").getByTestId("decide-confirm").click();
  await ended(modified.id);
  assert.equal(text(await output(modified.id)), "1023: 3 11 31\n");
});

test("an admin has the audit verified", async (t) => {
  const { page } = await visit(t);
  await page.goto("/audit");
  await page.getByTestId("audit-row").first().waitFor();
  await page.getByTestId("verify-button").click();
  await page.getByTestId("verify-result").getByText(/Intact: [1-9]/).waitFor();
});

test("who has signed out is asked for a token", async (t) => {
  const { page } = await visit(t, { as: null });
  await signIn(page, "viewer");
  await page.getByTestId("account").click();
  await page.getByTestId("sign-out").click();
  await page.waitForURL(/\/login/);
  await page.goto("/");
  await page.waitForURL(/\/login/);
});

test("a rule refuses before anything is run", async (t) => {
  const { page } = await visit(t, { as: "asker" });
  await page.goto("/?run");
  await page.getByTestId("host-select").selectOption(facts.host);
  await page.getByTestId("command-input").fill("reboot");
  await page.getByText("no-reboots").first().waitFor();
  await page.getByTestId("command-input").fill("factor 12");
  await page.getByText("factors-need-a-yes").first().waitFor();
});

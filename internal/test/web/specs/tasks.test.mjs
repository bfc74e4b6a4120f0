// Tasks: seen as they go, decided, taken back; and whose turn is when.
import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { join } from "node:path";
import { agent, facts, getTask, network, output, rest, service, shots, submit, taskUntil, text } from "./service.mjs";
import { leave, settled, visit } from "./visitor.mjs";
import { waitForConnection } from "./ui.mjs";

after(leave);

/** @typedef {import("./visitor.mjs").Page} Page @typedef {import("./service.mjs").Json} Json */

/** Waits until the page shows the task in a state. @param {Page} page @param {string} state */
const waitForTask = (page, state) => page.locator(`.task-page [data-testid=task-state][data-state=${state}]`).waitFor();

/** The step of a name, in a state. @param {Page} page @param {string} name @param {string} [state] */
const step = (page, name, state) => page.locator(`[data-testid=step][data-name="${name}"]${state ? `[data-state=${state}]` : ""}`);

/** @param {Page} page @param {string} name */
const picture = (page, name) => page.screenshot({ path: join(shots, `tasks-${name}.png`), animations: "disabled" });

/** The file that a step waits for. */
const gate = (/** @type {string} */ name) => {
  const file = `/tmp/telexec-web-${process.pid}-${name}`;
  gates.add(file);
  return file;
};
/** @type {Set<string>} */
const gates = new Set();
after(() => gates.forEach((file) => rmSync(file, { force: true })));
const holdOn = (/** @type {string} */ name) => `until [ -e ${gate(name)} ]; do sleep 0.05; done`;
const letGo = (/** @type {string} */ name) => rest("/v1/commands", { body: { host: facts.host, command: `: > ${gate(name)}`, wait: "30s" } });

test("three steps with a gate in the middle, modified, done, and taken back", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const { page: decides } = await visit(t, { as: "approver" });
  const { id } = await submit(
    {
      task: "Roll out 2.4 to the shop", conversationId: "c-17", labels: { team: "shop" }, context: { ticket: "OPS-17" },
      steps: [
        { name: "fetch", command: `echo fetching; ${holdOn("fetch")}; echo fetched`, undo: "echo fetch is taken back" },
        { name: "switch", command: "echo switched; echo restarted", needsApproval: true, undo: "echo switch is taken back" },
        { name: "check", command: "echo all is well" },
      ],
    },
    "operator",
  );
  await page.goto(`/tasks/${id}`);
  await step(page, "fetch", "RUNNING").waitFor();
  await page.getByTestId("output").getByText("fetching", { exact: true }).waitFor();
  await step(page, "fetch", "RUNNING").getByTestId("step-took").waitFor();
  await picture(page, "running");
  await letGo("fetch");
  await step(page, "fetch", "COMPLETED").waitFor();
  await step(page, "switch", "AWAITING_APPROVAL").waitFor();
  await waitForTask(page, "AWAITING_APPROVAL");
  // Who has submitted it sees the gate, and is told why it is not theirs to open.
  await page.getByTestId("gates").getByTestId("approval-command").getByText("echo switched; echo restarted").waitFor();
  assert.equal(await page.getByTestId("approve-button").count(), 0);
  await picture(page, "waits");

  await decides.goto("/approvals");
  const row = decides.getByTestId("approvals-row").filter({ hasText: "echo switched" });
  await row.getByTestId("plan").getByText("Roll out 2.4 to the shop").waitFor();
  assert.deepEqual(await row.getByTestId("plan-step").evaluateAll((all) => all.map((e) => [e.querySelector("strong")?.textContent, e.getAttribute("aria-current")])), [["fetch", null], ["switch", "step"], ["check", null]]);
  await row.getByTestId("approval-undo").getByText("echo switch is taken back").waitFor();
  await row.getByTestId("modify-button").click();
  await row.getByTestId("modify-input").fill("echo switched");
  assert.deepEqual(await row.getByTestId("diff").locator("del").allTextContents(), ["; echo restarted"]);
  await picture(decides, "modify");
  await row.getByTestId("reason-input").fill("it restarts by itself");
  await row.getByTestId("decide-confirm").click();
  await row.waitFor({ state: "detached" });

  await waitForTask(page, "COMPLETED");
  await step(page, "switch").getByTestId("step-line").getByText("echo switched", { exact: true }).waitFor();
  for (const name of ["fetch", "switch", "check"]) await step(page, name, "COMPLETED").getByTestId("run-exit").filter({ hasText: "exit 0" }).waitFor();
  await page.getByTestId("gates").waitFor({ state: "detached" });
  await step(page, "switch").getByTestId("show-output").click();
  await page.getByTestId("output").getByText("switched", { exact: true }).waitFor();
  const { task: done } = await taskUntil(id);
  assert.equal(text(await output(done.steps[1].runs[0].commandId)), "switched\n");

  // One step, and then the rest of it.
  await step(page, "switch").getByTestId("undo-step").click();
  const preview = page.getByTestId("undo-preview");
  await preview.getByText("echo switch is taken back").waitFor();
  assert.equal(await preview.getByTestId("undo-item").count(), 1);
  await page.keyboard.press("Escape");
  await page.getByTestId("undo-dialog").locator(".dialog").waitFor({ state: "detached" });
  assert.equal((await getTask(id)).state, "TASK_STATE_COMPLETED", "a preview has undone something");
  await page.keyboard.press("u");
  await preview.getByTestId("undo-item").first().waitFor();
  assert.deepEqual(
    await preview.getByTestId("undo-item").evaluateAll((all) => all.map((e) => `${e.querySelector("strong")?.textContent} ${e.getAttribute("data-state")}`)),
    ["check NOT_UNDOABLE", "switch PENDING", "fetch PENDING"],
  );
  await picture(page, "preview");
  await page.getByTestId("undo-reason").fill("the shop is slow");
  await page.getByTestId("undo-confirm").click();
  // What an undo waits for, if it does, stands above the steps, too.
  await settle(page, id);
  for (const [name, state] of [["fetch", "UNDONE"], ["switch", "UNDONE"], ["check", "NOT_UNDOABLE"]]) await page.locator(`[data-testid=step][data-name="${name}"][data-undo=${state}]`).waitFor();
  await page.getByTestId("undo-notice").getByText("the shop is slow").waitFor();
  await step(page, "switch").getByTestId("show-undo").click();
  await page.getByTestId("output").getByText("switch is taken back", { exact: true }).waitFor();

  // All of it is in the history, in its order.
  await page.getByTestId("history").locator("summary").click();
  const { sequence } = await getTask(id);
  await page.locator(`[data-testid=task-event][data-sequence="${sequence}"]`).waitFor();
  assert.deepEqual(
    await page.getByTestId("task-event").evaluateAll((all) => all.map((e) => Number(/** @type {HTMLElement} */ (e).dataset.sequence))),
    Array.from({ length: Number(sequence) }, (_, i) => i + 1),
  );
  await picture(page, "undone");

  // The command knows its step.
  await page.goto(`/commands/${done.steps[1].runs[0].commandId}`);
  await page.getByTestId("task-step-link").click();
  await page.waitForURL(`**/tasks/${id}?step=switch`);
  await page.locator(".step.chosen").getByText("switch").first().waitFor();
});

/** Approves what the undo waits for, if it does, until it is over. @param {Page} page @param {string} id */
async function settle(page, id) {
  for (;;) {
    const { task, approvals } = await taskUntil(id, "APPROVAL");
    if (approvals.length === 0 && !/UNDOING/.test(task.state)) break;
    for (const a of approvals) await rest("/v1/approvals:decide", { as: "approver", body: { decisions: [{ commandId: a.commandId, verdict: "VERDICT_APPROVE", requestHash: a.requestHash }] } });
  }
  await waitForTask(page, "UNDONE").catch(() => waitForTask(page, "UNDO_FAILED"));
}

test("who may only decide is shown the task with what is asked", async (t) => {
  const { id } = await submit({ task: "for others", steps: [{ name: "ask", command: "echo asked", needsApproval: true }, { command: "echo then" }] }, "operator");
  const { approvals } = await taskUntil(id, "APPROVAL");
  assert.equal(approvals.length, 1);
  const { page } = await visit(t, { as: "approver", excused: /status of 403/ });
  await page.goto("/approvals");
  await page.getByTestId("approvals-row").filter({ hasText: "echo asked" }).getByTestId("task-link").click();
  await page.waitForURL(`**/tasks/${id}`);
  await page.getByTestId("guest").waitFor();
  await step(page, "ask", "AWAITING_APPROVAL").waitFor();
  await page.getByTestId("reject-button").click();
  await page.getByTestId("reason-input").fill("not on a Friday");
  await page.getByTestId("decide-confirm").click();
  const { task } = await taskUntil(id);
  assert.deepEqual([task.state, task.steps[1].state], ["TASK_STATE_FAILED", "STEP_STATE_SKIPPED"]);
});

test("who decides reads the whole plan, also after the first of two yeses", async (t) => {
  const twins = [1, 2, 3, 4, 5].map((n) => `twin${n}`);
  const { id } = await submit(
    {
      task: "sums everywhere",
      steps: [
        { name: "sum", command: "echo | cksum", timeout: "90s", retry: { times: 2, backoff: "5s" }, actionType: "sums" },
        { name: "everywhere", hosts: [facts.host, ...twins, "closed:+@port"], command: "true", rollout: { parallel: 2, canary: 1 } },
        { name: "few", hosts: twins.slice(0, 3), command: "true" },
      ],
    },
    "asker",
  );
  await taskUntil(id, "APPROVAL");
  const { page } = await visit(t, { as: "approver" });
  await page.goto("/approvals");
  const row = page.getByTestId("approvals-row").filter({ hasText: "sums everywhere" });
  const plan = row.getByTestId("plan-step");
  const terms = async (/** @type {number} */ nth) => (await plan.nth(nth).locator(".terms .label").allTextContents()).join();
  await plan.first().waitFor();
  assert.equal(await terms(0), "ended after 1 min 30 s,tried again up to 2×, first after 5.0 s,action sums");
  assert.equal(await terms(1), "first on 1,2 at once");
  assert.match(String(await plan.nth(2).textContent()), /on twin1, twin2, twin3/);
  const hosts = plan.nth(1).getByTestId("plan-hosts");
  await hosts.getByText("on 7 hosts").click();
  await hosts.getByText([facts.host, ...twins, "closed:+@port"].join(", ")).waitFor();
  await picture(page, "whole-plan");
  await page.route(/\/v1\/approvals\?/, () => {}); // what is shown then is of the answer to the yes alone
  await row.getByTestId("approve-button").click();
  await row.getByText("1 of 2 approved").waitFor();
  assert.equal(await plan.count(), 3);
  assert.equal(await row.getByTestId("task-link").count(), 1);
  await rest(`/v1/tasks/${id}:cancel`, { as: "asker", body: {} });
});

test("what is undone is in the list once, and where it belongs by then", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const { page: completed } = await visit(t, { as: "operator" });
  const { page: running } = await visit(t, { as: "operator" });
  const { id } = await submit({ task: "once", steps: [{ name: "a", command: "true", undo: holdOn("once") }] }, "operator");
  await taskUntil(id);
  const row = (/** @type {Page} */ p) => p.locator(`[data-testid=task-row][data-id="${id}"]`);
  await page.goto("/tasks");
  await completed.goto("/tasks?state=completed");
  await running.goto("/tasks?state=undoing");
  for (const p of [page, completed]) await row(p).waitFor();
  await settled(running);
  assert.deepEqual(await completed.getByRole("heading", { level: 2 }).allTextContents(), ["History"]);
  await rest(`/v1/tasks/${id}:undo`, { as: "operator", body: {} });
  await page.locator(`[data-testid=tasks-now] [data-id="${id}"]`).getByText("undoing step 1 of 1: a").waitFor();
  await row(running).waitFor();
  assert.match((await running.getByRole("heading", { level: 2 }).allTextContents()).join(), /^Now 1$/, "a history of what has not ended");
  assert.equal(await running.getByText("No task matches the filters.").count(), 0);
  await row(completed).waitFor({ state: "detached" });
  assert.equal(await row(page).count(), 1);
  await letGo("once");
  await page.locator(`[data-testid=tasks-history] [data-id="${id}"]`).waitFor();
  await row(page).locator("[data-state=UNDONE]").waitFor();
  assert.deepEqual([await row(page).count(), await row(completed).count()], [1, 0]);
});

test("what is undone while the page is away is told when it is back", async (t) => {
  const { page } = await visit(t, { as: "operator", excused: /ERR_|WebSocket|status of 50\d/ });
  const { id } = await submit({ steps: [{ command: "true", undo: "true" }] }, "operator");
  await taskUntil(id);
  await page.goto(`/tasks/${id}`);
  await page.getByTestId("history").locator("summary").click();
  await page.locator("[data-testid=task-event][data-type=completed]").waitFor();
  await network("cut");
  await waitForConnection(page, "reconnecting");
  await rest(`/v1/tasks/${id}:undo`, { as: "operator", body: {} });
  const { task } = await taskUntil(id);
  assert.equal(task.state, "TASK_STATE_UNDONE");
  await network("open");
  await waitForTask(page, "UNDONE");
  await page.locator(`[data-testid=task-event][data-sequence="${task.sequence}"]`).waitFor();
  assert.deepEqual(
    await page.getByTestId("task-event").evaluateAll((all) => all.map((e) => Number(/** @type {HTMLElement} */ (e).dataset.sequence))),
    Array.from({ length: Number(task.sequence) }, (_, i) => i + 1),
  );
});

test("a step in a session says so", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const { page: form } = await visit(t, { as: "operator" });
  const { session } = JSON.parse(await rest("/v1/sessions", { as: "operator", body: { host: facts.host, name: "for-steps" } }));
  await form.goto("/tasks?new=1");
  await form.getByTestId("task-text").fill("in a shell");
  const draft = form.getByTestId("step-form");
  await draft.getByTestId("step-hosts").fill("");
  await draft.getByTestId("step-command").fill("echo in it");
  await draft.getByTestId("step-more").locator("summary").click();
  await draft.getByTestId("step-session").fill("for-steps");
  await draft.locator("[data-testid=policy-hint][data-effect=ALLOW]").waitFor();
  await draft.getByTestId("step-sudo").fill("root");
  await draft.getByText("Not in a session: its shell's own counts").waitFor();
  assert.ok(await form.getByTestId("submit-task").isDisabled());
  await draft.getByTestId("step-sudo").fill("");
  await form.getByTestId("submit-task").click();
  await waitForTask(form, "COMPLETED");
  await form.locator("#output-title").getByText(/^step 1 (in session for-steps|on .+)$/).waitFor();
  await form.locator("[data-testid=run][data-state=COMPLETED]").getByText(/^(in session for-steps|[^ ]+)$/).first().waitFor();
  await form.getByTestId("show-output").and(form.getByRole("button", { name: /^Output (in session for-steps|on .+)$/ })).waitFor();
  await rest(`/v1/sessions/${session.id}:close`, { as: "operator", body: {} });

  const { id } = await submit({ task: "in none", steps: [{ name: "a", host: "", session: "nowhere", command: "true" }] }, "operator");
  await page.goto(`/tasks/${id}`);
  await waitForTask(page, "FAILED");
  await page.locator("[data-testid=run][data-state=FAILED]").getByText("in session nowhere", { exact: true }).waitFor();
});

test("many hosts that came to the same are one line", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const { id } = await submit(
    {
      task: "every twin",
      steps: [
        { name: "same", hostLabels: { group: "twins" }, command: "echo the same on all; exit 0", rollout: { parallel: 2 } },
        { name: "odd", hosts: ["twin1", "twin2", "closed:+@port"], command: "echo here", onFailure: "continue", rollout: { goOn: true } },
      ],
    },
    "operator",
  );
  await taskUntil(id);
  await page.goto(`/tasks/${id}`);
  const group = step(page, "same").locator("[data-testid=run-group][data-hosts='5'][data-same=true]");
  await group.getByText("5 hosts", { exact: true }).waitFor();
  await group.getByText("same output").waitFor();
  await group.getByText("exit 0").waitFor();
  await group.getByRole("button", { name: "Output" }).click();
  await page.getByTestId("output").getByText("the same on all", { exact: true }).waitFor();
  await group.locator("summary").click();
  await group.getByTestId("run").nth(4).waitFor();
  assert.equal(await group.getByTestId("run").count(), 5);
  await step(page, "odd", "FAILED").locator("[data-testid=run-group][data-hosts='2']").waitFor();
  await step(page, "odd").locator("[data-testid=run][data-host='closed:+@port'][data-state=FAILED]").waitFor();
  await picture(page, "twins");
});

test("the queue, in the order of its turns, as it moves", async (t) => {
  const { page } = await visit(t);
  await page.goto("/tasks");
  await settled(page);
  const first = await Promise.all([1, 2].map((n) => submit({ task: `holds ${n}`, steps: [{ command: holdOn(`queue${n}`) }] })));
  for (const f of first) await page.locator(`[data-testid=tasks-now] [data-id="${f.id}"]`).waitFor();
  const low = await submit({ task: "waits longest", priority: -5, steps: [{ command: holdOn("low") }] });
  const ordinary = await submit({ task: "waits", steps: [{ command: holdOn("ordinary") }] });
  const high = await submit({ task: "goes first", priority: 7, steps: [{ command: holdOn("high") }] });
  const queue = () => page.getByTestId("queue-row").evaluateAll((all) => all.map((e) => `${e.getAttribute("data-id")} ${e.getAttribute("data-position")}`));
  const becomes = (/** @type {Json[]} */ ...order) => page.waitForFunction(
    (wanted) => [...document.querySelectorAll("[data-testid=queue-row]")].map((e) => `${e.getAttribute("data-id")} ${e.getAttribute("data-position")}`).join() === wanted,
    order.map((task, i) => `${task.id} ${i + 1}`).join(),
  ).catch(async (e) => assert.fail(`${e} ${await queue()}`));
  await becomes(high, ordinary, low);
  assert.deepEqual(await page.getByTestId("queue-row").first().locator("td").nth(2).textContent(), "7");
  await picture(page, "queue");
  const { page: one } = await visit(t);
  await one.goto(`/tasks/${low.id}`);
  await one.getByTestId("queue-place").getByText(/place 3/).waitFor();
  await letGo("queue1");
  await becomes(ordinary, low);
  await one.getByTestId("queue-place").getByText(/place 2/).waitFor();
  await page.locator(`[data-testid=tasks-now] [data-id="${high.id}"]`).waitFor();
  await page.locator(`[data-testid=tasks-history] [data-id="${first[0]?.id}"]`).waitFor();
  // One is cancelled while it waits.
  await one.keyboard.press("x");
  await one.getByTestId("cancel-reason").fill("not today");
  await one.getByTestId("cancel-confirm").click();
  await waitForTask(one, "CANCELLED");
  await becomes(ordinary);
  for (const name of ["queue2", "ordinary", "high"]) await letGo(name);
  for (const task of [...first, ordinary, high]) assert.equal((await taskUntil(task.id)).task.state, "TASK_STATE_COMPLETED");
});

test("filters", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const label = `f${process.pid}`;
  const [good, bad] = await Promise.all([
    submit({ task: "good", labels: { case: label }, conversationId: label, steps: [{ command: "true" }] }, "operator"),
    submit({ task: "bad", labels: { case: label }, steps: [{ command: "exit 3" }] }, "operator"),
  ]);
  for (const { id } of [good, bad]) await taskUntil(id);
  const shown = () => page.getByTestId("tasks-history").getByTestId("task-row").evaluateAll((all) => all.map((e) => e.getAttribute("data-id")).sort());
  /** @param {string} query @param {Json[]} tasks */
  const finds = async (query, ...tasks) => {
    await page.goto(`/tasks?${query}`);
    await settled(page);
    assert.deepEqual(tasks.length === 0 ? await page.getByTestId("task-row").count() : await shown(), tasks.length === 0 ? 0 : tasks.map((x) => x.id).sort(), query);
  };
  await finds(`label=case%3D${label}`, good, bad);
  await finds(`label=case%3D${label}&state=failed`, bad);
  await finds(`conversation=${label}`, good);
  await finds(`label=case%3D${label}&principal=anna`);
  await finds(`label=case%3D${label}&to=2001-01-01T00:00:00Z`);
  await page.goto(`/tasks?label=case%3D${label}`);
  await page.getByTestId("only-mine").click();
  await page.waitForURL(/principal=otto/);
  for (const { id } of [good, bad]) await page.locator(`[data-testid=task-row][data-id="${id}"]`).waitFor();
  assert.deepEqual(await shown(), [good.id, bad.id].sort());
});

test("a task is written on the page", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  await page.goto("/");
  await settled(page);
  await page.keyboard.press("g");
  await page.keyboard.press("k");
  await page.waitForURL("**/tasks");
  await page.keyboard.press("t");
  await page.getByTestId("task-text").fill("by hand");
  assert.ok(await page.getByTestId("submit-task").isDisabled());
  const forms = page.getByTestId("step-form");
  await forms.nth(0).getByTestId("step-name").fill("one");
  await forms.nth(0).getByTestId("step-hosts").fill(facts.host);
  await forms.nth(0).getByTestId("step-command").fill("echo one");
  await forms.nth(0).getByTestId("step-undo").fill("echo back");
  await page.getByTestId("add-step").click();
  await forms.nth(1).getByTestId("step-name").fill("one");
  await forms.nth(1).getByText("Another step has this name").waitFor();
  await forms.nth(1).getByTestId("step-name").fill("two");
  await forms.nth(1).getByTestId("step-hosts").fill("twin1, twin2");
  await forms.nth(1).getByTestId("step-command").fill("echo two");
  await forms.nth(1).getByTestId("step-on-failure").selectOption("undo");
  await picture(page, "form");
  await page.getByTestId("check-task").click();
  await page.getByTestId("task-checked").getByText("2 steps on 3 host").waitFor();
  // Enter in a field is no wish to submit.
  await forms.nth(1).getByTestId("step-hosts").press("Enter");
  await forms.nth(1).getByTestId("step-timeout").press("Enter");
  await page.keyboard.press("Tab");
  assert.match(page.url(), /\/tasks\?new=1$/);
  assert.equal(await page.getByTestId("submit-task").textContent(), "Submit");
  await page.getByTestId("submit-task").click();
  await page.waitForURL(/\/tasks\/[0-7][0-9A-Z]{25}$/);
  await waitForTask(page, "COMPLETED");
  const { task } = await taskUntil(String(new URL(page.url()).pathname.split("/")[2]));
  assert.deepEqual(
    task.steps.map((/** @type {Json} */ s) => [s.name, s.onFailure, s.undo ?? "", s.runs.map((/** @type {Json} */ r) => r.host)]),
    [["one", "stop", "echo back", [facts.host]], ["two", "undo", "", ["twin1", "twin2"]]],
  );
  assert.equal(task.createdBy.origin, "ORIGIN_WEB");
});

test("a task is written with all that a step can say", async (t) => {
  const { page } = await visit(t, { as: "asker" });
  await page.goto("/tasks?new=1");
  await page.getByTestId("task-text").fill("by hand, all of it");
  const form = page.getByTestId("step-form");
  const more = (/** @type {string} */ name) => form.getByTestId(`step-${name}`);
  await more("hosts").fill(facts.host);
  await more("command").fill("true");
  await more("undo").fill("factor 12");
  await form.locator("[data-testid=policy-hint][data-effect=ALLOW]").waitFor();
  await form.locator("[data-testid=policy-hint][data-effect=REQUIRE_APPROVAL]").waitFor();
  await more("undo").fill("false");
  assert.ok(await page.getByTestId("submit-task").isEnabled());
  await more("more").locator("summary").focus();
  await page.keyboard.press("Enter");
  await more("canary").fill("1");
  await form.getByText("It is for several hosts").waitFor();
  await more("hostLabels").fill("group=twins");
  await form.getByText("Either hosts, or host labels, or a session").first().waitFor();
  assert.ok(await page.getByTestId("submit-task").isDisabled());
  await more("hosts").fill("");
  await more("directory").fill("/tmp");
  await more("action").fill("sums");
  await more("retries").fill("2");
  await more("backoff").fill("soon");
  await form.getByText("Write it like 5s or 2m, an hour at most").waitFor();
  await more("backoff").fill("2s");
  await more("parallel").fill("2");
  await more("goOn").check();
  await more("timeout").fill("5m");
  await form.locator("[data-testid=policy-hint][data-effect=ALLOW]").nth(1).waitFor();
  await picture(page, "form-more");
  await page.getByTestId("check-task").click();
  await page.getByTestId("task-checked").getByText("1 step on 5 host").waitFor();
  await page.getByTestId("task-text").press("Control+Enter");
  await page.waitForURL(/\/tasks\/[0-7][0-9A-Z]{25}$/);
  await waitForTask(page, "COMPLETED");
  const { task } = await taskUntil(String(new URL(page.url()).pathname.split("/")[2]));
  const [made] = task.steps;
  assert.deepEqual(
    [made.runs.length, made.workingDirectory, made.actionType, made.timeout, made.retry, made.rollout],
    [5, "/tmp", "sums", "300s", { times: 2, backoff: "2s" }, { parallel: 2, canary: 1, goOn: true }],
  );
  assert.equal((await step(page, "step 1").locator(".terms .label").allTextContents()).join(), "ended after 5 min 0 s,tried again up to 2×, first after 2.0 s,in /tmp,action sums,first on 1,2 at once,goes on to other hosts where one fails");
});

test("an undo that wants a yes waits on the page", async (t) => {
  const { page } = await visit(t, { as: "approver" });
  const { page: owner } = await visit(t, { as: "asker" });
  const { id } = await submit({ steps: [{ name: "make", command: "echo made", undo: "factor 12" }] }, "asker");
  await taskUntil(id);
  await owner.goto(`/tasks/${id}`);
  await owner.getByTestId("undo-task").click();
  await owner.getByTestId("undo-item").filter({ hasText: "factor 12" }).waitFor();
  await owner.getByTestId("undo-confirm").click();
  await owner.locator("[data-testid=step][data-undo=AWAITING_APPROVAL]").waitFor();
  await owner.getByTestId("gates").getByText("takes back step").waitFor();
  await picture(owner, "undo-waits");
  await page.goto("/approvals");
  await page.getByTestId("approvals-row").filter({ hasText: "factor 12" }).getByTestId("approve-button").click();
  await waitForTask(owner, "UNDONE");
  await owner.locator("[data-testid=step][data-undo=UNDONE]").waitFor();
});

test("a cancel ends what runs, and nothing more begins", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const { id } = await submit({ steps: [{ name: "long", command: "echo up; exec sleep 600" }, { name: "never", command: "echo never" }] }, "operator");
  await page.goto(`/tasks/${id}`);
  await page.getByTestId("output").getByText("up", { exact: true }).waitFor();
  await page.getByTestId("cancel-task").click();
  await page.getByTestId("cancel-reason").fill("enough");
  await page.getByTestId("cancel-confirm").click();
  await waitForTask(page, "CANCELLED");
  await step(page, "never", "SKIPPED").waitFor();
  await page.getByTestId("cancellation").getByText("enough").waitFor();
});

test("the page is right again when the connection, and the service, were away", async (t) => {
  const { page } = await visit(t, { as: "operator", excused: /ERR_|WebSocket|status of 50\d/ });
  const { page: list } = await visit(t, { as: "operator", excused: /ERR_|WebSocket|status of 50\d/ });
  await list.goto("/tasks");
  await settled(list);
  const { id } = await submit({ task: "over a loss", steps: [{ name: "a", command: holdOn("loss") }, { name: "b", command: "echo b; exit 4", onFailure: "continue" }, { name: "c", command: holdOn("loss2") }] }, "operator");
  await page.goto(`/tasks/${id}`);
  await step(page, "a", "RUNNING").waitFor();
  await page.getByTestId("history").locator("summary").click();
  await page.getByTestId("task-event").first().waitFor();
  await network("cut");
  await waitForConnection(page, "reconnecting");
  await letGo("loss");
  // It begins and ends while nobody looks.
  const unseen = await submit({ task: "never seen", steps: [{ command: "true" }] }, "operator");
  await taskUntil(unseen.id);
  for (;;) if ((await getTask(id)).steps[2].state === "STEP_STATE_RUNNING") break;
  await network("open");
  await step(page, "b", "FAILED").getByTestId("run-exit").filter({ hasText: "exit 4" }).waitFor();
  await step(page, "c", "RUNNING").waitFor();
  await list.locator(`[data-testid=tasks-history] [data-id="${unseen.id}"]`).waitFor();
  await service("kill");
  await service("start");
  await letGo("loss2");
  await waitForTask(page, "COMPLETED");
  await list.locator(`[data-testid=tasks-history] [data-id="${id}"]`).waitFor();
  const { sequence } = await getTask(id);
  await page.locator(`[data-testid=task-event][data-sequence="${sequence}"]`).waitFor();
  assert.deepEqual(
    await page.getByTestId("task-event").evaluateAll((all) => all.map((e) => Number(/** @type {HTMLElement} */ (e).dataset.sequence))),
    Array.from({ length: Number(sequence) }, (_, i) => i + 1),
  );
});

test("it is live where no WebSocket gets through", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  await page.goto("/tasks");
  await page.evaluate(() => localStorage.setItem("telexec.transport", "polling"));
  await page.reload();
  await waitForConnection(page, "polling");
  const { id } = await submit({ steps: [{ name: "a", command: "sleep 1" }, { name: "b", command: "echo b" }] }, "operator");
  await page.goto(`/tasks/${id}`);
  await waitForTask(page, "COMPLETED");
  await step(page, "b", "COMPLETED").waitFor();
  await page.getByTestId("history").locator("summary").click();
  await page.locator("[data-testid=task-event][data-type=completed]").waitFor();
});

test("how much is done, as its commands tell", async (t) => {
  const { page } = await visit(t, { as: "operator" });
  const { id } = await submit({ steps: [{ name: "half", command: `for i in 10 30 50; do echo "$i% done"; sleep 1.2; done; ${holdOn("half")}` }, { name: "rest", command: "true" }] }, "operator");
  await page.goto(`/tasks/${id}`);
  await step(page, "half", "RUNNING").locator("[data-percent='30']").waitFor();
  // Its events tell it: the task is not asked for with each of them.
  let asked = 0;
  page.on("request", (r) => void (new URL(r.url()).pathname === `/v1/tasks/${id}` && asked++));
  await step(page, "half", "RUNNING").locator("[data-percent='50']").waitFor();
  assert.equal(asked, 0);
  await page.locator("[data-testid=task-percent][data-percent='25']").waitFor();
  await letGo("half");
  await waitForTask(page, "COMPLETED");
  await page.locator("[data-testid=task-percent][data-percent='100']").waitFor();
});

test("submitted by an agent, approved here, and the service killed while it waits and while it runs", async (t) => {
  const { page } = await visit(t, { as: "approver", excused: /status of 403|WebSocket|Failed to (load|fetch)|ERR_CONNECTION/ });
  const trace = gate("trace");
  const leaves = (/** @type {string} */ name) => `echo ${name} >>${trace}`;
  const { task_id: id } = await agent("operator", "submit_task", {
    task: "five steps on three hosts",
    wait_seconds: 0,
    steps: [
      { name: "one", host: facts.host, command: leaves("one") },
      { name: "two", hosts: ["twin1", "twin2"], command: leaves("two"), rollout: { parallel: 1 } },
      { name: "three", host: "twin1", command: leaves("three"), needs_approval: true, undo: leaves("undo-three") },
      { name: "four", host: "twin2", command: `${leaves("four")}; ${holdOn("four")}` },
      { name: "five", host: facts.host, command: leaves("five") },
    ],
  });
  assert.equal((await taskUntil(id, "APPROVAL")).approvals.length, 1);
  await service("kill");
  await service("start");
  await page.goto("/approvals");
  const row = page.getByTestId("approvals-row").filter({ hasText: "five steps on three hosts" });
  await row.getByTestId("approve-button").click();
  await row.waitFor({ state: "detached" });
  for (;;) {
    const { steps } = await getTask(id);
    if (steps[3].runs[0].startTime) break;
  }
  await service("kill");
  writeFileSync(gate("four"), ""); // it ends while nobody looks
  await service("start");
  const { task } = await taskUntil(id);
  assert.equal(task.state, "TASK_STATE_COMPLETED");
  assert.equal(readFileSync(trace, "utf8"), "one\ntwo\ntwo\nthree\nfour\nfive\n");
  const told = await agent("operator", "get_task_status", { task_id: id });
  assert.deepEqual([told.state, told.percent], ["completed", 100]);
});

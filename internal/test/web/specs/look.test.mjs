// Every page, in the dark and in the light, on a desk and in a hand: pictures of them,
// and what axe finds.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { AxeBuilder } from "@axe-core/playwright";
import { ended, execute, facts, get, rest, shots, submit, taskUntil } from "./service.mjs";
import { leave, open, settled, signIn, visit } from "./visitor.mjs";
import { closeSession, openSession } from "./terminals.mjs";
import { waitForState } from "./ui.mjs";

after(leave);

/** @typedef {import("./visitor.mjs").Page} Page */

const desk = { width: 1280, height: 800 };
const hand = { width: 390, height: 844 };
const narrow = { width: 360, height: 740 };

/** The pages, by what the pictures are named after. @type {Record<string, string>} */
const pages = {};

before(async () => {
  const build = "for i in 1 2 3 4 5 6 7 8; do printf '\\033[32m  ok\\033[0m  compiled part %d of 8\\n' $i; done; echo 'warning: unused variable' >&2; echo '[#####     ] 50% linking'";
  const [done, running, failed, waits, terminal, lost] = await Promise.all([
    execute({ command: `${build}; exit 3`, labels: { team: "web", ticket: "OPS-1234" } }, "operator"),
    execute({ command: `${build}; exec sleep 600`, labels: { team: "web" } }, "operator"),
    execute({ command: "make deploy", workingDirectory: "/nowhere" }, "operator"),
    execute({ command: "factor 1234567890 && systemctl restart nginx", labels: { team: "web" } }, "asker"),
    execute({ command: "printf '\\033[1;34mname   cpu  mem\\033[0m\\r\\nweb    12%%  40%%\\r\\ndb     80%%  71%%\\r\\n'; cat", pty: {}, stdinOpen: true }, "operator"),
    execute({ host: "closed:+@port", command: "uptime" }, "operator"),
    execute({ command: "cksum /etc/hostname" }, "asker"),
  ]);
  const cancelled = await execute({ command: `${build}; exec sleep 600` });
  while ((await get(cancelled.id)).state !== "COMMAND_STATE_RUNNING");
  await rest(`/v1/commands/${cancelled.id}:cancel`, { body: { reason: "no longer needed" } });
  for (const c of [done, failed, lost]) await ended(c.id);
  const session = await openSession({ name: "build", labels: { team: "web" } }, "operator");
  for (const command of ["cd /usr", "printf '\\033[32mok\\033[0m part %d of 3\\n' 1 2 3", "ls --color=always", "exit_code() { return 2; }; exit_code"]) {
    await rest("/v1/commands", { as: "operator", body: { session: "build", command, wait: "10s" } });
  }
  await execute({ host: "", session: "build", command: "sleep 600" }, "operator");
  const over = await openSession({ name: "yesterday" });
  await rest("/v1/commands", { body: { session: over.id, command: "echo what was", wait: "10s" } });
  await closeSession(over.id);
  const plan = { task: "Roll out 2.4 to the shop\n\nFirst the one host, then all of them; the cache is warmed at the end.", conversationId: "c-17", labels: { team: "web" }, priority: 5, context: { ticket: "OPS-1234" } };
  const many = { name: "every host", hostLabels: { group: "twins" }, command: "echo the same on all; test $(hostname) != nowhere", undo: "echo back" };
  const [goes, asks, over3] = await Promise.all([
    submit({ ...plan, steps: [{ name: "fetch", command: "echo fetched", undo: "echo removed" }, many, { name: "warm up", command: "for i in 1 2 3; do echo page $i; done; echo '[####      ] 40%'; exec sleep 600" }, { name: "check", command: "echo well", needsApproval: true }] }, "operator"),
    submit({ ...plan, steps: [{ name: "fetch", command: "echo fetched", undo: "echo removed" }, { name: "switch", command: "systemctl restart shop && echo restarted", needsApproval: true, undo: "systemctl restart shop", onFailure: "undo" }, { name: "check", command: "echo well", retry: { times: 3 } }] }, "operator"),
    submit({ ...plan, steps: [{ name: "fetch", command: "echo fetched", undo: "echo removed" }, { ...many, name: "on some", hostLabels: undefined, hosts: ["twin1", "twin2", "closed:+@port"], rollout: { goOn: true } }, { name: "check", command: "echo well", host: facts.host }] }, "operator"),
  ]);
  await taskUntil(asks.id, "APPROVAL");
  await taskUntil(over3.id);
  await rest(`/v1/tasks/${over3.id}:undo`, { body: { reason: "the shop is slow" } });
  await taskUntil(over3.id);
  await Promise.all(["one", "two", "three"].map((name) => submit({ task: `waits: ${name}`, priority: name === "two" ? 3 : 0, steps: [{ command: "exec sleep 600" }] })));
  Object.assign(pages, {
    commands: "/",
    "command-done": `/commands/${done.id}`,
    "command-running": `/commands/${running.id}`,
    "command-failed": `/commands/${failed.id}`,
    "command-waits": `/commands/${waits.id}`,
    "command-terminal": `/commands/${terminal.id}`,
    "command-cancelled": `/commands/${cancelled.id}`,
    "command-unknown": "/commands/01ARZ3NDEKTSV4RRFFQ69G5FAV",
    sessions: "/sessions",
    "session-open": "/sessions?open=1",
    session: "/sessions/build",
    "session-replay": `/sessions/${session.id}/replay`,
    "session-ended": `/sessions/${over.id}`,
    "session-unknown": "/sessions/nowhere",
    tasks: "/tasks",
    "task-new": "/tasks?new=1",
    "task-running": `/tasks/${goes.id}`,
    "task-waits": `/tasks/${asks.id}`,
    "task-undone": `/tasks/${over3.id}`,
    "task-unknown": "/tasks/01ARZ3NDEKTSV4RRFFQ69G5FAV",
    approvals: "/approvals",
    hosts: "/hosts",
    audit: "/audit",
    unknown: "/nowhere",
  });
});

/** @param {Page} page @param {string} name */
async function look(page, name) {
  /** @type {string[]} */
  const found = [];
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    await page.emulateMedia({ colorScheme });
    for (const [size, viewport] of Object.entries({ desk, hand })) {
      await page.setViewportSize(viewport);
      await page.screenshot({ path: join(shots, `${name}-${colorScheme}-${size}.png`), animations: "disabled" });
      // What depends on the colours is the same on both.
      if (colorScheme === "dark" && size === "hand") continue;
      const { violations } = await new AxeBuilder({ page }).setLegacyMode().analyze();
      for (const v of violations) {
        if (v.impact !== "serious" && v.impact !== "critical") continue;
        found.push(`${name} ${colorScheme} ${size}: ${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join("; ")}`);
      }
    }
  }
  await page.setViewportSize(narrow);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) found.push(`${name}: ${wide} px wider than a screen of 360`);
  return found;
}

/** @param {import("node:test").TestContext} t @param {(name: string) => boolean} which */
async function lookAt(t, which) {
  const { page } = await visit(t, { excused: /status of 40[34]/ });
  const found = [];
  for (const [name, path] of Object.entries(pages).filter(([name]) => which(name))) {
    await page.setViewportSize(desk);
    await page.goto(path);
    await settled(page);
    found.push(...(await look(page, name)));
  }
  assert.deepEqual(found, []);
  t.diagnostic(`screenshots are in ${shots}`);
}

test("the pages of tasks", (t) => lookAt(t, (name) => name.startsWith("task")));

test("every other page", (t) => lookAt(t, (name) => !name.startsWith("task")));

test("what opens on a task's page", async (t) => {
  const { page } = await visit(t);
  const found = [];
  await page.goto(String(pages["task-undone"]));
  await settled(page);
  await page.getByTestId("history").locator("summary").click();
  await page.getByTestId("task-event").first().waitFor();
  await page.locator("[data-testid=run-group] summary").first().click();
  await page.getByTestId("history").locator("summary").scrollIntoViewIfNeeded();
  found.push(...(await look(page, "task-history")));
  await page.setViewportSize(desk);
  await page.goto(String(pages["task-waits"]));
  await page.getByTestId("modify-button").click();
  await page.getByTestId("modify-input").fill("systemctl reload shop && echo reloaded");
  found.push(...(await look(page, "task-modify")));
  assert.deepEqual(found, []);
});

test("the login page", async (t) => {
  const { page } = await visit(t, { as: null });
  await page.goto("/login");
  assert.deepEqual(await look(page, "login"), []);
  await signIn(page, "viewer");
});

test("nothing moves where that is not wanted", async (t) => {
  const { page } = await visit(t, { options: { reducedMotion: "reduce" } });
  for (const path of [pages.commands, pages["command-running"]]) {
    await page.goto(String(path));
    await settled(page);
    const moving = await page.evaluate(() =>
      document.getAnimations().filter((a) => a.playState === "running" && Number(a.effect?.getComputedTiming().duration) > 10).map((a) => /** @type {KeyframeEffect} */ (a.effect).target?.className),
    );
    assert.deepEqual(moving, [], path);
  }
});

test("nothing jumps while output flows", async (t) => {
  const { page } = await visit(t, {
    init: () => {
      const w = /** @type {any} */ (window);
      w.__shifts = [];
      new PerformanceObserver((list) => {
        for (const e of /** @type {any[]} */ (list.getEntries())) {
          w.__shifts.push({ value: e.value, what: e.sources.map((/** @type {any} */ s) => s.node?.outerHTML?.slice(0, 200) ?? s.node?.nodeName) });
        }
      }).observe({ type: "layout-shift", buffered: true });
    },
  });
  // It waits for the page, in which it is to flow.
  const { id } = await execute({ command: "trap 'on=yes' USR1; echo ready; until [ \"$on\" ]; do sleep 0.05; done; for i in $(seq 300); do echo line $i of three hundred; echo error $i >&2; echo \"[###  ] $((i / 3))%\"; sleep 0.01; done" });
  await open(page, id);
  await page.getByTestId("output").getByText("ready", { exact: true }).waitFor();
  await rest(`/v1/commands/${id}:signal`, { body: { signal: "USR1" } });
  await page.getByTestId("output").getByText("line 300 of three hundred").waitFor();
  await waitForState(page, "COMPLETED");
  const shifts = await page.evaluate(() => /** @type {any} */ (window).__shifts);
  const sum = shifts.reduce((/** @type {number} */ all, /** @type {any} */ s) => all + s.value, 0);
  t.diagnostic(`layout shift while output flows: ${sum.toFixed(4)}`);
  assert.ok(sum < 0.01, JSON.stringify(shifts, null, 1));
});

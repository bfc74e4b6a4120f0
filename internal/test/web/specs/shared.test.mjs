// One session, two browsers and a client of the API: what each does the others see, at once and as theirs who did it.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { agent, get, processes, rest } from "./service.mjs";
import { judge } from "./measure.mjs";
import { leave, visit } from "./visitor.mjs";
import { attach, closeSession, getSession, noteText, openSession, picture, sameScreen, sendKeys, shows, type, whenShown } from "./terminals.mjs";

after(leave);

test("a cancel by an agent, and by the API, of what somebody typed", async (t) => {
  const [{ page: types }, { page: watches }] = await Promise.all([visit(t), visit(t, { as: "operator" })]);
  const session = await openSession({ name: "cancels" });
  await attach(types, "cancels");
  await attach(watches, "cancels");
  /** @type {number[]} */ const own = [];
  /** @type {number[]} */ const other = [];
  /** @type {number[]} */ const prompt = [];
  for (let i = 0; i < 6; i++) {
    const marker = `/nowhere-${Date.now()}`;
    // Often enough to last.
    await type(types, `find / / / / / / / / -name '*.log' -not -path ${marker}\n`);
    /** @type {string} */ let id = "";
    for (; id === ""; id = (await getSession("cancels")).currentCommand ?? "");
    const typed = await get(id);
    assert.equal(typed.createdBy.origin, "ORIGIN_WEB");
    assert.ok(typed.command.includes(marker), typed.command);
    const byAgent = i % 2 === 0;
    if (byAgent) await agent("operator", "ssh_list_sessions", {}); // its telexec-mcp has started
    for (const page of [types, watches]) {
      await shows(page, /Permission denied/); // what it says is being drawn
      await page.locator(`[data-testid=session-command][data-id="${id}"][data-state=RUNNING]`).waitFor();
    }
    await Promise.all([types, watches].map((page) => noteText(page, `[CANCELLED] Command terminated by ${byAgent ? "MCP client" : "REST client"}`)));
    const asked = Date.now();
    if (byAgent) await agent("operator", "ssh_cancel_running_command", { sessionName: "cancels", reason: "enough" });
    else assert.equal(JSON.parse(await rest("/v1/sessions/cancels:cancel", { as: "operator", body: { reason: "enough" } })).noTask ?? false, false);
    own.push((await whenShown(types)) - asked);
    other.push((await whenShown(watches)) - asked);
    await types.waitForFunction(() => {
      const { terminal: term } = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
      const b = term.buffer.active;
      const line = b.getLine(b.baseY + b.cursorY)?.translateToString(true) ?? "";
      return /[$#] ?$/.test(line) && !line.includes("CANCELLED");
    }, undefined, { polling: 10 });
    prompt.push(Date.now() - asked);
    const ended = await get(id);
    assert.equal(ended.state, "COMMAND_STATE_CANCELLED");
    assert.deepEqual([ended.cancellation.by.principal, ended.cancellation.by.origin], ["otto", byAgent ? "ORIGIN_MCP" : "ORIGIN_REST"]);
    assert.equal(await processes(marker), 0, "it has left something");
    await types.locator(`[data-testid=session-command][data-id="${id}"][data-state=CANCELLED]`).waitFor();
    await type(types, "clear\n");
    await types.waitForFunction(() => {
      const { terminal: term } = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
      const b = term.buffer.active;
      return !Array.from({ length: term.rows }, (_, y) => b.getLine(b.baseY + y)?.translateToString(true) ?? "").join("\n").includes("CANCELLED");
    });
  }
  judge(t, "where it was typed, from the request to the line", own, { limit: 100, lax: 3000 });
  judge(t, "in the other browser, from the request to the line", other, { limit: 100, lax: 3000 });
  judge(t, "from the request to the prompt", prompt, { limit: 1000, lax: 8000 });
  // Where nothing runs it is harmless. What was typed last may have no id yet, and is in no list then.
  for (let last; last?.command !== "clear" || last.state !== "COMMAND_STATE_COMPLETED"; ) {
    [last] = JSON.parse(await rest("/v1/commands?session=cancels&pageSize=1")).commands;
  }
  while ((await getSession("cancels")).currentCommand);
  assert.equal(JSON.parse(await rest("/v1/sessions/cancels:cancel", { body: {} })).noTask, true);
  await type(types, "echo still $((40+2)) here\n");
  await shows(types, /^still 42 here$/);
  await closeSession(session.id);
});

test("two browsers of different width and an agent see the same, and know who does what", async (t) => {
  const [{ page: ada }, { page: otto }] = await Promise.all([
    visit(t),
    visit(t, { as: "operator", options: { viewport: { width: 900, height: 600 } } }),
  ]);
  const session = await openSession({ name: "together" });
  await attach(ada, "together");
  await attach(otto, "together");
  await Promise.all([ada, otto].map((page) => page.getByTestId("viewer").nth(1).waitFor()));

  // Who types has the size, and the other one sees it in that.
  const both = async () => {
    const [a, o] = [await sameScreen(ada, "together", 0, "the wide browser"), await sameScreen(otto, "together", 0, "the narrow browser")];
    assert.deepEqual(a, o);
    return a;
  };
  await ada.getByTestId("take-keyboard").click();
  await ada.locator("[data-testid=keyboard][data-owner=me]").waitFor();
  await otto.locator("[data-testid=keyboard][data-owner=other]").waitFor();
  await otto.locator("[data-testid=terminal-notice][data-state=taken]").filter({ hasText: "admin" }).waitFor();
  await type(ada, "stty size; for i in $(seq 60); do printf '%0100d|\\n' $i; done; printf 'wide \\345\\256\\275 \\360\\237\\232\\200 done\\n'\n");
  await shows(otto, /^wide 宽 🚀 done$/);
  const wide = await both();
  assert.ok(wide.columns > 100, `${wide.columns} columns`);

  // What the other one types goes nowhere.
  await type(otto, "echo from the wrong one\n");
  await ada.getByTestId("hand-over").click();
  await ada.getByTestId("hand-over-to").filter({ hasText: "otto" }).click();
  await otto.locator("[data-testid=keyboard][data-owner=me]").waitFor();
  await ada.locator("[data-testid=terminal][data-may-type=false]").waitFor();
  await type(otto, "echo by otto; stty size\n");
  await shows(ada, /^by otto$/);
  await ada.locator("[data-testid=viewer][data-last=true]").filter({ hasText: "otto" }).waitFor();
  const narrow = await both();
  assert.ok(narrow.columns < wide.columns, `${narrow.columns} columns in the narrow one`);
  assert.ok(![...narrow.scrollback, ...narrow.lines].some((line) => line.includes("wrong one")));
  const typed = JSON.parse(await rest("/v1/commands?session=together&pageSize=5")).commands;
  assert.deepEqual([typed[0].command, typed[0].createdBy.principal, typed[0].createdBy.origin], ["echo by otto; stty size", "otto", "ORIGIN_WEB"]);

  // An agent is refused while somebody has the keyboard, and types where nobody has.
  await assert.rejects(sendKeys("together", [{ text: "echo refused" }, { name: "Enter" }]), /KEYBOARD_TAKEN/);
  await otto.getByTestId("release-keyboard").click();
  await ada.locator("[data-testid=keyboard][data-owner=nobody]").waitFor();
  await sendKeys("together", [{ text: "echo by an agent" }, { name: "Enter" }]);
  for (const page of [ada, otto]) await shows(page, /^by an agent$/);

  // A command that is sent runs in the same shell, and stands in both lists as whose it is.
  const { command } = JSON.parse(await rest("/v1/commands", { body: { session: "together", command: "cd /usr; false", wait: "10s" } }));
  assert.equal(command.exitCode, 1);
  for (const page of [ada, otto]) {
    const row = page.locator(`[data-testid=session-command][data-id="${command.id}"]`);
    await row.filter({ hasText: "rest" }).waitFor();
    assert.equal(await row.getByTestId("exit-code").getAttribute("data-code"), "1");
  }
  await both();

  // Who loads the page again sees what was there.
  await ada.reload();
  await ada.locator("[data-testid=viewer][data-me=true]").waitFor();
  await shows(ada, /^by an agent$/);
  await sameScreen(ada, "together", 50, "the page that was loaded again");
  assert.deepEqual((await picture(ada)).lines, (await sameScreen(otto, "together", 0)).lines);
  await closeSession(session.id);
  for (const page of [ada, otto]) await page.getByTestId("session-over").filter({ hasText: "SESSION_CLOSED" }).waitFor();
});

// Terminals: from opening one to its replay.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { AxeBuilder } from "@axe-core/playwright";
import { facts, network, rest } from "./service.mjs";
import { leave, settled, visit } from "./visitor.mjs";
import { attach, cells, closeSession, getSession, openSession, picture, ready, sameScreen, sendKeys, shows, type } from "./terminals.mjs";

after(leave);

test("one is opened, typed in, and loaded again", async (t) => {
  const { page } = await visit(t);
  await page.goto("/sessions");
  await page.getByTestId("open-session").click();
  await page.getByTestId("session-host").selectOption(facts.host);
  await page.getByTestId("session-name").fill("first");
  await page.getByTestId("session-open-button").click();
  await page.waitForURL("/sessions/first");
  await ready(page);
  await type(page, "PS1='$ '; seq 100; printf '\\033[1;31mred\\033[0m \\033[4;48;5;22munder\\033[0m \\345\\256\\275\\345\\255\\227 \\360\\237\\232\\200 e\\314\\201 \\033[38;2;1;200;3mtrue\\033[7minverse\\033[0m\\n'\n");
  await shows(page, /^red under 宽字 🚀/);
  await shows(page, /^\$$/);
  await type(page, "echo half of");
  // On a slow machine the shell, whose prompt was set anew, was made to tell marks, and has a second prompt behind the first.
  await shows(page, /^(\$ ){1,2}echo half of$/);
  await sameScreen(page, "first", 60);
  const before = await cells(page);
  await page.reload();
  await ready(page);
  await shows(page, /red under 宽字 🚀/);
  await sameScreen(page, "first", 60, "the page that was loaded again");
  assert.deepEqual(await cells(page), before);
  // One is where one was, in the middle of a line.
  await type(page, " a line\n");
  await shows(page, /^half of a line$/);
  await type(page, "exit\n");
  await page.getByTestId("session-over").filter({ hasText: "SHELL_EXITED" }).waitFor();
  await page.goto("/sessions");
  await page.getByTestId("ended-row").filter({ hasText: "first" }).waitFor();
});

test("a name is another session's when the one that had it is over", async (t) => {
  const { page } = await visit(t);
  await page.goto("/sessions?open=1");
  const open = async () => {
    await page.getByTestId("session-host").selectOption(facts.host);
    await page.getByTestId("session-name").fill("again");
    await page.getByTestId("session-open-button").click();
    await page.waitForURL("/sessions/again");
    await ready(page);
  };
  await open();
  await type(page, "echo the first\n");
  await shows(page, /^the first$/);
  await type(page, "exit\n");
  await page.getByTestId("session-over").waitFor();
  await page.getByRole("link", { name: "Open another" }).click();
  await open();
  assert.equal(await page.getByTestId("session-over").count(), 0);
  // What was is still in its tab.
  await page.getByTestId("tab").nth(1).waitFor();
  await page.getByTestId("tab").first().getByRole("link").click();
  await page.getByTestId("session-over").waitFor();
  await shows(page, /^the first$/);
  await page.goBack();
  await ready(page);
  await type(page, "exit\n");
  await page.getByTestId("session-over").waitFor();
  // From the menu, where that is where one is already.
  const third = await openSession({ name: "again" });
  await page.getByTestId("tab-menu").click();
  await page.getByRole("button", { name: `again ${facts.host}` }).click();
  await ready(page);
  assert.equal(await page.getByTestId("terminal").getAttribute("data-session"), third.id);
  assert.equal(new URL(page.url()).pathname, "/sessions/again");
  await closeSession(third.id);
});

test("programs that have the whole screen", async (t) => {
  const { page } = await visit(t);
  const session = await openSession({ name: "programs" });
  await attach(page, "programs");
  const file = `/tmp/telexec-web-${Date.now()}`;
  await type(page, `vim -u NONE -N ${file}\n`);
  await shows(page, /^~$/);
  assert.ok((await sameScreen(page, "programs")).alternate);
  await type(page, "iwritten in vim\x1b");
  await page.keyboard.press("Escape");
  await type(page, ":set number\n");
  await shows(page, /^ +1 written in vim$/);
  await page.reload();
  await ready(page);
  await shows(page, /^ +1 written in vim$/);
  await sameScreen(page, "programs", 0, "vim, loaded again");
  await type(page, ":wq\n");
  await page.waitForFunction(() => /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal")).terminal.buffer.active.type === "normal");
  await type(page, `cat ${file}; rm ${file}\n`);
  await shows(page, /^written in vim$/);
  await type(page, "top -d 0.3\n");
  await shows(page, /load average/);
  await shows(page, /PID USER/);
  await type(page, "q");
  while ((await getSession("programs")).currentCommand); // top drops what is typed while it ends
  await type(page, "echo top is over\n");
  await shows(page, /^top is over$/);
  await sameScreen(page, "programs");
  await closeSession(session.id);
});

test("programs ask the terminal, and the service alone answers", async (t) => {
  const [{ page: one }, { page: two }] = await Promise.all([visit(t), visit(t, { as: "operator" })]);
  const session = await openSession({ name: "asks", keeper: "KEEPER_NONE" });
  await attach(one, "asks");
  await attach(two, "asks");
  await type(one, "stty raw -echo; printf '\\033[6n\\033[c\\033[5n\\033]11;?\\033\\\\\\033[?2004$p'; sleep 1; dd bs=4096 count=1 iflag=nonblock 2>/dev/null | od -An -c; stty sane; echo ask$((1))ed\n");
  await shows(two, /ask1ed$/);
  const all = (await picture(two)).lines.join(" ").replace(/\s+/g, " ");
  // Each was answered once, though two terminals were asked.
  for (const answer of [/033 \[ 0 n/g, /\d R/g, /033 \[ \? 1 ; 2 c/g]) assert.equal((all.match(answer) ?? []).length, 1, `${answer}: ${all}`);
  await closeSession(session.id);
});

test("a pointer that passes over takes no keyboard; a click and a paste are sent", async (t) => {
  const { page } = await visit(t);
  const session = await openSession({ name: "pointer" });
  await attach(page, "pointer");
  await type(page, "stty -echo -icanon; printf '\\033[?1003h\\033[?1006h\\033[?2004h\\033[?1004hready\\n'; cat -v\n");
  await shows(page, /^ready$/);
  // Who typed has the keyboard for a while.
  await page.getByTestId("take-keyboard").or(page.getByTestId("release-keyboard")).first().waitFor();
  if (await page.getByTestId("take-keyboard").isVisible()) await page.getByTestId("take-keyboard").click();
  await page.getByTestId("release-keyboard").click();
  await page.locator("[data-testid=keyboard][data-owner=nobody]").waitFor();
  const box = /** @type {{ x: number, y: number, width: number, height: number }} */ (await page.locator("[data-testid=terminal] .xterm-screen").boundingBox());
  for (let i = 0; i < 10; i++) await page.mouse.move(box.x + 50 + 20 * i, box.y + 100);
  await page.locator("body").click({ position: { x: 5, y: 5 } });
  assert.equal((await getSession("pointer")).keyboard ?? "", "");
  await page.mouse.click(box.x + 50, box.y + 100);
  await shows(page, /\^\[\[<0;\d+;\d+M/);
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.setData("text/plain", "pasted");
    document.querySelector(".xterm-helper-textarea")?.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  });
  await shows(page, /\^\[\[200~pasted\^\[\[201~/);
  await closeSession(session.id);
});

test("the wire is cut, and the terminal goes on where it was", async (t) => {
  const { page } = await visit(t, { excused: /ERR_|WebSocket|status of 50\d/ });
  const session = await openSession({ name: "cut" });
  await attach(page, "cut");
  await type(page, "for i in $(seq 150); do echo tick $i; sleep 0.02; done; echo all told\n");
  await shows(page, /^tick 20$/);
  await network("cut");
  t.after(() => network("open"));
  await page.locator("[data-testid=terminal-notice][data-state=reconnecting]").waitFor();
  await page.locator("[data-testid=terminal][data-may-type=false]").waitFor();
  await type(page, "typed into nothing\n");
  await network("open");
  await ready(page);
  await shows(page, /^all told$/);
  const { lines, scrollback } = await sameScreen(page, "cut", 150);
  const ticks = [...scrollback, ...lines].filter((line) => /^tick \d+$/.test(line));
  assert.deepEqual(ticks, Array.from({ length: 150 }, (_, i) => `tick ${i + 1}`));
  assert.ok(![...scrollback, ...lines].some((line) => line.includes("into nothing")));
  await closeSession(session.id);
});

test("commands are beside it: jumps, a run that waits, a cancel, links", async (t) => {
  const { page } = await visit(t, { excused: /status of 400/ }); // where it is busy
  const session = await openSession({ name: "beside" });
  await attach(page, "beside");
  // Blanks are no command.
  await page.getByTestId("session-line").fill("  \n ");
  assert.equal(await page.getByTestId("session-run-button").isDisabled(), true);
  await page.getByTestId("session-line").press("Enter");
  assert.equal(await page.getByTestId("session-line").inputValue(), "  \n ");
  await page.getByTestId("session-line").fill("seq 3000 | sed 's/^/first /'");
  await page.getByTestId("session-line").press("Enter");
  const first = page.getByTestId("session-command").filter({ hasText: "seq 3000" });
  await first.and(page.locator("[data-state=COMPLETED]")).waitFor();
  await shows(page, /^first 3000$/);
  assert.equal(await page.getByTestId("session-command").count(), 1);
  // How long it took is told as that, also to who cannot see.
  const took = first.getByTestId("took");
  assert.match(String(await took.locator("[aria-hidden]").textContent()), /^took [\d.]+ m?s$/);
  assert.match(String(await took.locator(".unseen").textContent()), /^took [\d.]+ m?s, [\d:]+ to [\d:]+$/);
  assert.match(String(await took.getAttribute("title")), /^took [\d.]+ m?s: [\d:]+ to [\d:]+$/);
  await type(page, "sleep 600\n");
  const sleeps = page.getByTestId("session-command").filter({ hasText: "sleep 600" });
  await sleeps.and(page.locator("[data-state=RUNNING]")).waitFor();
  // One that is not to wait is refused; another waits for its turn.
  await page.getByLabel("wait while it is busy").uncheck();
  await page.getByTestId("session-line").fill("echo refused");
  await page.getByTestId("session-run-button").click();
  await page.getByTestId("session-run").getByRole("alert").filter({ hasText: /sleep 600|busy/i }).waitFor();
  await page.getByLabel("wait while it is busy").check();
  await page.getByTestId("session-line").fill("echo its turn");
  await page.getByTestId("session-run-button").click();
  await page.getByTestId("session-command").filter({ hasText: "its turn" }).and(page.locator("[data-state=QUEUED]")).waitFor();
  await sleeps.getByTestId("cancel-in-session").click();
  await shows(page, /^\[CANCELLED\] Command terminated by web UI/);
  await sleeps.and(page.locator("[data-state=CANCELLED]")).waitFor();
  await shows(page, /^its turn$/);

  await first.getByTestId("jump").click();
  const { top, scrollback } = await picture(page);
  assert.match(String(scrollback[top]), /seq 3000/);
  assert.equal(scrollback[top + 1], "first 1");
  // Also where the terminal was not there when it began.
  await page.reload();
  await ready(page);
  await shows(page, /^its turn$/);
  await first.getByTestId("jump").click();
  const again = await picture(page);
  assert.equal(again.scrollback[again.top + 1], "first 1");

  // How a command went whose end a prompt has told, nobody knows.
  const { command: inner } = JSON.parse(await rest("/v1/commands", { body: { session: "beside", command: "bash --norc", wait: "20s" } }));
  assert.equal(inner.completion, "COMPLETION_PROMPT");
  const unknown = page.locator(`[data-testid=session-command][data-id="${inner.id}"]`);
  await unknown.getByTestId("exit-unknown").waitFor();
  await unknown.locator(".state.tone-off").waitFor();

  await first.getByRole("link", { name: "Details" }).click();
  await page.getByTestId("session-link").filter({ hasText: "beside" }).click();
  await page.waitForURL(`/sessions/${session.id}`);
  await ready(page);
  await page.goto("/hosts");
  await page.locator(`[data-host="${facts.host}"]`).getByTestId("host-terminal").click();
  await page.getByTestId("open-session-dialog").waitFor();
  assert.equal(await page.getByTestId("session-host").inputValue(), facts.host);
  await closeSession(session.id);
});

test("a session that has ended stays as it was, and takes no commands", async (t) => {
  const { page } = await visit(t);
  const session = await openSession({ name: "ends" });
  await attach(page, "ends");
  await type(page, "seq 200; echo the last line\n");
  await shows(page, /^the last line$/);
  const letters = () => page.evaluate(() => /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal")).terminal.options.fontSize);
  const before = await letters();
  const { rows } = await picture(page);
  await closeSession(session.id);
  await page.getByTestId("session-over").waitFor();
  await page.getByTestId("session-run-over").waitFor();
  assert.equal(await page.getByTestId("session-run").count(), 0);
  // What tells of the end takes room: rows are fewer then, and not the letters smaller.
  await page.waitForFunction((rows) => /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal")).terminal.rows < rows, rows);
  assert.equal(await letters(), before);
  const { lines, scrollback } = await picture(page);
  assert.ok(lines.some((line) => line === "the last line"), lines.join("\n"));
  assert.ok(scrollback.some((line) => line === "1"), "what was above is kept");
  const box = page.getByTestId("terminal");
  assert.ok(await box.evaluate((e) => e.scrollHeight <= e.clientHeight), "it does not scroll in its place");
});

test("an unknown session leads to those there are", async (t) => {
  const { page } = await visit(t, { excused: /status of 404/ });
  for (const path of ["/sessions/nowhere", "/sessions/nowhere/replay"]) {
    await page.goto(path);
    await page.getByRole("alert").getByRole("link", { name: "All terminals" }).click();
    await page.waitForURL("/sessions");
  }
});

test("the entries of a terminal's menu are alike", async (t) => {
  const { page } = await visit(t);
  const session = await openSession({ name: "menu" });
  for (const width of [1280, 400]) {
    await page.setViewportSize({ width, height: 800 });
    await attach(page, "menu");
    await page.getByTestId("session-menu").click();
    await page.getByTestId("replay-link").waitFor();
    const looks = await page.locator(".terminal-acts .menu").last().locator("> button, > .button").evaluateAll((all) =>
      all.map((e) => {
        const { fontSize, paddingLeft, height, justifyContent } = getComputedStyle(e);
        return [fontSize, paddingLeft, height, justifyContent, e.getBoundingClientRect().left].join(" ");
      }),
    );
    assert.ok(looks.length >= 4);
    assert.deepEqual(looks, looks.map(() => looks[0]));
  }
  await closeSession(session.id);
});

test("tabs: each goes on while another one is looked at", async (t) => {
  const { page } = await visit(t);
  const sessions = [await openSession({ name: "tab-a" }), await openSession({ name: "tab-b" })];
  await attach(page, "tab-a");
  await type(page, "echo in a\n");
  await shows(page, /^in a$/);
  await page.getByTestId("tab-menu").click();
  await page.getByRole("button", { name: /tab-b/ }).click();
  await page.waitForURL("/sessions/tab-b");
  await ready(page);
  await type(page, "echo in b\n");
  await shows(page, /^in b$/);
  await sendKeys("tab-a", [{ text: "echo unseen" }, { name: "Enter" }]);
  await page.getByTestId("tab").filter({ hasText: "tab-a" }).getByRole("link").click();
  await shows(page, /^unseen$/);
  await sameScreen(page, "tab-a");
  assert.equal((await getSession("tab-b")).viewers.length, 1);
  // By the keys.
  await page.keyboard.press("Shift+F6");
  assert.equal(await page.evaluate(() => document.activeElement?.classList.contains("terminal-foot")), true);
  await page.keyboard.press("]");
  await page.waitForURL("/sessions/tab-b");
  await shows(page, /^in b$/);
  await page.getByTestId("tab").filter({ hasText: "tab-b" }).getByTestId("close-tab").click();
  await page.waitForURL("/sessions/tab-a");
  for (;;) if (((await getSession("tab-b")).viewers ?? []).length === 0) break;
  assert.equal((await getSession("tab-b")).state, "SESSION_STATE_OPEN");
  for (const s of sessions) await closeSession(s.id);
});

test("who may only look sees all, and types nothing", async (t) => {
  const { page } = await visit(t, { as: "viewer" });
  const session = await openSession({ name: "looked-at" });
  await attach(page, "looked-at", { mayType: false });
  await page.locator("[data-testid=keyboard][data-owner=observer]").waitFor();
  await type(page, "echo from a viewer\n");
  await sendKeys("looked-at", [{ text: "echo to a viewer" }, { name: "Enter" }]);
  await shows(page, /^to a viewer$/);
  const { lines } = await sameScreen(page, "looked-at");
  assert.ok(!lines.some((line) => line.includes("from a viewer")));
  assert.equal(await page.getByTestId("session-line").isDisabled(), true);
  await closeSession(session.id);
});

test("a recording is played", async (t) => {
  const { page } = await visit(t);
  const session = await openSession({ name: "recorded" });
  await rest("/v1/commands", { body: { session: "recorded", command: "echo recorded one; printf '\\377\\n'", wait: "10s" } });
  await rest("/v1/commands", { body: { session: "recorded", command: "echo recorded two", wait: "10s" } });
  await closeSession(session.id);
  await page.goto("/sessions");
  await page.getByTestId("ended-row").filter({ hasText: "recorded" }).click();
  await page.waitForURL(`/sessions/${session.id}/replay`);
  await shows(page, /^recorded two$/); // by itself, to the end
  await page.getByRole("button", { name: "Play" }).waitFor();
  const end = await picture(page);
  await page.getByTestId("mark").filter({ hasText: "recorded one" }).click();
  await page.waitForFunction(() => {
    const { terminal: term } = /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal"));
    return !Array.from({ length: term.rows }, (_, y) => term.buffer.active.getLine(y)?.translateToString(true)).includes("recorded two");
  });
  await page.getByTestId("seek-bar").focus();
  await page.keyboard.press("End");
  await shows(page, /^recorded two$/);
  assert.deepEqual(await picture(page), end);
  // The page's keys are the player's, also behind a click into its terminal.
  await page.locator("[data-testid=terminal] .xterm-screen").click();
  await page.keyboard.press("Home");
  await page.getByRole("button", { name: "Play" }).waitFor();
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Pause" }).waitFor();
  await page.keyboard.press("End");
  await shows(page, /^recorded two$/);
  await page.getByTestId("skip-idle").uncheck();
  await page.getByTestId("speed-select").selectOption("16");
  await page.getByTestId("play-button").click();
  await shows(page, /^recorded two$/);
  // What has ended has its commands, too.
  await page.goto(`/sessions/${session.id}`);
  await page.getByTestId("session-over").waitFor();
  await page.getByTestId("session-command").filter({ hasText: "recorded one" }).waitFor();
});

test("what hosts and others say is text", async (t) => {
  const { page } = await visit(t, { as: "odd", excused: /status of 40[04]/ });
  const trick = `<img src=x onerror=canary=1>\u202e</style><script>canary=1</script>`;
  const session = await openSession({ name: "odd", labels: { note: trick } }, "odd");
  await attach(page, "odd");
  await type(page, `printf '\\033]0;%s\\007' '${trick.replaceAll("\u202e", "")}'; cat\n`); // a prompt may have a title of its own
  await page.locator(".terminal-where").getByText("canary=1").waitFor();
  await page.keyboard.press("Control+C");
  // A link that leads elsewhere than it says, and one that would run something.
  await type(page, `printf '\\033]8;;javascript:canary=1\\033\\\\click\\033]8;;\\033\\\\ javascript:canary=1 \\033]52;c;Y2FuYXJ5\\007\\n%s\\n' '<b>${trick.slice(0, 28)}'\n`);
  await shows(page, /^click javascript:canary=1/);
  const box = /** @type {{ x: number, y: number }} */ (await page.locator("[data-testid=terminal] .xterm-screen").boundingBox());
  const { lines } = await picture(page);
  const row = lines.findIndex((line) => line.startsWith("click"));
  for (const modifiers of /** @type {("Control")[][]} */ ([[], ["Control"]])) {
    for (const x of [10, 120]) {
      for (const m of modifiers) await page.keyboard.down(m);
      await page.mouse.click(box.x + x, box.y + 15 * row + 7);
      for (const m of modifiers) await page.keyboard.up(m);
    }
  }
  await rest("/v1/commands", { as: "odd", body: { session: "odd", command: `: '${trick.replaceAll("\u202e", "")}'`, wait: "10s", labels: { note: trick } } });
  await page.getByTestId("session-command").filter({ hasText: "canary=1" }).first().waitFor();
  for (const path of ["/sessions", `/sessions/${encodeURIComponent("<img src=x onerror=canary=1>")}`, `/sessions/${encodeURIComponent("%2e%2e/<x>")}/replay`, "/sessions/odd/replay"]) {
    await page.goto(path, { waitUntil: "domcontentloaded" });
    await settled(page).catch(() => undefined);
    const found = await page.evaluate(() => ({ canary: /** @type {any} */ (window).canary, made: document.querySelectorAll("main img, main script, main iframe, [onerror]").length }));
    assert.deepEqual(found, { canary: undefined, made: 0 }, path);
  }
  await closeSession(session.id);
});

test("without a WebSocket the page says so", async (t) => {
  const { page } = await visit(t, { excused: /WebSocket|status of 403/ });
  const session = await openSession({ name: "blocked" });
  await network("no-websockets");
  t.after(() => network("open"));
  await page.goto("/sessions/blocked");
  await page.locator("[data-testid=terminal-notice][data-state=reconnecting]").waitFor();
  await network("open");
  await ready(page);
  await closeSession(session.id);
});

test("all of it works by keyboard and for a screen reader", async (t) => {
  const { page } = await visit(t);
  const session = await openSession({ name: "reader" });
  await attach(page, "reader");
  await type(page, "echo read me\n");
  await shows(page, /^read me$/);
  await page.keyboard.press("Control+Shift+F");
  await page.getByTestId("terminal-search").fill("read");
  await page.waitForFunction(() => /** @type {any} */ (document.querySelector("[data-testid=terminal] .terminal")).terminal.getSelection() === "read");
  await page.keyboard.press("Escape");
  await page.getByTestId("session-menu").click();
  await page.getByTestId("screen-reader").check();
  await page.keyboard.press("Escape");
  // Behind the terminal, and before it, which keeps all keys but one.
  await page.locator("[data-testid=terminal] .xterm-helper-textarea").focus();
  await page.keyboard.press("Shift+F6");
  await page.keyboard.press("Shift+Tab");
  await page.locator("[data-testid=session-menu]:focus").waitFor();
  await page.locator(".xterm-accessibility").getByText("read me", { exact: true }).first().waitFor();
  const { violations } = await new AxeBuilder({ page }).setLegacyMode().analyze();
  assert.deepEqual(violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => [v.id, v.nodes.map((n) => n.target)]), []);
  await page.getByTestId("session-menu").click();
  await page.getByTestId("close-session").click();
  await page.keyboard.press("Escape");
  await page.locator("[data-testid=session-menu]:focus").waitFor();
  await page.getByTestId("session-menu").click();
  await page.getByTestId("close-session").click();
  await page.getByTestId("close-session-confirm").click();
  await page.getByTestId("session-over").waitFor();
  assert.equal((await getSession(session.id)).state, "SESSION_STATE_ENDED");
});

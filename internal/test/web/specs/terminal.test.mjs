// Commands on a terminal are shown by one.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, output, text } from "./service.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { waitForState } from "./ui.mjs";

after(leave);

test("a program draws", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({
    command: "printf '\\033[2J\\033[5;10Hin the middle\\033[24;1Hat the end\\033[1;1H\\033[32mgreen\\033[0m'; trap 'exit 0' USR1; sleep 600 & wait; exit 0",
    pty: { columns: 80, rows: 24 },
  });
  await open(page, id);
  const rows = page.locator(".xterm-rows > div");
  await rows.nth(4).filter({ hasText: /^\s{9}in the middle/ }).waitFor();
  await rows.nth(23).filter({ hasText: /^at the end/ }).waitFor();
  await rows.nth(0).filter({ hasText: /^green/ }).waitFor();
});

test("what is typed arrives", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({ command: "stty -echo; echo ready; exec cat", pty: {}, stdinOpen: true });
  await open(page, id);
  const terminal = page.locator(".xterm-rows");
  await terminal.getByText("ready").waitFor();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("typed by a person\n");
  await terminal.getByText("typed by a person").waitFor();
  await page.keyboard.press("Control+D");
  await waitForState(page, "COMPLETED");
  await ended(id);
  assert.equal(text(await output(id)), "ready\r\ntyped by a person\r\n");
});

test("a line for a command without a terminal", async (t) => {
  const { page } = await visit(t);
  const { id } = await execute({ command: "exec cat", stdinOpen: true });
  await open(page, id);
  await waitForState(page, "RUNNING");
  const input = page.getByTestId("stdin-input");
  await input.fill("a line");
  await input.press("Enter");
  await page.getByTestId("output").getByText("a line", { exact: true }).waitFor();
});

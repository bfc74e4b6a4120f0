// Where WebSockets do not get through, a page polls, and goes back when they do.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { allTicks, ended, execute, network, output, rest, rows, ticking } from "./service.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { cancel, readOutput, sameRows, waitForConnection, waitForState } from "./ui.mjs";

after(leave);

/** What the browser says about a WebSocket that is refused. */
const excused = /WebSocket/;

test("blocked, and let through again", { timeout: 120_000 }, async (t) => {
  await network("no-websockets");
  t.after(() => network("open"));
  const { page } = await visit(t, { excused });
  const { id } = await execute({ command: ticking(0.05) });
  await open(page, id);
  await waitForConnection(page, "polling");
  await page.getByTestId("connection-banner").getByText("WebSocket is blocked").waitFor();
  // It goes on by itself.
  for (let size = 0, i = 0; i < 3; i++) {
    const more = await page.waitForFunction((n) => {
      const total = Number(document.querySelector("[data-testid=output]")?.getAttribute("data-total"));
      return total > n && total;
    }, size);
    size = Number(await more.jsonValue());
  }
  await network("open");
  await page.locator("[data-testid=connection-banner][data-state=live]").waitFor({ state: "attached", timeout: 60_000 });
  await rest(`/v1/commands/${id}:signal`, { body: { signal: "USR1" } });
  await ended(id);
  await waitForState(page, "COMPLETED");
  const chunks = await output(id);
  allTicks(chunks);
  sameRows(await readOutput(page), rows(chunks));
});

test("blocked from beginning to end", async (t) => {
  await network("no-websockets");
  t.after(() => network("open"));
  const { page } = await visit(t, { excused });
  const { id } = await execute({ command: "for i in $(seq 500); do echo out $i; echo err $i >&2; done; sleep 0.5; echo printed; exec sleep 600" });
  await open(page, id);
  await waitForState(page, "RUNNING");
  await page.getByTestId("output").getByText("printed", { exact: true }).waitFor();
  await cancel(page);
  assert.equal((await page.getByTestId("cancelled-line").innerText()).trim(), "[CANCELLED] Command terminated by web");
  const expected = rows(await output(id));
  assert.equal(expected.length, 1001);
  sameRows(await readOutput(page), expected);
});

// Several tabs show the same bytes in the same order, also where one is reloaded in the
// middle.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, output, rest, rows } from "./service.mjs";
import { leave, open, visit } from "./visitor.mjs";
import { readOutput, sameRows, waitForState } from "./ui.mjs";

after(leave);

test("three tabs", async (t) => {
  const { context, page: first } = await visit(t);
  const second = await context.newPage();
  const third = await context.newPage();
  // It stops in the middle until it is told to go on.
  const { id } = await execute({
    command: `trap 'on=yes' USR1; for i in $(seq 1000); do
      printf '\\033[3%dmout %04d\\033[0m \\303\\246\\303\\270\\303\\245 \\342\\234\\223 \\360\\237\\232\\200 unbroken\\n' $((i%8)) $i
      printf 'err %04d\\n' $i >&2
      [ $i = 500 ] && { sleep 0.5; echo middle; until [ "$on" ]; do sleep 0.05; done; }
      [ $((i%50)) = 0 ] && sleep 0.1
    done; printf 'no end of line'`,
  });
  await Promise.all([open(first, id), open(second, id)]);
  await second.getByTestId("output").getByText("middle", { exact: true }).waitFor();
  await rest(`/v1/commands/${id}:signal`, { body: { signal: "USR1" } });
  await second.reload();
  await ended(id);
  await open(third, id);
  const expected = rows(await output(id));
  assert.ok(expected.length >= 2002, `${expected.length} rows`);
  for (const [name, page] of Object.entries({ first, second, third })) {
    await waitForState(page, "COMPLETED");
    sameRows(await readOutput(page), expected, `${name} tab`);
  }
});

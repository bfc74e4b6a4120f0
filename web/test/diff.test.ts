import assert from "node:assert/strict";
import { test } from "node:test";
import { changesOf } from "../src/diff.ts";

const shown = (before: string, after: string): string =>
  changesOf(before, after).map((c) => (c.kind === "same" ? c.text : c.kind === "gone" ? `[-${c.text}-]` : `[+${c.text}+]`)).join("");

test("what an edit changes", () => {
  assert.equal(shown("a b", "a b"), "a b");
  assert.equal(shown("echo switched; echo restarted", "echo switched"), "echo switched[-; echo restarted-]");
  assert.equal(shown("systemctl restart shop && echo restarted", "systemctl reload shop && echo reloaded"), "systemctl [-restart-][+reload+] shop && echo [-restarted-][+reloaded+]");
  assert.equal(shown("rm -rf /srv/old", "rm -rf /srv/older"), "rm -rf [-/srv/old-][+/srv/older+]");
  assert.equal(shown("", "new"), "[+new+]");
  assert.equal(shown("a\nb\nc", "a\nc"), "a\n[-b\n-]c");
});

test("whatever the edit is, both texts are in it", () => {
  const random = (() => {
    let n = 7;
    return (below: number): number => (n = (n * 16_807) % 2_147_483_647) % below;
  })();
  const text = (length: number): string => Array.from({ length }, () => ["a", "b", " ", ";", "\n", "$x"][random(6)]).join("");
  for (let i = 0; i < 300; i++) {
    const [before, after] = [text(random(30)), text(i === 0 ? 5_000 : random(30))];
    const changes = changesOf(before, after);
    const without = (kind: string): string => changes.filter((c) => c.kind !== kind).map((c) => c.text).join("");
    assert.deepEqual([without("new"), without("gone")], [before, after]);
    assert.ok(changes.every((c) => c.text !== ""));
  }
});

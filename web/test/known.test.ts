import assert from "node:assert/strict";
import { test } from "node:test";
import { Known } from "../src/known.ts";

interface Small {
  id: string;
  version: bigint;
  state: number;
}

const command = (id: number, version = 1, state = 9): Small => ({ id: String(id).padStart(4, "0"), version: BigInt(version), state });
const known = (): Known<Small> => new Known<Small>((c) => c.state >= 5, 10);

test("the latest version wins, whichever answer is slower", () => {
  const k = known();
  k.learn(command(1, 3, 9));
  assert.equal(k.learn(command(1, 2, 4)).version, 3n);
  k.settle();
  assert.equal(k.active.length, 0);
  assert.deepEqual(k.ended, [command(1, 3, 9)]);
});

test("what has ended is forgotten, oldest news first; what has not, and what is shown, never", () => {
  const k = known();
  const release = k.hold("0000");
  k.learn(command(0));
  k.learn(command(1, 1, 4));
  for (let id = 2; id < 100; id++) k.learn(command(id));
  k.settle();
  assert.equal(k.ended.length, 10);
  assert.notEqual(k.get("0000"), undefined);
  assert.deepEqual(k.active.map((c) => c.id), ["0001"]);
  assert.equal(k.get("0050"), undefined);
  assert.deepEqual(k.ended.map((c) => c.id), ["0099", "0098", "0097", "0096", "0095", "0094", "0093", "0092", "0091", "0000"]);
  release();
  release();
  for (let id = 100; id < 120; id++) k.learn(command(id));
  k.settle();
  assert.equal(k.get("0000"), undefined);
});

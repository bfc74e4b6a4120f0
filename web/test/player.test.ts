import assert from "node:assert/strict";
import { test } from "node:test";
import type { Frame } from "../src/terminal/cast.ts";
import { IDLE, Player, type Stage } from "../src/terminal/player.ts";

/** A stage that keeps what it shows. */
class Shown implements Stage {
  text = "";
  size = "";
  resets = 0;
  writes = 0;
  reset(columns: number, rows: number): void {
    this.text = "";
    this.size = `${columns}x${rows}`;
    this.resets++;
  }
  resize(columns: number, rows: number): void {
    this.size = `${columns}x${rows}`;
    this.text += "|"; // where it was
  }
  async write(data: string | Uint8Array): Promise<void> {
    await Promise.resolve();
    this.writes++;
    this.text += typeof data === "string" ? data : new TextDecoder("latin1").decode(data);
  }
}

const out = (at: number, data: string | Uint8Array): Frame => ({ at, kind: "output", data });
const frames: Frame[] = [out(0.5, "a"), out(1, "b"), { at: 2, kind: "size", columns: 100, rows: 30 }, out(2, "c"), out(2.5, Uint8Array.of(0x64)), out(60, "e"), out(61, "f")];
const cast = { frames, duration: 61, columns: 80, rows: 24 };

function make(): { player: Player; shown: Shown; told: () => number } {
  const shown = new Shown();
  let told = 0;
  const player = new Player(cast, shown, () => told++);
  return { player, shown, told: () => told };
}

test("a moment shows all that came before it, wherever one was", async () => {
  const { player, shown } = make();
  const at = new Map([[0, ""], [0.5, "a"], [1.9, "ab"], [2, "ab|c"], [3, "ab|cd"], [61, "ab|cdef"], [1000, "ab|cdef"]]);
  // In all orders of two.
  for (const [from] of at) {
    for (const [to, text] of at) {
      await player.seek(from);
      await player.seek(to);
      assert.equal(shown.text, text, `from ${from} to ${to}`);
      assert.equal(shown.size, to < 2 ? "80x24" : "100x30");
    }
  }
});

test("who seeks to and fro at once sees the last", async () => {
  const { player, shown } = make();
  await Promise.all([61, 0, 2, 61, 1, 60.5].map((to) => player.seek(to)));
  assert.equal(shown.text, "ab|cde");
  assert.equal(player.position, 60.5);
});

test("time passes as fast as is wished", async () => {
  for (const speed of [0.5, 1, 4]) {
    const { player, shown } = make();
    player.speed = speed;
    player.skipIdle = false;
    player.play();
    await player.advance(1000 / speed);
    assert.deepEqual([player.position, shown.text], [1, "ab"], `speed ${speed}`);
    player.pause();
    await player.advance(5000);
    assert.equal(player.position, 1);
  }
});

test("nothing is waited for longer than wished", async () => {
  const { player, shown } = make();
  player.play();
  await player.seek(3);
  let waited = 0;
  while (!shown.text.endsWith("e")) {
    await player.advance(50);
    waited += 50;
    assert.ok(waited < 5000, "it waits for ever");
  }
  assert.ok(waited <= IDLE * 1000 + 100, `${waited} ms`);
  player.skipIdle = false;
  await player.seek(3);
  await player.advance(10_000);
  assert.equal(player.position, 13);
});

test("it stops at its end, and begins anew from there", async () => {
  const { player, shown, told } = make();
  player.play();
  await player.seek(60.9);
  await player.advance(500);
  assert.deepEqual([player.playing, player.position, shown.text], [false, 61, "ab|cdef"]);
  const before = told();
  player.play();
  await player.advance(0);
  assert.deepEqual([player.playing, player.position, shown.text], [true, 0, ""]);
  assert.ok(told() > before);
  player.dispose();
  await player.advance(5000);
  assert.equal(player.position, 0);
});

test("much is written in parts, and only in as many as needed", async () => {
  const shown = new Shown();
  const many: Frame[] = Array.from({ length: 10_000 }, (_, i) => out(i / 1000, "0123456789".repeat(10)));
  const player = new Player({ frames: many, duration: 10, columns: 80, rows: 24 }, shown, () => undefined);
  await player.seek(10);
  assert.equal(shown.text.length, 1_000_000);
  assert.ok(shown.writes >= 7 && shown.writes <= 9, `${shown.writes} writes`);
});

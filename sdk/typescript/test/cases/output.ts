// Following output: the bytes, whatever happens on the way.

import { CommandState, TelexecError, durationFromMs, hasEnded, type OutputChunkEvent } from "@telexec/client";
import type { ConnectionEvent, OutputEvent, Telexec } from "@telexec/client";
import { equal, ok, rejected, sha256, text, until, withClient, type Case, type Surroundings } from "../surroundings.js";

/** begin starts a command and does not wait. */
export async function begin(c: Telexec, s: Surroundings, command: string): Promise<string> {
  const r = await c.execute({ host: s.host, command, wait: durationFromMs(0), output: { omit: true } });
  return r.command!.id;
}

/** A line of 100 bytes, n times over, numbered: what is missing or there twice shows. */
const numbered = (n: number): string => `awk 'BEGIN { for (i = 0; i < ${n}; i++) printf "%099d\\n", i }'`;

async function numberedSum(n: number): Promise<string> {
  const parts: Uint8Array[] = [];
  const encoder = new TextEncoder();
  for (let i = 0; i < n; i += 1000) {
    let block = "";
    for (let k = i; k < Math.min(i + 1000, n); k++) block += `${String(k).padStart(99, "0")}\n`;
    parts.push(encoder.encode(block));
  }
  return sha256(parts);
}

/** Collected checks that a stream's events are as promised, and keeps its bytes. */
class Collected {
  readonly parts: Uint8Array[] = [];
  readonly next = { stdout: 0, stderr: 0 };
  readonly kinds: string[] = [];

  add(event: OutputEvent | ConnectionEvent): void {
    this.kinds.push(event.type);
    if (event.type !== "chunk") return;
    equal(event.offset, this.next[event.stream], `offset of ${event.stream}`);
    this.next[event.stream] += event.data.length;
    this.parts.push(event.data.slice());
  }
}

async function collect(events: AsyncIterable<OutputEvent | ConnectionEvent>): Promise<Collected> {
  const all = new Collected();
  for await (const event of events) all.add(event);
  return all;
}

export const output: Case[] = [
  {
    name: "run gives output and end",
    run: (s) =>
      withClient(s, async (c) => {
        const seen: string[] = [];
        const r = await c.run(
          { host: s.host, command: "echo a; sleep 0.4; echo b >&2; sleep 0.4; echo c; exit 7" },
          { onOutput: (chunk) => seen.push(`${chunk.stream}@${chunk.offset}/${chunk.position}:${text(chunk.data)}`) },
        );
        equal([r.command.exitCode, text(r.stdout), text(r.stderr), r.truncated], [7, "a\nc\n", "b\n", false], "result");
        equal(seen, ["stdout@0/0:a\n", "stderr@0/2:b\n", "stdout@2/4:c\n"], "in the order in which it came");
        const some = await c.run({ host: s.host, command: "echo 123456789" }, { keepBytes: 4 });
        equal([text(some.stdout), some.truncated], ["1234", true], "kept");
        equal(c.connection.state === "idle" || c.connection.state === "live" || c.connection.state === "polling", true, "connection");
      }),
  },
  {
    name: "a stream tells all that happens, and ends",
    run: (s) =>
      withClient(s, async (c) => {
        const id = await begin(c, s, "echo one; sleep 0.2; echo two >&2");
        const all = await collect(c.stream(id));
        const kinds = all.kinds.filter((k) => k !== "connection");
        equal([kinds[0], kinds.at(-2), kinds.at(-1)], ["command", "complete", "ended"], "events");
        // Again, from its middle and of one stream.
        const err: string[] = [];
        for await (const event of c.stream(id, { stderrOffset: 1, streams: ["stderr"] })) if (event.type === "chunk") err.push(`${event.offset}:${text(event.data)}`);
        equal(err, ["1:wo\n"], "stderr from 1");
        const from: string[] = [];
        for await (const event of c.stream(id, { position: 6 })) if (event.type === "chunk") from.push(`${event.position}:${text(event.data)}`);
        equal(from.join(""), "6:o\n", "from position 6");
      }),
  },
  {
    name: "pages of any size have all output once, in its order",
    run: (s) =>
      withClient(s, async (c) => {
        const seen: string[] = [];
        const r = await c.run(
          { host: s.host, command: "for i in 1 2 3 4 5; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done" },
          { onOutput: (chunk) => seen.push(text(chunk.data)) },
        );
        let whole: string | undefined;
        for (const limitBytes of [1, 7, 1000]) {
          let merged = "";
          let position = 0;
          for (;;) {
            const page = await c.page(r.command.id, { position, limitBytes });
            for (const chunk of page.chunks) merged += text(chunk.data);
            equal(page.command.state, CommandState.COMPLETED, "the command");
            if (page.next === position) break;
            position = page.next;
          }
          whole ??= merged;
          equal(merged, whole, `pages of ${limitBytes}`);
        }
        const live = seen.join("");
        equal(whole, live, "as it came");
        for (const name of ["out", "err"]) {
          equal(live.split("\n").filter((line) => line.startsWith(name)), [1, 2, 3, 4, 5].map((i) => name + i), name);
        }
      }),
  },
  {
    name: "a command that there is not ends the stream",
    run: (s) =>
      withClient(s, async (c) => {
        const e = await rejected(collect(c.stream("01J8Z3K4M5N6P7Q8R9S0T1V2W4")));
        ok(e instanceof TelexecError && e.code === "NOT_FOUND" && e.reason === "UNKNOWN_COMMAND", String(e));
        const odd = await rejected(collect(c.stream("x")));
        ok(odd instanceof TelexecError && odd.code === "INVALID_ARGUMENT", String(odd));
      }),
  },
  {
    name: "a token that is not good ends the stream",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const e = await rejected(collect(c.stream("01J8Z3K4M5N6P7Q8R9S0T1V2W4")));
          ok(e instanceof TelexecError && e.code === "UNAUTHENTICATED", String(e));
        },
        { token: "wrong" },
      ),
  },
  {
    name: "leaving the loop ends following, and not the command",
    run: (s) =>
      withClient(s, async (c) => {
        const id = await begin(c, s, "echo up; sleep 1; echo done");
        for await (const event of c.stream(id)) if (event.type === "chunk") break;
        await until(() => c.connection.state === "idle");
        const own = new AbortController();
        const reason = new Error("enough");
        const e = await rejected(
          (async () => {
            for await (const event of c.stream(id, { signal: own.signal })) if (event.type === "chunk") own.abort(reason);
          })(),
        );
        ok(e === reason, String(e));
        // A pull that waits is given up, too.
        const waiting = c.stream(id);
        await waiting.next();
        const never = (async () => {
          while (!(await waiting.next()).done);
        })();
        await waiting.return?.();
        await never;
        const all = await collect(c.stream(id));
        equal([all.next.stdout, hasEnded((await c.get(id)).command!.state)], [8, true], "the command went on");
      }),
  },
  {
    name: "many streams share one client",
    run: (s) =>
      withClient(s, async (c) => {
        await s.faults.delay(30);
        const results = await Promise.all(Array.from({ length: 8 }, (_, i) => c.run({ host: s.host, command: `echo ${i}; sleep 0.2; seq ${i}00` })));
        results.forEach((r, i) => ok(text(r.stdout).startsWith(`${i}\n`), `command ${i} got ${text(r.stdout).slice(0, 20)}`));
      }),
  },
  {
    name: "more streams than a socket takes",
    run: (s) =>
      withClient(s, async (c) => {
        const id = await begin(c, s, "echo up; sleep 600");
        let reading = 0;
        const all = Array.from({ length: 100 }, async () => {
          const seen = new Collected();
          for await (const event of c.stream(id)) {
            seen.add(event);
            if (event.type === "chunk") reading++;
          }
          return seen;
        });
        await until(() => reading === 100);
        await c.cancel(id);
        for (const { next, kinds } of await Promise.all(all)) equal([next.stdout, kinds.at(-1)], [3, "ended"], "stream");
      }),
  },
  {
    name: "what a command prints before it waits comes at once",
    run: (s) =>
      withClient(s, async (c) => {
        const id = await begin(c, s, "sleep 0.5; echo up; sleep 600");
        const began = Date.now();
        for await (const event of c.stream(id)) if (event.type === "chunk") break;
        ok(Date.now() - began < 10_000, `after ${Date.now() - began} ms`);
        await c.cancel(id);
      }),
  },
  {
    name: "much output comes byte-exact through 20 cuts",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          // 50 MB; where each byte costs more, 20.
          const lines = s.transport === "polling" || "document" in globalThis ? 200_000 : 500_000;
          const id = await begin(c, s, numbered(lines));
          const all = new Collected();
          let cuts = 0;
          let nextCut = 2 * lines;
          for await (const event of c.stream(id)) {
            all.add(event);
            if (cuts < 20 && all.next.stdout >= nextCut) {
              await s.faults.cut();
              cuts++;
              nextCut = all.next.stdout + Math.random() * 6 * lines;
            }
          }
          equal([cuts, all.next.stdout], [20, lines * 100], "cuts and bytes");
          equal(await sha256(all.parts), await numberedSum(lines), "SHA-256");
          ok(all.kinds.includes("connection"), "nobody was told of the losses");
        },
        { backoff: { firstMs: 20, maxMs: 200 } },
      ),
  },
  {
    name: "cuts at random times do not show in what a stream tells",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const id = await begin(c, s, `for i in $(seq 60); do echo out$i; echo err$i >&2; sleep 0.05; done; exit 5`);
          let over = false;
          const cutting = (async () => {
            while (!over) {
              await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 300));
              await s.faults.cut();
            }
          })();
          const out = { stdout: "", stderr: "" };
          let end: number | undefined;
          const all = new Collected();
          for await (const event of c.stream(id)) {
            all.add(event);
            if (event.type === "chunk") out[event.stream] += text(event.data);
            if (event.type === "ended") end = event.command.exitCode;
          }
          over = true;
          await cutting;
          const want = (name: string): string => Array.from({ length: 60 }, (_, i) => `${name}${i + 1}\n`).join("");
          equal([out.stdout, out.stderr, end], [want("out"), want("err"), 5], "all of it");
          equal(all.kinds.filter((k) => k === "ended" || k === "complete").length, 2, "one end");
        },
        { backoff: { firstMs: 10, maxMs: 100 } },
      ),
  },
  {
    name: "a way that swallows everything is noticed",
    over: "websocket",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const id = await begin(c, s, "echo up; sleep 4; echo down");
          const all = new Collected();
          for await (const event of c.stream(id, { heartbeat: 1_000 })) {
            all.add(event);
            if (event.type === "chunk" && all.next.stdout === 3) await s.faults.hang(true);
            if (event.type === "connection" && event.connection.state === "reconnecting") await s.faults.hang(false);
          }
          equal(all.next.stdout, 8, "bytes");
          ok(all.kinds.includes("connection"), "the loss was not noticed");
        },
        { backoff: { firstMs: 50, maxMs: 500 } },
      ),
  },
  {
    name: "a restart of the service in the middle",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          const id = await begin(c, s, "for i in $(seq 50); do echo line$i; sleep 0.1; done");
          const all = new Collected();
          let did = 0;
          for await (const event of c.stream(id)) {
            all.add(event);
            if (did === 0 && all.next.stdout > 50) {
              did = 1;
              await s.service.restart();
            } else if (did === 1 && all.next.stdout > 130) {
              did = 2;
              await s.service.kill();
            }
          }
          const want = Array.from({ length: 50 }, (_, i) => `line${i + 1}\n`).join("");
          equal([did, all.parts.map(text).join("")], [2, want], "output");
        },
        { backoff: { firstMs: 50, maxMs: 500 } },
      ),
  },
  {
    name: "a consumer that does not pull stops the reading, and nobody else's",
    run: (s) =>
      withClient(s, async (c) => {
        const lines = 150_000;
        const big = await begin(c, s, numbered(lines));
        const lazy = c.stream(big);
        const all = new Collected();
        while (all.next.stdout === 0) all.add((await lazy.next()).value as OutputChunkEvent);
        const before = await s.faults.received();
        const other = await c.run({ host: s.host, command: "sleep 1; seq 1000" });
        equal(other.stdout.length, 3893, "the other stream");
        const read = (await s.faults.received()) - before;
        ok(read < 6 << 20, `${read} bytes came for somebody who does not pull`);
        for (;;) {
          const { done, value } = await lazy.next();
          if (done) break;
          all.add(value);
        }
        equal(await sha256(all.parts), await numberedSum(lines), "SHA-256");
      }),
  },
  {
    name: "where WebSockets are refused it polls, and comes back",
    over: "websocket",
    run: (s) =>
      withClient(
        s,
        async (c) => {
          await s.faults.refuseUpgrades(true);
          const states: string[] = [];
          const stop = c.onConnection((state) => states.push(state.state));
          const id = await begin(c, s, "for i in $(seq 30); do echo line$i; sleep 0.1; done");
          const all = new Collected();
          for await (const event of c.stream(id)) {
            all.add(event);
            if (event.type === "chunk" && c.connection.state === "polling" && all.next.stdout > 20) {
              await s.faults.refuseUpgrades(false);
              c.retryNow();
            }
          }
          stop();
          equal(all.parts.map(text).join(""), Array.from({ length: 30 }, (_, i) => `line${i + 1}\n`).join(""), "output");
          ok(states.includes("polling") && states.lastIndexOf("live") > states.indexOf("polling"), states.join(" "));
        },
        { transport: "auto", backoff: { firstMs: 20, maxMs: 100 } },
      ),
  },
];

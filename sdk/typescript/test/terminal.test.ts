// The terminal of a session, where the service does what a real one does rarely or not on demand.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { create, fromBinary, toBinary, toJson, type MessageInitShape } from "@bufbuild/protobuf";
import {
  AttachRequestSchema, AttachResponseSchema, GetSessionResponseSchema, KeyboardAction, SessionState, Telexec, TelexecError, ViewerRole, timestampFromMs,
} from "@telexec/client";
import type { AttachOptions, AttachRequest, ConnectionEvent, SessionTerminal, TelexecOptions, TerminalEvent, WebSocketLike } from "@telexec/client";

type Asked = AttachRequest["request"];
type ValueOf<C extends string> = Extract<Asked, { case: C }> extends { value: infer V } ? V : never;
type Said = NonNullable<MessageInitShape<typeof AttachResponseSchema>["response"]>;

/** A socket whose other end is the test. */
class Socket implements WebSocketLike {
  binaryType = "";
  onopen: ((event: never) => unknown) | null = null;
  onmessage: ((event: never) => unknown) | null = null;
  onclose: ((event: never) => unknown) | null = null;
  onerror: ((event: never) => unknown) | null = null;
  readonly asked: AttachRequest[] = [];
  closed = false;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {}
  send(data: Uint8Array<ArrayBuffer>): void {
    this.asked.push(fromBinary(AttachRequestSchema, data));
  }
  close(): void {
    this.closed = true;
  }
  open(): void {
    this.onopen?.({} as never);
  }
  lose(): void {
    this.onclose?.({ code: 1006, reason: "" } as never);
  }
  say(...all: Said[]): void {
    for (const response of all) {
      const bytes = toBinary(AttachResponseSchema, create(AttachResponseSchema, { time: timestampFromMs(0), response }));
      this.onmessage?.({ data: new Uint8Array(bytes).buffer } as never);
    }
  }
  /** The first request of a kind, and all of them. */
  first<C extends NonNullable<Asked["case"]>>(kind: C): ValueOf<C> | undefined {
    return this.all(kind)[0];
  }
  all<C extends NonNullable<Asked["case"]>>(kind: C): ValueOf<C>[] {
    return this.asked.flatMap((r) => (r.request.case === kind ? [r.request.value as ValueOf<C>] : []));
  }
}

const session = { name: "build", id: "01ARZ3NDEKTSV4RRFFQ69G5FAV", version: 1n, state: SessionState.OPEN, host: "web1", columns: 80, rows: 24 };
const attached = (resumed: boolean, offset: number): Said => ({ case: "attached", value: { viewer: "v1", role: ViewerRole.WRITER, session, resumed, offset: BigInt(offset) } });
const screen = (offset: number, text: string, continued = false): Said => ({
  case: "screen",
  value: { offset: BigInt(offset), data: new TextEncoder().encode(text), columns: 80, rows: 24, commands: [], continued },
});
const output = (offset: number, text: string): Said => ({ case: "output", value: { offset: BigInt(offset), data: new TextEncoder().encode(text) } });

async function withTerminal(
  o: AttachOptions & { answer?: () => Response; client?: TelexecOptions },
  use: (t: SessionTerminal, made: Socket[], c: Telexec) => Promise<void>,
): Promise<void> {
  const made: Socket[] = [];
  const { answer = () => json(session), client: more, ...options } = o;
  const client = new Telexec({
    baseUrl: "http://service",
    token: "t",
    backoff: { firstMs: 1, maxMs: 1 },
    retryForMs: 0,
    WebSocket: class extends Socket {
      constructor(url: string, protocols: string[] = []) {
        super(url, protocols);
        made.push(this);
      }
    },
    fetch: async (_, init) => {
      init?.signal?.throwIfAborted();
      return answer();
    },
    ...more,
  });
  try {
    await use(client.attach("build", options), made, client);
  } finally {
    client.close();
  }
}

const json = (s: MessageInitShape<typeof GetSessionResponseSchema>["session"]): Response =>
  Response.json(toJson(GetSessionResponseSchema, create(GetSessionResponseSchema, s === undefined ? {} : { session: s })));

/** Waits until a condition holds. */
async function until<T>(what: () => T | undefined | false): Promise<T> {
  for (let i = 0; i < 2000; i++) {
    const got = what();
    if (got !== undefined && got !== false) return got;
    await pause(2);
  }
  return assert.fail(`waited in vain for ${what.toString()}`);
}

const socket = (made: Socket[], n: number): Promise<Socket> => until(() => made[n]);

/** What an event is, in short. */
function short(e: TerminalEvent | ConnectionEvent): string {
  switch (e.type) {
    case "output":
      return `${e.offset}:${new TextDecoder().decode(e.data)}`;
    case "screen":
      return `${e.continued ? "more" : "screen"} ${e.offset}:${new TextDecoder().decode(e.data)}`;
    case "attached":
      return `attached ${e.resumed ? "again" : "anew"} ${e.offset}`;
    case "connection":
      return e.connection.state;
    default:
      return e.type;
  }
}

/** Pulls all that comes. */
function pull(t: SessionTerminal): { seen: string[]; over: Promise<unknown> } {
  const seen: string[] = [];
  const over = (async () => {
    try {
      for await (const e of t) seen.push(short(e));
      return undefined;
    } catch (e) {
      return e;
    }
  })();
  return { seen, over };
}

describe("a terminal", () => {
  it("attaches with the first pull, over a socket of its own", () =>
    withTerminal({ role: "writer", size: { columns: 100, rows: 30 }, label: "Firefox", scrollback: 50 }, async (t, made) => {
      assert.equal(made.length, 0);
      assert.equal(t.input("too early"), false);
      const { seen, over } = pull(t);
      const s = await socket(made, 0);
      assert.equal(s.url, "ws://service/v1/sessions/build/terminal");
      assert.deepEqual(s.protocols, ["telexec.v1.proto", "telexec.bearer.dA"]);
      s.open();
      const start = s.first("start");
      assert.deepEqual(
        [start?.session, start?.role, start?.size?.columns, start?.size?.rows, start?.label, start?.scrollbackLines, start?.windowBytes, start?.fromOffset],
        ["", ViewerRole.WRITER, 100, 30, "Firefox", 50, 256 << 10, undefined],
      );
      s.say(attached(false, 10), screen(10, "$ "), screen(10, "…", true), output(10, "ls\r\n"), { case: "session", value: session }, { case: "heartbeat", value: {} });
      await until(() => seen.length === 5);
      assert.deepEqual(seen, ["attached anew 10", "screen 10:$ ", "more 10:…", "10:ls\r\n", "session"]);
      assert.deepEqual([t.viewer, t.connection.state], ["v1", "live"]);
      assert.ok(t.input("æ") && t.input(Uint8Array.of(3)) && t.take() && t.handOver("v2") && t.release());
      t.resize({ columns: 90, rows: 20 });
      assert.deepEqual(s.all("input").map((d) => [...d]), [[0xc3, 0xa6], [3]]);
      assert.deepEqual(s.all("keyboard").map((k) => [k.action, k.viewer]), [[KeyboardAction.TAKE, ""], [KeyboardAction.HAND_OVER, "v2"], [KeyboardAction.RELEASE, ""]]);
      assert.equal(s.first("resize")?.columns, 90);
      s.say({ case: "ended", value: { ...session, state: SessionState.ENDED } });
      assert.equal(await over, undefined);
      assert.equal(seen.at(-1), "ended");
      assert.ok(s.closed);
      assert.equal(t.input("too late"), false);
    }));

  it("begins anew where it was lost within a screen", () =>
    withTerminal({}, async (t, made) => {
      const { seen } = pull(t);
      const first = await socket(made, 0);
      first.open();
      first.say(attached(false, 7), screen(7, "half"));
      await until(() => seen.includes("screen 7:half"));
      first.lose();
      const second = await socket(made, 1);
      second.open();
      assert.equal(second.first("start")?.fromOffset, undefined);
      second.say(attached(false, 9), screen(9, "all"), { case: "heartbeat", value: {} });
      await until(() => seen.includes("screen 9:all"));
      second.lose();
      const third = await socket(made, 2);
      third.open();
      assert.equal(third.first("start")?.fromOffset, 9n);
    }));

  it("takes a screen for whole when output or the like follows, and not for what may come between two pieces", () =>
    withTerminal({}, async (t, made) => {
      const { seen } = pull(t);
      const between = [
        { case: "refused", value: { reason: "KEYBOARD_TAKEN" } },
        { case: "command", value: { offset: 7n, command: { id: "01ARZ3NDEKTSV4RRFFQ69G5FAV" } } },
      ] as const;
      for (const [i, said] of between.entries()) {
        const s = await socket(made, i);
        s.open();
        s.say(attached(false, 7), screen(7, "half"), said);
        await until(() => seen.includes(said.case));
        s.lose();
        const next = await socket(made, i + 1);
        next.open();
        assert.equal(next.first("start")?.fromOffset, undefined, said.case);
      }
      const last = await socket(made, between.length);
      last.say(attached(false, 7), screen(7, "half"), ...between, screen(7, "rest", true), { case: "typed", value: { viewer: "v2" } });
      await until(() => seen.includes("typed"));
      last.lose();
      const next = await socket(made, between.length + 1);
      next.open();
      assert.equal(next.first("start")?.fromOffset, 7n);
    }));

  it("goes on at the exact byte behind a loss, with the size it has by then", () =>
    withTerminal({ size: { columns: 80, rows: 24 } }, async (t, made) => {
      const { seen } = pull(t);
      const first = await socket(made, 0);
      first.open();
      first.say(attached(false, 0), screen(0, ""), output(0, "abc"));
      await until(() => seen.includes("0:abc"));
      first.lose();
      assert.equal(t.input("lost"), false);
      t.resize({ columns: 120, rows: 40 });
      const second = await socket(made, 1);
      second.open();
      assert.deepEqual([second.first("start")?.fromOffset, second.first("start")?.size?.columns], [3n, 120]);
      second.say(attached(true, 3), output(1, "bcde"), output(3, "de"));
      await until(() => seen.includes("3:de"));
      second.lose();
      const third = await socket(made, 2);
      third.open();
      assert.equal(third.first("start")?.fromOffset, 5n);
      // It has fallen out of what the session keeps.
      third.say(attached(false, 3_000_000), screen(3_000_000, "anew"), output(3_000_000, "!"));
      await until(() => seen.includes("3000000:!"));
      // How often it is tried is told too.
      assert.deepEqual(seen.filter((e, i) => e !== "reconnecting" || seen[i - 1] !== e), [
        "attached anew 0", "screen 0:", "0:abc", "reconnecting", "live", "attached again 3", "3:de",
        "reconnecting", "live", "attached anew 3000000", "screen 3000000:anew", "3000000:!",
      ]);
    }));

  it("does not take a gap for output", () =>
    withTerminal({}, async (t, made) => {
      const { seen } = pull(t);
      const first = await socket(made, 0);
      first.open();
      first.say(attached(false, 0), output(0, "abc"), output(5, "fgh"));
      const second = await socket(made, 1);
      second.open();
      assert.equal(second.first("start")?.fromOffset, 3n);
      assert.ok(!seen.includes("5:fgh"));
    }));

  it("acknowledges what was taken, and not what waits", () =>
    withTerminal({ windowBytes: 64 << 10 }, async (t, made) => {
      const part = "x".repeat(8 << 10);
      const pulled = t.next();
      const s = await socket(made, 0);
      s.open();
      s.say(attached(false, 0), screen(0, "$ "));
      for (let i = 0; i < 8; i++) s.say(output(i * part.length, part));
      assert.equal((await pulled).value?.type, "attached");
      assert.deepEqual(s.all("acknowledged"), []);
      await t.next(); // the screen
      assert.deepEqual(s.all("acknowledged"), []);
      await t.next(); // which is taken now
      assert.deepEqual(s.all("acknowledged"), [0n]);
      for (let i = 0; i < 4; i++) await t.next();
      assert.deepEqual(s.all("acknowledged"), [0n, 8192n, 16384n, 24576n, 32768n]);
      t.close();
      assert.equal((await t.next()).done, true);
    }));

  it("keeps only the newest of what is told again and again", () =>
    withTerminal({}, async (t, made) => {
      const pulled = t.next();
      const s = await socket(made, 0);
      s.open();
      s.say(attached(false, 0));
      for (let i = 0; i < 1000; i++) s.say({ case: "session", value: { ...session, version: BigInt(i) } });
      await pulled;
      const next = await t.next();
      assert.ok(next.value?.type === "session" && next.value.session.version === 999n);
      t.close();
    }));

  it("sends what is long in parts", () =>
    withTerminal({}, async (t, made) => {
      void t.next();
      const s = await socket(made, 0);
      s.open();
      s.say(attached(false, 0));
      assert.ok(t.input("x".repeat(150_000)));
      assert.deepEqual(s.all("input").map((d) => d.length), [65536, 65536, 18928]);
      t.close();
    }));
});

describe("a terminal that cannot be had", () => {
  const status = (code: number, reason: string, message: string): Response =>
    Response.json({ code, message, details: [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain: "telexec", metadata: { hint: "Look" } }] }, { status: 404 });

  it("is told from a handshake that failed", () =>
    withTerminal({ answer: () => status(5, "UNKNOWN_SESSION", "there is no session") }, async (t, made) => {
      const { over } = pull(t);
      (await socket(made, 0)).lose();
      const e = await over;
      assert.ok(e instanceof TelexecError && e.reason === "UNKNOWN_SESSION" && e.hint === "Look", String(e));
    }));

  it("is told by the service", () =>
    withTerminal({ role: "writer" }, async (t, made) => {
      const { over } = pull(t);
      const s = await socket(made, 0);
      s.open();
      s.say({ case: "error", value: { code: 7, message: "you may not type" } });
      const e = await over;
      assert.ok(e instanceof TelexecError && e.code === "PERMISSION_DENIED" && e.message === "you may not type", String(e));
      assert.ok(s.closed);
    }));

  it("is tried again where that may help, and the session's end is told", () => {
    let asked = 0;
    return withTerminal(
      { answer: () => (asked++ < 2 ? new Response("bad gateway", { status: 502 }) : json({ ...session, state: SessionState.ENDED })) },
      async (t, made) => {
        const { seen, over } = pull(t);
        for (let i = 0; !seen.includes("ended"); i++) {
          await until(() => made.length > i || seen.includes("ended"));
          made[i]?.lose();
        }
        assert.equal(await over, undefined);
        assert.equal(seen.at(-1), "ended");
        assert.ok(seen.includes("reconnecting") || seen.length === 1, seen.join());
      },
    );
  });

  it("is told at once where there are no WebSockets", async () => {
    const client = new Telexec({ baseUrl: "http://service", WebSocket: null });
    assert.throws(() => client.attach("build"), (e) => e instanceof TelexecError && e.reason === "INVALID_OPTIONS");
    client.close();
  });

  it("ends with its client, and with its consumer", () =>
    withTerminal({}, async (t, made, client) => {
      const { over } = pull(t);
      const s = await socket(made, 0);
      s.open();
      s.say(attached(false, 0));
      const other = client.attach("other");
      const left = other.next();
      (await socket(made, 1)).open();
      await other.return();
      assert.equal((await left).done, true);
      assert.ok(made[1]?.closed);
      client.close();
      const e = await over;
      assert.ok(e instanceof TelexecError && e.reason === "CLIENT_CLOSED", String(e));
      assert.ok(s.closed);
      const after = await client.attach("build").next().catch((e: unknown) => e);
      assert.ok(after instanceof TelexecError && after.reason === "CLIENT_CLOSED");
    }));

  it("rejects by the signal's own reason", async () => {
    const stop = new AbortController();
    await withTerminal({ signal: stop.signal }, async (t, made) => {
      const { over } = pull(t);
      await socket(made, 0);
      stop.abort("enough");
      assert.equal(await over, "enough");
    });
  });
});

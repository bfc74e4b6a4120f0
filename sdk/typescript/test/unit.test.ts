// What needs no service: what is made of what it says.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Backoff } from "../src/backoff.js";
import { TelexecError, fromHttp, fromStatus, fromStatusJson, protocolError, unreachable } from "../src/error.js";
import { EventCursor } from "../src/events.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { CommandState, Stream } from "../src/gen/telexec/v1/command_pb.js";
import { SessionState } from "../src/gen/telexec/v1/session_pb.js";
import { SocketMessageSchema, type SocketMessage } from "../src/gen/telexec/v1/socket_pb.js";
import { TaskState } from "../src/gen/telexec/v1/task_pb.js";
import { Link, type WebSocketLike } from "../src/link.js";
import { OutputCursor } from "../src/output.js";
import { Rest } from "../src/rest.js";
import { routes } from "../src/routes.js";
import { TaskCursor, type TaskWatchEvent } from "../src/tasks.js";

type Data = NonNullable<NonNullable<MessageInitShape<typeof SocketMessageSchema>["data"]>["data"]>;

const said = (data: Data, sequence = 0n): SocketMessage => create(SocketMessageSchema, { sequence, data: { data } });

/** rest answers every request with what answer gives. */
function rest(answer: (url: URL, init: RequestInit) => Response | Promise<Response>, retryForMs = 0): Rest {
  return new Rest({
    baseUrl: "http://service",
    token: "t",
    fetch: async (url, init) => answer(new URL(String(url)), init ?? {}),
    backoff: { firstMs: 1, maxMs: 2 },
    retryForMs,
  });
}

const never = rest(() => assert.fail("nothing is to be asked"));

describe("failures", () => {
  const status = create(StatusSchema, {
    code: 5,
    message: "there is no host. Look again",
    details: [
      anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "UNKNOWN_HOST", domain: "telexec", metadata: { host: "web9", hint: "Look again" } })),
      anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [{ field: "host", description: "not known" }] })),
      anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: durationFromMs(1500) })),
    ],
  });
  const check = (e: TelexecError | undefined): void => {
    assert.ok(e);
    assert.deepEqual(
      [e.code, e.reason, e.message, e.hint, e.metadata, e.fields, e.retryDelayMs, e.temporary],
      ["NOT_FOUND", "UNKNOWN_HOST", "there is no host", "Look again", { host: "web9" }, [{ field: "host", message: "not known" }], 1500, true],
    );
  };
  it("come whole in both forms", () => {
    check(fromStatus(status));
    const detail = (type: string, value: object) => ({ "@type": `type.googleapis.com/google.rpc.${type}`, ...value });
    check(
      fromStatusJson({
        code: 5,
        message: "there is no host. Look again",
        details: [
          detail("ErrorInfo", { reason: "UNKNOWN_HOST", domain: "telexec", metadata: { host: "web9", hint: "Look again" } }),
          detail("BadRequest", { fieldViolations: [{ field: "host", description: "not known" }] }),
          detail("RetryInfo", { retryDelay: "1.5s" }),
          detail("SomethingNew", { x: 1 }),
        ],
      }),
    );
  });
  it("of something in between have no reason", async () => {
    assert.equal(fromStatusJson({ hello: "world" }), undefined);
    for (const [http, code] of [[502, "UNAVAILABLE"], [401, "UNAUTHENTICATED"], [418, "UNKNOWN"], [404, "NOT_FOUND"]] as const) {
      const e = fromHttp(http, "<html>");
      assert.deepEqual([e.code, e.reason, e.httpStatus], [code, "", http]);
    }
    const page = await rest(() => new Response("<html>no such page</html>", { status: 404 })).call(routes.getServerInfo, {}).catch((e: unknown) => e);
    assert.ok(page instanceof TelexecError && page.code === "NOT_FOUND" && page.message.includes("no such page"), String(page));
    const html = await rest(() => new Response("<html>sign in</html>")).call(routes.getServerInfo, {}).catch((e: unknown) => e);
    assert.ok(html instanceof TelexecError && html.reason === "SERVER_UNREACHABLE", String(html));
  });
});

describe("requests", () => {
  it("have path, query and body as REST takes them", async () => {
    const seen: string[] = [];
    const r = rest((url, init) => {
      seen.push(`${init.method} ${url.pathname}${decodeURIComponent(url.search)} ${init.body ?? ""}`.trim());
      return new Response("{}");
    });
    await r.call(routes.getStatus, { commandId: "a/b", wait: durationFromMs(1500), ifVersionGreaterThan: 7n, output: { text: true, stdoutOffset: 0n } });
    await r.call(routes.listCommands, { states: [CommandState.FAILED, CommandState.LOST], labels: { "a.b": "c" }, createTimeFrom: { seconds: 0n } });
    await r.call(routes.cancel, { commandId: "x", reason: "r" });
    assert.deepEqual(seen, [
      "GET /v1/commands/a%2Fb?wait=1.500s&ifVersionGreaterThan=7&output.text=true&output.stdoutOffset=0",
      "GET /v1/commands?states=COMMAND_STATE_FAILED&states=COMMAND_STATE_LOST&labels[a.b]=c&createTimeFrom=1970-01-01T00:00:00Z",
      'POST /v1/commands/x:cancel {"reason":"r"}',
    ]);
  });
  it("are made again only where that is harmless", async () => {
    let calls = 0;
    const r = rest(() => {
      if (++calls % 3 === 1) return new Response("{}");
      throw new TypeError("fetch failed");
    }, 1000);
    await r.call(routes.getServerInfo, {});
    await r.call(routes.getServerInfo, {});
    assert.equal(calls, 4);
    await assert.rejects(r.call(routes.sendInput, { commandId: "x" }), { reason: "SERVER_UNREACHABLE" });
    assert.equal(calls, 5);
  });
  it("of a stream fail by its last line, and where it is cut off", async () => {
    const line = async (text: string): Promise<void> => {
      for await (const _ of rest(() => new Response(text)).lines(routes.streamOutput, { commandId: "x" }, { silenceMs: 1000 }));
    };
    await assert.rejects(line('{"heartbeat":{}}\n{"error":{"code":14,"message":"gone","details":[]}}\n'), { code: "UNAVAILABLE", message: "gone" });
    await assert.rejects(line('{"heartbeat":{}}\n{"chu'), { reason: "SERVER_UNREACHABLE" });
  });
});

describe("pauses", () => {
  it("double, with full jitter, up to the longest", () => {
    const b = new Backoff({ firstMs: 100, maxMs: 1000 });
    for (const longest of [100, 200, 400, 800, 1000, 1000]) {
      const pause = b.next();
      assert.ok(pause >= 0 && pause <= longest, `${pause} of ${longest}`);
    }
    assert.ok(b.next(5000) >= 5000);
    b.reset();
    assert.ok(b.attempts === 0 && b.next() <= 100);
  });
});

describe("an output cursor", () => {
  const chunk = (offset: number, data: string, stream = Stream.STDOUT): SocketMessage =>
    said({ case: "chunk", value: { stream, offset: BigInt(offset), position: BigInt(offset), data: new TextEncoder().encode(data) } });
  const bytes = (c: OutputCursor, m: SocketMessage): string =>
    c.accept(m).map((e) => (e.type === "chunk" ? `${e.offset}:${new TextDecoder().decode(e.data)}` : e.type)).join();

  it("passes each byte on once, and minds a hole", () => {
    const c = new OutputCursor(never, "x", {});
    assert.equal(bytes(c, chunk(0, "abc")), "0:abc");
    assert.equal(bytes(c, chunk(1, "bcd")), "3:d");
    assert.equal(bytes(c, chunk(0, "abc")), "");
    assert.equal(bytes(c, chunk(0, "E", Stream.STDERR)), "0:E");
    assert.throws(() => c.accept(chunk(9, "x")), { code: "DATA_LOSS" });
    assert.deepEqual(c.accept(said({ case: "gap", value: { stream: Stream.STDOUT, from: 2n, to: 9n } })), [{ type: "gap", stream: "stdout", from: 4, to: 9 }]);
    assert.equal(bytes(c, chunk(9, "x")), "9:x");
    const where = c.subscribe();
    assert.ok(where.case === "subscribeOutput" && where.value.stdoutOffset === 10n && where.value.stderrOffset === 1n);
  });
  it("goes on by position until it knows both streams", () => {
    const c = new OutputCursor(never, "x", { position: 5 });
    assert.equal(bytes(c, chunk(7, "ab")), "7:ab");
    let where = c.subscribe();
    assert.ok(where.case === "subscribeOutput" && where.value.position === 9n);
    assert.equal(bytes(c, chunk(3, "c", Stream.STDERR)), "3:c");
    where = c.subscribe();
    assert.ok(where.case === "subscribeOutput" && where.value.stdoutOffset === 9n && where.value.stderrOffset === 4n);
  });
  it("tells a command again only if it is another one", () => {
    const c = new OutputCursor(never, "x", {});
    const tell = (version: bigint, watchers: number): number => c.accept(said({ case: "command", value: { version, watchers } })).length;
    assert.deepEqual([tell(1n, 0), tell(1n, 0), tell(1n, 1), tell(2n, 1), tell(1n, 1)], [1, 0, 1, 1, 0]);
  });
  it("goes back where the service has lost what was not stored, and repeats nothing", async () => {
    const c = new OutputCursor(
      rest(() => Response.json({ command: { stdoutBytes: "4", state: "COMMAND_STATE_LOST" } })),
      "x",
      {},
    );
    c.accept(said({ case: "command", value: { version: 1n } }));
    c.accept(chunk(0, "abcdef"));
    const beyond = new TelexecError({ code: "OUT_OF_RANGE", message: "" });
    assert.equal(await c.recover(beyond, new AbortController().signal), true);
    const where = c.subscribe();
    assert.ok(where.case === "subscribeOutput" && where.value.stdoutOffset === 4n);
    assert.equal(await c.recover(beyond, new AbortController().signal), false);
    assert.equal(await c.recover(protocolError("x"), new AbortController().signal), false);
  });
});

describe("an event cursor", () => {
  const tell = (c: EventCursor, id: string, version: bigint, sequence: bigint): number =>
    c.accept(said({ case: "event", value: { id, version } }, sequence)).length;
  it("never goes back, and goes on where it is", () => {
    const c = new EventCursor(never, {});
    assert.equal((c.subscribe().value as { after?: bigint }).after, undefined);
    assert.deepEqual([tell(c, "a", 2n, 5n), tell(c, "a", 1n, 5n), tell(c, "b", 1n, 4n), tell(c, "a", 2n, 6n), tell(c, "a", 3n, 6n)], [1, 0, 1, 0, 1]);
    assert.equal((c.subscribe().value as { after?: bigint }).after, 6n);
  });
});

describe("sessions among events", () => {
  const session = (id: string, version: bigint, state = SessionState.OPEN, title = ""): Data => ({ case: "session", value: { id, version, state, title } });
  const short = (events: ReturnType<EventCursor["accept"]>): string[] =>
    events.map((e) => (e.type === "session" ? `${e.session.id}${e.session.version}${e.session.title}` : e.type === "synced" ? `synced ${e.sessions.join()}` : e.type));
  it("are told when they are news, also over losses, and who is gone is missed", () => {
    const c = new EventCursor(never, {});
    const tell = (...all: Data[]): string[] => all.flatMap((d) => short(c.accept(said(d, 7n))));
    c.subscribe();
    assert.deepEqual(tell(session("a", 1n), session("b", 1n), { case: "synced", value: {} }), ["a1", "b1", "synced a,b"]);
    assert.deepEqual(tell(session("a", 1n), session("a", 2n), session("a", 1n), session("a", 2n, SessionState.OPEN, "vim")), ["a2", "a2vim"]);
    c.subscribe(); // lost, and back
    assert.deepEqual(tell(session("a", 2n, SessionState.OPEN, "vim"), session("c", 1n), { case: "synced", value: {} }), ["c1", "synced a,c"]);
    assert.deepEqual(tell(session("c", 2n, SessionState.ENDED), { case: "synced", value: {} }), ["c2", "synced a"]);
  });
  it("are missed by a poll, too", async () => {
    const open = [["a", "b"], ["a"]];
    let polls = 0;
    const lines = (ids: string[]): string => [...ids.map((id) => ({ session: { id, version: "1", state: "SESSION_STATE_OPEN" } })), { sequence: "1", synced: {} }].map((l) => JSON.stringify(l) + "\n").join("");
    const c = new EventCursor(rest(() => new Response(lines(open[polls++] ?? []))), {});
    const got: string[][] = [];
    for (const _ of open) {
      const events: string[] = [];
      await c.poll(new AbortController().signal, (e) => events.push(...short(e)));
      got.push(events);
    }
    assert.deepEqual(got, [["a1", "b1", "synced a,b"], ["synced a"]]);
  });
});

describe("tasks among events", () => {
  const task = (id: string, version: bigint, sequence: bigint, state = TaskState.RUNNING): Data => ({ case: "task", value: { id, version, sequence, state } });
  const event = (taskId: string, sequence: bigint, state = TaskState.RUNNING): Data => ({ case: "taskEvent", value: { taskId, sequence, state } });
  const short = (events: ReturnType<EventCursor["accept"]>): string[] =>
    events.map((e) => (e.type === "task" ? `${e.task.id} v${e.task.version}` : e.type === "taskEvent" ? `${e.event.taskId}${e.event.sequence}` : e.type));
  const where = (c: EventCursor): Record<string, bigint> => (c.subscribe().value as { taskSequences: Record<string, bigint> }).taskSequences;
  it("are told each event once and in order, also over losses", () => {
    const c = new EventCursor(never, { taskSequences: { known: 3 } });
    const tell = (...all: Data[]): string[] => all.flatMap((d) => short(c.accept(said(d, 7n))));
    assert.deepEqual(where(c), { known: 3n });
    // One that is new is told with the events that it has in it.
    assert.deepEqual(tell(task("a", 2n, 2n), event("a", 1n), event("a", 2n), event("a", 3n), event("a", 3n)), ["a v2", "a1", "a2", "a3"]);
    assert.deepEqual(tell(task("known", 9n, 9n), event("known", 4n)), ["known v9", "known4"]);
    assert.deepEqual(where(c), { a: 3n, known: 4n });
    assert.deepEqual(tell(task("a", 2n, 2n), task("a", 5n, 4n), event("a", 4n)), ["a v5", "a4"]);
    assert.throws(() => tell(event("a", 6n)), /left out events 5 to 5/);
  });
  it("are asked for from where they were met, where no event was told", () => {
    const c = new EventCursor(never, {});
    c.accept(said(task("a", 5n, 8n)));
    assert.deepEqual(where(c), { a: 8n });
  });
  it("are forgotten when they have ended and many others have since, and when retention has removed them", async () => {
    const c = new EventCursor(never, { taskSequences: { mine: 1n } });
    for (let i = 0; i < 40; i++) c.accept(said(task(`t${i}`, 1n, 1n, i === 0 ? TaskState.RUNNING : TaskState.COMPLETED)));
    const known = Object.keys(where(c));
    assert.deepEqual([known.length, known.includes("t0"), known.includes("t1"), known.includes("t39")], [34, true, false, true]);
    const gone = (task_id: string) => new TelexecError({ code: "NOT_FOUND", reason: "UNKNOWN_TASK", message: "", metadata: { task_id } });
    assert.equal(await c.recover(gone("t39")), true);
    assert.equal("t39" in where(c), false);
    assert.equal(await c.recover(gone("mine")), false); // the caller's own mistake
  });
});

describe("a task cursor", () => {
  const task = (version: bigint, sequence: bigint, state = TaskState.RUNNING): Data => ({ case: "task", value: { id: "t", version, sequence, state } });
  const event = (sequence: bigint): Data => ({ case: "taskEvent", value: { taskId: "t", sequence } });
  const short = (events: TaskWatchEvent[]): string[] => events.map((e) => (e.type === "event" ? String(e.event.sequence) : `${e.type} v${e.task.version}`));
  it("tells each event once, and goes on behind the last", () => {
    const c = new TaskCursor(never, "t", {});
    const tell = (...all: Data[]): string[] => all.flatMap((d) => short(c.accept(said(d))));
    assert.deepEqual(tell(task(1n, 2n), event(1n), event(2n)), ["task v1", "1", "2"]);
    assert.equal((c.subscribe().value as { after: bigint }).after, 2n); // lost
    assert.deepEqual(tell(task(1n, 2n), event(2n), task(3n, 4n, TaskState.FAILED), event(3n)), ["task v3", "3"]);
    assert.equal(c.done, false);
    assert.deepEqual(tell(event(4n), task(3n, 4n, TaskState.FAILED), event(5n)), ["4", "ended v3"]);
    assert.equal(c.done, true);
  });
  it("does not pass over what was left out", () => {
    const c = new TaskCursor(never, "t", { after: 3 });
    assert.throws(() => c.accept(said(event(6n))), /left out events 4 to 5/);
  });
  it("polls to the last event there is, and then waits for the next", async () => {
    const lines = (...all: object[]): Response => new Response(all.map((m) => JSON.stringify(m) + "\n").join(""));
    const asked: string[] = [];
    const running = { task: { id: "t", version: "4", sequence: "2", state: "TASK_STATE_RUNNING" } };
    const over = { task: { id: "t", version: "5", sequence: "3", state: "TASK_STATE_COMPLETED" } };
    const event = (sequence: string) => ({ event: { sequence } });
    const say = [lines(running, event("1"), event("2")), Response.json({}), lines(over, event("3"), over)];
    const c = new TaskCursor(rest((url) => (asked.push(url.pathname + url.search), say[asked.length - 1] ?? assert.fail("asked too often"))), "t", {});
    const told: string[] = [];
    while (!c.done) assert.equal(await c.poll(new AbortController().signal, (e) => told.push(...short(e))), true);
    assert.deepEqual(told, ["task v4", "1", "2", "task v5", "3", "ended v5"]);
    assert.deepEqual(asked, [
      "/v1/tasks/t/events?heartbeat=10s", "/v1/tasks/t?wait=25s&ifVersionGreaterThan=4", "/v1/tasks/t/events?after=2&heartbeat=10s",
    ]);
  });
});

describe("an event cursor of another store", () => {
  const unknown = new TelexecError({ code: "OUT_OF_RANGE", reason: "EVENTS_UNKNOWN", message: "" });
  it("begins anew what began at no place of its own", async () => {
    const c = new EventCursor(never, {});
    c.accept(said({ case: "event", value: { id: "a", version: 7n } }, 9n));
    assert.equal(await c.recover(unknown), true);
    assert.equal((c.subscribe().value as { after?: bigint }).after, undefined);
    assert.equal(c.accept(said({ case: "event", value: { id: "a", version: 1n } }, 2n)).length, 1);
    assert.equal(await new EventCursor(never, { after: 5 }).recover(unknown), false);
    assert.equal(await c.recover(protocolError("x")), false);
  });
});

describe("a link", () => {
  /** A socket that does what the test says. */
  class Socket implements WebSocketLike {
    static made: Socket[] = [];
    binaryType = "";
    onopen: ((event: never) => unknown) | null = null;
    onmessage: ((event: never) => unknown) | null = null;
    onclose: ((event: never) => unknown) | null = null;
    onerror: ((event: never) => unknown) | null = null;
    sent: Uint8Array[] = [];
    closed = false;
    constructor(
      readonly url: string,
      readonly protocols?: string[],
    ) {
      Socket.made.push(this);
    }
    send(data: Uint8Array<ArrayBuffer>): void {
      this.sent.push(data);
    }
    close(): void {
      this.closed = true;
    }
    say(m: MessageInitShape<typeof SocketMessageSchema>): void {
      const bytes = toBinary(SocketMessageSchema, create(SocketMessageSchema, m));
      this.onmessage?.({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) } as never);
    }
  }

  const follower = {
    silenceMs: 3_000,
    subscribe: () => ({ case: "subscribeEvents", value: {} }) as const,
    receive: () => undefined,
    fail: () => undefined,
    stateChanged: () => undefined,
    hurry: () => undefined,
  };

  const refuse = async (): Promise<void> => {
    await new Promise(setImmediate);
    Socket.made.at(-1)?.onclose?.({ code: 1006, reason: "" } as never);
    await new Promise(setImmediate);
  };

  const options = {
    url: "ws://service/v1/socket",
    token: async () => "t",
    WebSocket: Socket,
    socketOnly: false,
    backoff: { firstMs: 1e9, maxMs: 1e9 },
    probe: async () => undefined,
  };

  /** polling gives a link that has found out that no socket is to be had. */
  async function polling(changed: (link: Link) => void = () => undefined): Promise<Link> {
    Socket.made = [];
    const link: Link = new Link(options, () => changed(link));
    link.attach(follower);
    await refuse();
    await refuse();
    assert.deepEqual([link.state.state, Socket.made.length], ["polling", 2]);
    return link;
  }

  it("that polls tries no socket without pauses, however often a poll fails and the next works", async () => {
    const link = await polling();
    for (let i = 0; i < 10; i++) {
      link.pollFailed(unreachable("away"), 1, new Date());
      assert.equal(link.state.state, "reconnecting");
      link.pollWorked();
      await refuse();
      assert.equal(link.state.state, "polling");
    }
    assert.equal(Socket.made.length, 2);
    link.close();
  });

  it("does not poll for want of a token", async () => {
    Socket.made = [];
    let there = true;
    const token = async (): Promise<string> => {
      if (there) return "t";
      throw unreachable("away");
    };
    const link = new Link({ ...options, token }, () => undefined);
    link.attach(follower);
    await new Promise(setImmediate);
    there = false;
    await refuse(); // HTTP is answered; the attempt behind that has no token
    assert.deepEqual([link.state.state, link.state.reason, Socket.made.length], ["reconnecting", "away", 1]);
    there = true;
    link.retryNow();
    await new Promise(setImmediate);
    assert.equal(Socket.made.length, 2);
    await refuse(); // that answer is old by now: HTTP is asked again, and one more attempt made
    assert.deepEqual([link.state.state, Socket.made.length], ["reconnecting", 3]);
    await refuse();
    assert.equal(link.state.state, "polling");
    link.close();
  });

  it("that is closed by one who is told that it polls stays closed", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
    t.after(() => t.mock.timers.reset());
    for (const again of ["asked", "attached"]) {
      let closing = false;
      const link = await polling((l) => {
        if (closing && l.state.state === "polling") l.close();
      });
      if (again === "asked") link.pollFailed(unreachable("away"), 1, new Date());
      else link.detach(follower);
      closing = true;
      if (again === "asked") link.pollWorked();
      else link.attach(follower);
      assert.equal(link.state.state, "idle", again);
      t.mock.timers.tick(1e9);
      await new Promise(setImmediate);
      assert.equal(Socket.made.length, 2, again);
    }
  });

  it("is silent no longer than it may be, and counts the steps", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
    t.after(() => t.mock.timers.reset());
    Socket.made = [];
    const states: string[] = [];
    const its = { ...options, token: async () => "töken", socketOnly: true, backoff: { firstMs: 1, maxMs: 1 } };
    const link: Link = new Link(its, () => states.push(link.state.state));
    let heard = 0;
    link.attach({ ...follower, receive: () => heard++, fail: (e) => assert.equal(e.reason, "CLIENT_CLOSED") });
    await new Promise(setImmediate);
    const first = Socket.made[0];
    assert.ok(first);
    assert.deepEqual(first.protocols, ["telexec.v1.proto", "telexec.bearer.dMO2a2Vu"]);
    first.onopen?.({} as never);
    first.say({ id: "s1", data: { data: { case: "heartbeat", value: {} } } });
    t.mock.timers.tick(2_000);
    first.say({ id: "s1", data: { data: { case: "heartbeat", value: {} } } });
    t.mock.timers.tick(2_000);
    assert.deepEqual([heard, first.closed, states.at(-1)], [2, false, "live"]);
    t.mock.timers.tick(1_000);
    assert.deepEqual([first.closed, states.at(-1)], [true, "reconnecting"]);
    first.say({ id: "s1", data: { data: { case: "heartbeat", value: {} } } });
    assert.equal(heard, 2, "a socket that was given up is heard no more");
    t.mock.timers.tick(5);
    await new Promise(setImmediate);
    assert.equal(Socket.made.length, 2);
    link.close();
    assert.equal(link.state.state, "idle");
  });
});

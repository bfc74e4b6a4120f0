// What is followed, where the service does what a real one does rarely or not on demand.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as turn, setTimeout as pause } from "node:timers/promises";
import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { SocketMessageSchema, SocketRequestSchema, Stream, Telexec, TelexecError } from "@telexec/client";
import type { SocketRequest, TelexecOptions, WebSocketLike } from "@telexec/client";

type Data = NonNullable<NonNullable<MessageInitShape<typeof SocketMessageSchema>["data"]>["data"]>;

/** A socket whose other end is the test. */
class Socket implements WebSocketLike {
  binaryType = "";
  onopen: ((event: never) => unknown) | null = null;
  onmessage: ((event: never) => unknown) | null = null;
  onclose: ((event: never) => unknown) | null = null;
  onerror: ((event: never) => unknown) | null = null;
  readonly asked: SocketRequest[] = [];
  closed = false;

  send(data: Uint8Array<ArrayBuffer>): void {
    this.asked.push(fromBinary(SocketRequestSchema, data));
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
  say(id: string, data: Data): void {
    const bytes = toBinary(SocketMessageSchema, create(SocketMessageSchema, { id, data: { data } }));
    this.onmessage?.({ data: new Uint8Array(bytes).buffer } as never);
  }
  /** The ids under which something is subscribed. */
  get subscribed(): string[] {
    const ended = this.asked.flatMap((r) => (r.request.case === "unsubscribe" ? [r.request.value.subscription] : []));
    return this.asked.filter((r) => r.request.case?.startsWith("subscribe") && !ended.includes(r.id)).map((r) => r.id);
  }
}

type Answer = (url: URL, init: RequestInit) => Response | Promise<Response>;

const info: Answer = () => Response.json({});

/** with gives a test a client, whose sockets are those of the list. */
async function withClient(o: TelexecOptions & { answer?: Answer }, use: (c: Telexec, made: Socket[]) => Promise<void>): Promise<void> {
  const made: Socket[] = [];
  const { answer = info, ...options } = o;
  const client = new Telexec({
    baseUrl: "http://service",
    token: "t",
    backoff: { firstMs: 1, maxMs: 1 },
    WebSocket: class extends Socket {
      constructor() {
        super();
        made.push(this);
      }
    },
    fetch: async (url, init) => {
      init?.signal?.throwIfAborted();
      return answer(new URL(String(url)), init ?? {});
    },
    ...options,
  });
  try {
    await use(client, made);
  } finally {
    client.close();
  }
}

/** within fails where something takes too long. */
async function within<T>(ms: number, what: Promise<T>): Promise<T> {
  const late = new AbortController();
  try {
    return await Promise.race([what, pause(ms, undefined, { signal: late.signal }).then(() => assert.fail(`not within ${ms} ms`))]);
  } finally {
    late.abort();
  }
}

async function until(condition: () => boolean): Promise<void> {
  const late = Date.now() + 5_000;
  while (!condition()) {
    assert.ok(Date.now() < late, `waited in vain for ${condition.toString()}`);
    await pause(1);
  }
}

/** hung is an answer that never comes. */
const hung = (init: RequestInit): Promise<Response> =>
  new Promise((_, reject) => {
    if (init.signal?.aborted) reject(init.signal.reason);
    init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
  });

const lines = (...messages: object[]): Response => new Response(messages.map((m) => JSON.stringify(m) + "\n").join(""));
const running = { id: "x", version: "1", state: "COMMAND_STATE_RUNNING", stdoutBytes: "3" };
const up = { stream: "STREAM_STDOUT", offset: "0", position: "0", data: btoa("up\n") };

/** went makes a promise that may reject before it is looked at. */
function went<T>(p: Promise<T>): Promise<T> {
  p.catch(() => undefined);
  return p;
}

async function drained(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of events);
}

describe("polling", () => {
  it("tells what came before it waits for more", () =>
    withClient(
      {
        transport: "polling",
        answer: (url, init) =>
          url.pathname.endsWith("/output")
            ? lines({ command: running }, { chunk: up }, { outputComplete: { stdoutBytes: "3" } }, { ended: running })
            : hung(init),
      },
      async (c) => {
        const kinds: string[] = [];
        await within(
          2_000,
          (async () => {
            for await (const e of c.stream("x")) {
              kinds.push(e.type);
              if (e.type === "chunk") break;
            }
          })(),
        );
        assert.ok(kinds.includes("chunk"));
      },
    ));

  it("waits for nothing that came while it was told how the command is", async () => {
    const asked: (string | null)[] = [];
    await withClient(
      {
        WebSocket: null,
        answer: (url, init) => {
          if (url.pathname !== "/v1/commands/x") {
            const bytes = url.searchParams.get("stdoutOffset") === "3" ? [] : asked.length === 0 ? [] : [{ chunk: up }];
            return lines({ command: { ...running, stdoutBytes: "0" } }, ...bytes, { outputComplete: { stdoutBytes: bytes.length > 0 ? "3" : "0" } }, { ended: running });
          }
          asked.push(url.searchParams.get("output.stdoutOffset"));
          return asked.length === 1 ? Response.json({ command: running }) : hung(init);
        },
      },
      async (c) => {
        for await (const e of c.stream("x")) if (e.type === "chunk") break;
      },
    );
    assert.equal(asked[0], "0", "the bytes behind what was sent are news");
  });

  it("of many does not disturb the pauses of the others", async () => {
    let calls = 0;
    await withClient(
      {
        transport: "polling",
        backoff: { firstMs: 400, maxMs: 400 },
        answer: () => {
          calls++;
          throw new TypeError("fetch failed");
        },
      },
      async (c) => {
        const all = Array.from({ length: 10 }, () => drained(c.stream("x")));
        await pause(600);
        c.close();
        for (const one of all) await assert.rejects(one, { reason: "CLIENT_CLOSED" });
      },
    );
    assert.ok(calls < 100, `${calls} calls`);
  });

  it("of many in a browser leaves connections for others", async (t) => {
    Object.assign(globalThis, { location: { origin: "http://service" } });
    t.after(() => Reflect.deleteProperty(globalThis, "location"));
    let waiting = 0;
    await withClient(
      {
        transport: "polling",
        answer: (url, init) => {
          if (url.pathname.endsWith("/output")) return lines({ command: running }, { outputComplete: { stdoutBytes: "3" } }, { ended: running });
          waiting++;
          return hung(init);
        },
      },
      async (c) => {
        const all = Array.from({ length: 20 }, () => drained(c.stream("x")));
        await until(() => waiting > 0);
        await pause(50);
        c.close();
        for (const one of all) await assert.rejects(one, { reason: "CLIENT_CLOSED" });
      },
    );
    assert.equal(waiting, 3);
  });

  it("of many in a browser, that only pauses, does not tell that the service is back", async (t) => {
    Object.assign(globalThis, { location: { origin: "http://service" } });
    t.after(() => Reflect.deleteProperty(globalThis, "location"));
    let gone = (): void => undefined;
    const away = new Promise<Response>((_, reject) => (gone = () => reject(new TypeError("fetch failed"))));
    let waiting = 0;
    await withClient(
      {
        transport: "polling",
        backoff: { firstMs: 1e9, maxMs: 1e9 },
        answer: (url, init) => {
          if (url.pathname.endsWith("/output")) return waiting < 4 ? lines({ command: running }, { outputComplete: { stdoutBytes: "3" } }, { ended: running }) : hung(init);
          waiting++;
          return away;
        },
      },
      async (c) => {
        const all = Array.from({ length: 4 }, () => went(drained(c.stream("x"))));
        await until(() => waiting === 3);
        await turn();
        gone();
        await until(() => c.connection.state === "reconnecting");
        waiting = 4; // from now on nothing is answered
        const states: string[] = [];
        c.onConnection((s) => states.push(s.state));
        await pause(2_100);
        assert.deepEqual(states, []);
        c.close();
        await Promise.allSettled(all);
      },
    );
  });

  it("is tried again at once when asked to", async () => {
    let calls = 0;
    await withClient(
      {
        transport: "polling",
        backoff: { firstMs: 1e9, maxMs: 1e9 },
        answer: () => {
          calls++;
          throw new TypeError("fetch failed");
        },
      },
      async (c) => {
        const all = went(drained(c.stream("x")));
        await until(() => calls === 1 && c.connection.state === "reconnecting");
        await turn();
        c.retryNow();
        await until(() => calls === 2);
        c.close();
        await assert.rejects(all);
      },
    );
  });

  it("reads no more events than somebody takes", async () => {
    let told = 0;
    const body = () =>
      new ReadableStream<Uint8Array>({
        async pull(to) {
          await turn();
          told++;
          to.enqueue(new TextEncoder().encode(`{"command":{"id":"c${told}","version":"1"},"sequence":"${told}"}\n`));
        },
      });
    await withClient({ transport: "polling", answer: () => new Response(body()) }, async (c) => {
      const events = c.events({ after: 0 });
      let seen = 0;
      while (seen < 2_000) {
        const { value } = await within(5_000, events.next());
        if (value?.type === "command") seen++;
      }
      await events.return?.();
    });
    assert.ok(told < 5_000, `${told} events were read`);
  });
});

describe("a socket", () => {
  const ended = (s: Socket, id: string): void => {
    s.say(id, { case: "command", value: { version: 1n } });
    s.say(id, { case: "outputComplete", value: {} });
    s.say(id, { case: "ended", value: { version: 1n } });
  };

  it("that comes back tells no end twice", () =>
    withClient({}, async (c, made) => {
      const stream = c.stream("x");
      const first = stream.next();
      await until(() => made.length === 1);
      made[0]!.open();
      ended(made[0]!, made[0]!.subscribed[0]!);
      const kinds = [(await first).value?.type];
      made[0]!.lose();
      await until(() => made.length === 2);
      made[1]!.open();
      for (const id of made[1]!.subscribed) ended(made[1]!, id);
      for await (const e of stream) kinds.push(e.type);
      assert.deepEqual(kinds.filter((k) => k !== "connection"), ["command", "complete", "ended"]);
    }));

  it("is asked again where the service ends a subscription by itself", () =>
    withClient({}, async (c, made) => {
      const all = drained(c.stream("x"));
      await until(() => made.length === 1);
      const s = made[0]!;
      s.open();
      s.say(s.subscribed[0]!, { case: "unsubscribed", value: {} });
      await until(() => s.subscribed.length === 2);
      ended(s, s.subscribed[1]!);
      await within(1_000, all);
    }));

  it("is given no more than it takes", () =>
    withClient({}, async (c, made) => {
      const all = Array.from({ length: 150 }, (_, i) => drained(c.stream(`x${i}`)));
      const opened = new Set<Socket>();
      await until(() => {
        for (const s of made) {
          if (!opened.has(s)) s.open();
          opened.add(s);
        }
        return made.reduce((n, s) => n + s.subscribed.length, 0) === 150;
      });
      assert.ok(made.every((s) => s.subscribed.length <= 64), made.map((s) => s.subscribed.length).join());
      assert.equal(c.connection.state, "live");
      for (const s of made) for (const id of s.subscribed) ended(s, id);
      await within(5_000, Promise.all(all));
      await until(() => c.connection.state === "idle");
      assert.ok(made.every((s) => s.closed));
    }));

  it("goes on where one who watches the connection throws", (t) => {
    const thrown: Error[] = [];
    process.setUncaughtExceptionCaptureCallback((e) => thrown.push(e));
    t.after(() => process.setUncaughtExceptionCaptureCallback(null));
    return withClient({}, async (c, made) => {
      c.onConnection((s) => {
        if (s.state === "live") throw new Error("a mistake of the caller");
      });
      const first = c.stream("x").next();
      await until(() => made.length === 1);
      made[0]!.open();
      assert.equal(made[0]!.subscribed.length, 1);
      ended(made[0]!, made[0]!.subscribed[0]!);
      assert.equal((await within(1_000, first)).value?.type, "command");
      await turn();
      assert.deepEqual(thrown.map((e) => e.message), ["a mistake of the caller"]);
    });
  });

  it("is lost at once where the browser says that it is offline", (t) => {
    const browser = new EventTarget();
    for (const name of ["addEventListener", "removeEventListener"] as const) {
      Object.defineProperty(globalThis, name, { configurable: true, value: browser[name].bind(browser) });
      t.after(() => Reflect.deleteProperty(globalThis, name));
    }
    return withClient({ backoff: { firstMs: 60_000, maxMs: 60_000 } }, async (c, made) => {
      const first = went(c.stream("x").next());
      await until(() => made.length === 1);
      made[0]!.open();
      assert.equal(c.connection.state, "live");
      browser.dispatchEvent(new Event("offline"));
      assert.equal(c.connection.state, "reconnecting");
      assert.equal(c.connection.reason, "the browser is offline");
      browser.dispatchEvent(new Event("online"));
      await until(() => made.length === 2);
      made[1]!.open();
      assert.equal(made[1]!.subscribed.length, 1);
      assert.equal(c.connection.state, "live");
      c.close();
      await first.catch(() => undefined);
    });
  });

  it("that cannot be made is polled for", () =>
    withClient(
      {
        WebSocket: class extends Socket {
          constructor() {
            super();
            throw new Error("mixed content");
          }
        },
        answer: (url, init) => (url.pathname === "/v1/server" ? Response.json({}) : hung(init)),
      },
      async (c) => {
        const first = went(c.stream("x").next());
        await until(() => c.connection.state === "polling");
        c.close();
        await first.catch(() => undefined);
      },
    ));

  it("that is needed for nothing just now does not make it poll", () =>
    withClient({}, async (c, made) => {
      const stream = c.stream("x");
      const first = stream.next();
      await until(() => made.length === 1);
      made[0]!.open();
      const id = made[0]!.subscribed[0]!;
      made[0]!.say(id, { case: "chunk", value: { stream: Stream.STDOUT, data: new Uint8Array(2 << 20) } });
      await first;
      assert.deepEqual(made[0]!.subscribed, [], "the queue is full");
      made[0]!.lose();
      for (let i = 1; i < 5; i++) {
        await until(() => made.length === i + 1);
        made[i]!.open();
        made[i]!.lose();
      }
      await turn();
      assert.notEqual(c.connection.state, "polling");
    }));

  it("finds that polling is needed also where HTTP is slower than the pauses", () =>
    withClient(
      {
        answer: async (url, init) => {
          await pause(50);
          return url.pathname === "/v1/server" ? Response.json({}) : hung(init);
        },
      },
      async (c, made) => {
        const first = went(c.stream("x").next());
        const refusing = setInterval(() => made.at(-1)?.lose(), 2);
        try {
          await until(() => c.connection.state === "polling");
        } finally {
          clearInterval(refusing);
        }
        c.close();
        await first.catch(() => undefined);
      },
    ));

  it("is tried once more behind an answer over HTTP: the service may have been away until then", async () => {
    let back = (): void => undefined;
    const away = new Promise<void>((resolve) => (back = resolve));
    const answer: Answer = async (url, init) => {
      await away;
      return url.pathname === "/v1/server" ? Response.json({}) : hung(init);
    };
    await withClient({ answer }, async (c, made) => {
      const first = went(c.stream("x").next());
      for (let i = 0; i < 3; i++) {
        await until(() => made.length === i + 1);
        made[i]!.lose();
      }
      await until(() => made.length === 4); // which was begun before the answer
      back();
      await pause(20);
      made[3]!.lose();
      await until(() => made.length === 5);
      assert.equal(c.connection.state, "reconnecting");
      made[4]!.open();
      assert.equal(c.connection.state, "live");
      c.close();
      await first.catch(() => undefined);
    });
  });

  it("is tried at once where the service was away while it was polled, and is back", async () => {
    let there = true;
    const answer: Answer = async (url) => {
      await pause(2);
      if (!there) throw new TypeError("fetch failed");
      if (url.pathname === "/v1/server") return Response.json({});
      return url.pathname.endsWith("/output") ? lines({ chunk: up }, { outputComplete: { stdoutBytes: "3" } }, { ended: running }) : Response.json({ command: running });
    };
    await withClient({ answer }, async (c, made) => {
      const stream = c.stream("x");
      const reading = went(drained(stream));
      for (let i = 0; c.connection.state !== "polling"; i++) {
        await until(() => made.length === i + 1);
        made[i]!.lose();
        await pause(5);
      }
      const tried = made.length;
      there = false;
      await until(() => c.connection.state === "reconnecting");
      assert.equal(made.length, tried);
      there = true;
      await until(() => made.length === tried + 1);
      made[tried]!.open();
      assert.equal(c.connection.state, "live");
      c.close();
      await reading.catch(() => undefined);
    });
  });

  it("of a service that is back is made anew, where its handshake began while the service was away", async () => {
    let there = true;
    const answer: Answer = async (url, init) => {
      await pause(2);
      if (!there) throw new TypeError("fetch failed");
      if (url.pathname === "/v1/server") return Response.json({});
      return url.pathname.endsWith("/output") ? lines({ command: running }, { outputComplete: { stdoutBytes: "3" } }, { ended: running }) : hung(init);
    };
    await withClient({ answer }, async (c, made) => {
      const reading = went(drained(c.stream("x")));
      for (let i = 0; c.connection.state !== "polling"; i++) {
        await until(() => made.length === i + 1);
        made[i]!.lose();
        await pause(5);
      }
      const tried = made.length;
      there = false;
      const failing = went(drained(c.stream("y")));
      await until(() => c.connection.state === "reconnecting");
      c.retryNow();
      await until(() => made.length === tried + 1); // and is never answered
      there = true;
      await until(() => made.length === tried + 2);
      assert.ok(made[tried]!.closed, "there are two");
      made[tried + 1]!.open();
      assert.equal(c.connection.state, "live");
      c.close();
      await Promise.allSettled([reading, failing]);
    });
  });

  it("that has to be one is not tried without pauses where HTTP works", () =>
    withClient({ transport: "websocket", backoff: { firstMs: 1e9, maxMs: 1e9 } }, async (c, made) => {
      const first = went(c.stream("x").next());
      const refusing = setInterval(() => made.at(-1)?.lose(), 1);
      await until(() => made.length === 2);
      await pause(50);
      clearInterval(refusing);
      assert.equal(made.length, 2, "one, and one more behind the answer over HTTP");
      assert.equal(c.connection.state, "reconnecting");
      c.close();
      await first.catch(() => undefined);
    }));

  it("is left at once while credentials are being looked at", () =>
    withClient({ answer: (_, init) => hung(init) }, async (c, made) => {
      const stream = c.stream("x");
      const first = went(stream.next());
      await until(() => made.length === 1);
      made[0]!.open();
      made[0]!.say(made[0]!.subscribed[0]!, { case: "error", value: { code: 16, message: "over" } });
      await turn();
      await within(1_000, stream.return!());
      assert.equal((await within(1_000, first)).done, true);
    }));

  it("waits for a token that cannot be had just now, but not for one that never could", async () => {
    let works = true;
    const token = (): string => {
      if (!works) throw new TypeError("fetch failed");
      return "t";
    };
    await withClient({ token }, async (c, made) => {
      const stream = c.stream("x");
      const first = stream.next();
      await until(() => made.length === 1);
      made[0]!.open();
      made[0]!.say(made[0]!.subscribed[0]!, { case: "command", value: { version: 1n } });
      await first;
      works = false;
      made[0]!.lose();
      await until(() => c.connection.attempt >= 3);
      works = true;
      await until(() => made.length === 2);
      made[1]!.open();
      ended(made[1]!, made[1]!.subscribed[0]!);
      const kinds: string[] = [];
      for await (const e of stream) kinds.push(e.type);
      assert.equal(kinds.at(-1), "ended");
    });
    works = false;
    await withClient({ token }, async (c) => {
      await assert.rejects(within(1_000, c.stream("x").next()), { code: "UNAUTHENTICATED" });
      await assert.rejects(c.serverInfo(), { code: "UNAUTHENTICATED", name: "TelexecError" });
    });
  });
});

describe("a call", () => {
  it("is one of many, which share a signal without a warning", async (t) => {
    const warnings: string[] = [];
    const warned = (w: Error): void => void warnings.push(w.name);
    process.on("warning", warned);
    t.after(() => process.off("warning", warned));
    const own = new AbortController();
    await withClient({ transport: "polling", answer: (_, init) => hung(init) }, async (c) => {
      const all: Promise<unknown>[] = [];
      for (let i = 0; i < 20; i++) {
        all.push(went(c.serverInfo({ signal: own.signal })), went(drained(c.stream("x", { signal: own.signal }))));
      }
      await pause(20);
      own.abort("enough");
      for (const one of all) assert.equal(await one.catch((e: unknown) => e), "enough");
    });
    assert.deepEqual(warnings.filter((w) => w.startsWith("MaxListeners")), []);
  });

  it("is given up also while a token is waited for", () =>
    withClient({ token: () => new Promise<string>(() => undefined) }, async (c) => {
      await assert.rejects(within(1_000, c.serverInfo({ signal: AbortSignal.timeout(10) })), { name: "TimeoutError" });
    }));

  it("is not made again where retryForMs is 0", async () => {
    let calls = 0;
    const answer = (): never => {
      calls++;
      throw new TypeError("fetch failed");
    };
    await withClient({ retryForMs: 0, answer }, (c) => assert.rejects(c.serverInfo(), { reason: "SERVER_UNREACHABLE" }));
    assert.equal(calls, 1);
  });

  it("minds how long the service may be asked to wait", () =>
    withClient({ answer: (_, init) => Promise.race([hung(init), pause(20).then(() => Response.json({ command: { id: "x" } }))]) }, async (c) => {
      assert.equal((await c.get("x", { wait: 3e9 })).command?.id, "x");
    }));

  it("fails as all do where the answer is something else", async () => {
    for (const [answer, want] of [
      [new Response("null"), { reason: "PROTOCOL_ERROR" }],
      [new Response("[1]"), { reason: "PROTOCOL_ERROR" }],
      [new Response("<html>", { status: 429, headers: { "retry-after": "2" } }), { code: "RESOURCE_EXHAUSTED", retryDelayMs: 2000 }],
    ] as const) {
      await withClient({ retryForMs: 0, answer: () => answer }, (c) => assert.rejects(c.serverInfo(), { name: "TelexecError", ...want }));
    }
    await withClient({ retryForMs: 0, answer: () => new Response("null\n") }, (c) => assert.rejects(c.page("x"), { reason: "PROTOCOL_ERROR" }));
  });

  it("for a page is made again where it was cut off", async () => {
    let calls = 0;
    const answers = [
      () => Response.json({}),
      () => lines({ command: running }),
      () => new Response("<html>", { status: 502 }),
      () => lines({ command: running }, { chunk: up }, { outputComplete: {} }, { ended: running }),
    ];
    await withClient({ answer: () => answers[calls++]!() }, async (c) => {
      await c.serverInfo();
      assert.equal((await c.page("x")).next, 3);
    });
    assert.equal(calls, 4);
  });
});

describe("a run", () => {
  it("tells that output is missing", () =>
    withClient({ answer: () => Response.json({ command: { id: "x" } }) }, async (c, made) => {
      const result = c.run({ host: "h", command: "c" });
      await until(() => made.length === 1);
      made[0]!.open();
      const id = made[0]!.subscribed[0]!;
      made[0]!.say(id, { case: "gap", value: { stream: Stream.STDOUT, from: 0n, to: 9n } });
      made[0]!.say(id, { case: "ended", value: { version: 1n } });
      assert.equal((await result).truncated, true);
    }));
});

describe("what cannot be", () => {
  it("is refused at once", async () => {
    await withClient({}, async (c) => {
      for (const o of [{ stdoutOffset: NaN }, { stderrOffset: -1 }, { position: 0.5 }, { heartbeat: Infinity }]) {
        assert.throws(() => c.stream("x", o), { name: "TelexecError", code: "INVALID_ARGUMENT" }, JSON.stringify(o));
      }
      assert.throws(() => c.events({ after: 0.5 }), { name: "TelexecError", code: "INVALID_ARGUMENT" });
      await assert.rejects(c.page("x", { position: NaN }), { name: "TelexecError", code: "INVALID_ARGUMENT" });
    });
    for (const baseUrl of ["service", "ftp://service", "http://", "http://a b", "http://me:pw@service", "http://service/?a=b", "http://service/#x"]) {
      assert.throws(() => new Telexec({ baseUrl }), { name: "TelexecError", reason: "INVALID_OPTIONS" }, baseUrl);
    }
    const e = await new Telexec({ baseUrl: "http://service", token: "a\u0100" }).serverInfo().catch((e: unknown) => e);
    assert.ok(e instanceof TelexecError && e.code === "UNAUTHENTICATED", String(e));
  });

  it("is not what else addresses and tokens look like", async () => {
    for (const [baseUrl, http, ws] of [
      ["HTTPS://Service/telexec/", "https://service/telexec/v1/server", "wss://service/telexec/v1/socket"],
      ["http://[::1]:7080", "http://[::1]:7080/v1/server", "ws://[::1]:7080/v1/socket"],
    ] as const) {
      const seen: string[] = [];
      await withClient(
        {
          baseUrl,
          token: "t\n",
          answer: (url, init) => {
            seen.push(url.href, new Headers(init.headers).get("authorization") ?? "");
            return Response.json({});
          },
          WebSocket: class extends Socket {
            constructor(url: string) {
              super();
              seen.push(url);
            }
          },
        },
        async (c) => {
          await c.serverInfo();
          const first = went(c.stream("x").next());
          await until(() => seen.length === 3);
          c.close();
          await first.catch(() => undefined);
        },
      );
      assert.deepEqual(seen, [http, "Bearer t", ws]);
    }
  });
});

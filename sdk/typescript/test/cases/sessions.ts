// Sessions: a shell that lasts, and its terminal.

import { CommandState, IfBusy, SessionState, TelexecError, ViewerRole, type ConnectionEvent, type SessionTerminal, type Telexec, type TerminalEvent } from "@telexec/client";
import { equal, ok, rejected, text, until, withClient, type Case, type Surroundings } from "../surroundings.js";

/** Gives a case a session of its own, and closes it. */
function withSession(s: Surroundings, use: (c: Telexec, session: string) => Promise<void>): Promise<void> {
  return withClient(
    s,
    async (c) => {
      const { session } = await c.openSession({ host: s.host, shell: "bash", columns: 100, rows: 30 });
      ok(session, "no session");
      try {
        await use(c, session.id);
      } finally {
        await c.closeSession(session.id);
      }
    },
    { backoff: { firstMs: 20, maxMs: 200 } },
  );
}

/** What a terminal has told. */
class Watched {
  readonly events: (TerminalEvent | ConnectionEvent)[] = [];
  readonly over: Promise<unknown>;

  constructor(readonly terminal: SessionTerminal) {
    this.over = (async () => {
      try {
        for await (const event of terminal) this.events.push(event);
        return undefined;
      } catch (e) {
        return e;
      }
    })();
  }

  /** All output since the first screen, and the screens before it. */
  get text(): string {
    return text(Uint8Array.from(this.events.flatMap((e) => (e.type === "output" || e.type === "screen" ? [...e.data] : []))));
  }

  has(type: TerminalEvent["type"]): boolean {
    return this.events.some((e) => e.type === type);
  }
}

export const sessions: Case[] = [
  {
    name: "what commands do to a session stays",
    run: (s) =>
      withSession(s, async (c, id) => {
        const ran = await c.run({ session: id, command: "cd /usr; V=kept" });
        equal([ran.command.state, ran.command.exitCode, ran.command.sessionId], [CommandState.COMPLETED, 0, id], "cd");
        const told = await c.run({ session: id, command: "pwd; echo $V; (exit 5)" });
        equal([text(told.stdout).replaceAll("\r", ""), told.command.exitCode], ["/usr\nkept\n", 5], "pwd");
        equal((await c.statusInSession(id)).command?.id, told.command.id, "the last one");
        equal((await c.cancelInSession(id)).noTask, true, "nothing runs");
        const session = await c.session(id);
        equal([session.state, session.shell, session.columns, session.rows], [SessionState.OPEN, "bash", 100, 30], "session");
        const listed: string[] = [];
        for await (const one of c.sessions({ host: s.host })) listed.push(one.id);
        ok(listed.includes(id), "it is not listed");
      }),
  },
  {
    name: "a busy session refuses, and what runs in it is cancelled by its name",
    run: (s) =>
      withSession(s, async (c, id) => {
        const { name } = await c.session(id);
        const { command } = await c.execute({ session: name, command: "sleep 600", wait: { seconds: 0n } });
        ok(command, "no command");
        for (;;) if ((await c.get(command.id)).command?.state === CommandState.RUNNING) break;
        const busy = await rejected(c.execute({ session: name, command: "true", ifBusy: IfBusy.REFUSE }));
        ok(busy instanceof TelexecError && busy.reason === "SESSION_BUSY", String(busy));
        equal((await c.cancelInSession(name)).noTask, false, "something runs");
        equal((await c.get(command.id, { wait: 10_000 })).command?.state, CommandState.CANCELLED, "state");
        equal((await c.run({ session: name, command: "(exit 7)" })).command.exitCode, 7, "the shell goes on");
      }),
  },
  {
    name: "keys are typed, and the screen tells",
    run: (s) =>
      withSession(s, async (c, id) => {
        const { screen } = await c.sendKeys(id, ["echo æ$((20+22))", { name: "Enter" }]);
        ok(screen?.lines.includes("æ42"), JSON.stringify(screen?.lines));
        ok((await c.screen(id, { scrollback: 10 })).lines.includes("æ42"), "the screen afterwards");
        const wrong = await rejected(c.sendKeys(id, [{ name: "Hyper+X" }]));
        ok(wrong instanceof TelexecError && wrong.code === "INVALID_ARGUMENT", String(wrong));
      }),
  },
  {
    name: "a terminal goes on at the exact byte, over cuts too",
    over: "websocket",
    run: (s) =>
      withSession(s, async (c, id) => {
        const w = new Watched(c.attach(id, { label: "cut" }));
        await until(() => w.has("attached"));
        ok(w.terminal.input("for i in $(seq 400); do echo line $i; [ $((i % 50)) = 0 ] && sleep 0.1; done; echo all$((1+1))told\n"), "not typed");
        for (let i = 0; i < 4; i++) {
          await until(() => w.text.includes(`line ${i * 80 + 30}\r\n`));
          await s.faults.cut();
        }
        await until(() => w.text.includes("all2told"));
        const lines = w.text.replace(/\x1b\[[?\d;]*[a-zA-Z]|\r/g, "").split("\n").filter((l) => /^line \d+$/.test(l));
        equal(lines, Array.from({ length: 400 }, (_, i) => `line ${i + 1}`), "lines");
        ok(w.events.filter((e) => e.type === "attached" && e.resumed).length >= 3, "it did not go on");
        let next: number | undefined;
        for (const e of w.events) {
          if (e.type === "screen") next = e.offset;
          if (e.type !== "output") continue;
          if (next !== undefined) equal(e.offset, next, "offset");
          next = e.offset + e.data.length;
        }
        // What was typed is a command, which is told when it is stored.
        await until(() => w.events.some((e) => e.type === "command" && e.command.command.startsWith("for i in") && e.command.createdBy?.principal !== ""));
        w.terminal.close();
        equal(await w.over, undefined, "end");
        equal((await c.session(id)).state, SessionState.OPEN, "leaving leaves it as it is");
      }),
  },
  {
    name: "several see the same, and the keyboard is one's",
    over: "websocket",
    run: (s) =>
      withSession(s, async (c, id) => {
        const a = new Watched(c.attach(id, { label: "a" }));
        await until(() => a.has("screen"));
        const b = new Watched(c.attach(id, { label: "b", role: "writer" }));
        await until(() => b.has("screen"));
        const o = new Watched(c.attach(id, { label: "o", role: "observer" }));
        await until(() => o.has("screen"));
        equal((await c.session(id)).viewers.map((v) => [v.label, v.role]), [["a", ViewerRole.WRITER], ["b", ViewerRole.WRITER], ["o", ViewerRole.OBSERVER]], "viewers");
        a.terminal.take();
        await until(() => b.events.some((e) => e.type === "session" && e.session.keyboard === a.terminal.viewer));
        b.terminal.input("echo not mine\n");
        o.terminal.input("echo nor mine\n");
        await until(() => b.has("refused") && o.has("refused"));
        a.terminal.handOver(b.terminal.viewer);
        await until(() => b.events.some((e) => e.type === "session" && e.session.keyboard === b.terminal.viewer));
        b.terminal.input("echo $((6*7))\n");
        for (const w of [a, b, o]) await until(() => /[\r\n]42\r\n/.test(w.text));
        await until(() => a.events.some((e) => e.type === "typed" && e.viewer === b.terminal.viewer));
        const out = (w: Watched): string => w.text.slice(w.text.lastIndexOf("echo $((6*7))"));
        // Each is told in its own time; the prompt comes last.
        for (const w of [a, b, o]) await until(() => /42\r\n[^]*\$ $/.test(out(w)));
        equal([out(b), out(o)], [out(a), out(a)], "what was seen");
        ok(!a.text.includes("mine"), "what was refused was typed");
        b.terminal.resize({ columns: 60, rows: 20 });
        await until(() => a.events.some((e) => e.type === "session" && e.session.columns === 60));
        await c.closeSession(id);
        for (const w of [a, b, o]) equal([await w.over, w.events.at(-1)?.type], [undefined, "ended"], "end");
        const late = new Watched(c.attach(id));
        const over = await late.over;
        ok(late.has("ended") || (over instanceof TelexecError && over.reason === "SESSION_ENDED"), String(over));
      }),
  },
  {
    name: "a recording is whole, and goes on where it broke",
    run: (s) =>
      withSession(s, async (c, id) => {
        await c.run({ session: id, command: "for i in $(seq 2000); do echo recorded line $i; done" });
        await c.closeSession(id);
        const pieces: Uint8Array[] = [];
        for await (const piece of c.recording(id)) {
          if (pieces.push(piece) === 1) await s.faults.cut();
        }
        const file = text(Uint8Array.from(pieces.flatMap((p) => [...p]))).trimEnd().split("\n").map((line) => JSON.parse(line) as unknown);
        equal((file[0] as { version: number }).version, 2, "header");
        const shown = file.slice(1).filter((e) => (e as string[])[1] === "o").map((e) => (e as string[])[2]).join("");
        ok(shown.includes("recorded line 1\r\n") && shown.includes("recorded line 2000\r\n"), "it is not whole");
        const later = await c.recording(id, { offset: pieces[0]?.length ?? 0 }).next();
        equal(text(later.value ?? new Uint8Array()).slice(0, 50), text(pieces[1] ?? new Uint8Array()).slice(0, 50), "from an offset");
        const none = await rejected(c.session("nothing-of-this-name"));
        ok(none instanceof TelexecError && none.reason === "UNKNOWN_SESSION", String(none));
      }),
  },
  {
    name: "events tell of sessions, and of their end",
    run: (s) =>
      withClient(s, async (c) => {
        const own = new AbortController();
        const seen = new Map<string, SessionState>();
        let open: readonly string[] = [];
        const watching = (async () => {
          for await (const e of c.events({ signal: own.signal })) {
            if (e.type === "session") seen.set(e.session.id, e.session.state);
            if (e.type === "synced") open = e.sessions;
          }
        })();
        watching.catch(() => undefined);
        const { session } = await c.openSession({ host: s.host });
        ok(session, "no session");
        await until(() => seen.get(session.id) === SessionState.OPEN);
        await c.closeSession(session.id);
        // Who polls may only miss it.
        await until(() => seen.get(session.id) === SessionState.ENDED || !open.includes(session.id));
        own.abort();
      }),
  },
];

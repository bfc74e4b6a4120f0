// One session on this page: its terminal, and what is known of it. It lives as long as its tab, whether it is shown or not.

import { Connection, SessionState, TelexecError, ViewerRole, type Actor, type Command, type ConnectionState, type Failure, type Session, type SessionTerminal } from "@telexec/client";
import { client, problemOf, type Problem } from "../client.ts";
import { learn, learnSession } from "../live.ts";
import { Emulator } from "./emulator.ts";
import { keyBytes, meant } from "./input.ts";
import { Jumps, Tail } from "./jumps.ts";
import { browserName } from "./label.ts";

/** What the terminal has not drawn yet; with more, the session waits for this viewer, and for no other. */
const MAX_PENDING = 512 << 10;
const SCROLLBACK = 10_000;
/** A command is told a moment after it was begun: so many bytes of output may have come before that. */
const TAIL = 256 << 10;
/** How long is told that something was refused. */
const REFUSED_MS = 6_000;

/** What the page shows of it. Another object whenever any of it changes. */
export interface View {
  readonly session: Session;
  /** This viewer's own id; empty until it is attached. */
  readonly viewer: string;
  readonly role: ViewerRole;
  readonly connection: ConnectionState;
  /** Who typed last, and when. */
  readonly typist: { readonly viewer: string; readonly actor: Actor | undefined; readonly at: number } | undefined;
  readonly refused: Failure | undefined;
  /** It cannot go on. */
  readonly problem: Problem | undefined;
  /** Another program draws on all of the screen, so that lines cannot be gone to. */
  readonly alternate: boolean;
}

export class Attachment {
  readonly emulator: Emulator;
  readonly jumps: Jumps;
  readonly id: string;

  #view: View;
  readonly #listeners = new Set<() => void>();
  readonly #terminal: SessionTerminal;
  #shown = false;
  #pending = 0;
  readonly #tail = new Tail(TAIL);
  #drained: (() => void) | undefined;
  #refusedTimer: ReturnType<typeof setTimeout> | undefined;
  #disposed = false;

  constructor(session: Session) {
    this.id = session.id;
    this.#view = {
      session, viewer: "", role: ViewerRole.UNSPECIFIED, connection: { state: "connecting", attempt: 0 },
      typist: undefined, refused: undefined, problem: undefined, alternate: false,
    };
    // It fails where there can be none, before anything else is made.
    this.#terminal = client.attach(session.id, { label: browserName(navigator.userAgent), scrollback: SCROLLBACK / 2 });
    this.emulator = new Emulator({ columns: session.columns || 80, rows: session.rows || 24, scrollback: SCROLLBACK });
    const { term } = this.emulator;
    term.options.disableStdin = true;
    this.jumps = new Jumps({
      scrolling: () => term.buffer.active.type === "normal",
      count: () => term.buffer.normal.length,
      cursor: () => term.buffer.normal.baseY + term.buffer.normal.cursorY,
      mark: (line) => term.registerMarker(line - term.buffer.normal.baseY - term.buffer.normal.cursorY),
    });
    term.buffer.onBufferChange((b) => {
      this.jumps.settle();
      this.#set({ alternate: b.type === "alternate" });
    });
    term.onData((data) => this.#typed(data, data));
    term.onBinary((data) => this.#typed(data, Uint8Array.from(data, (c) => c.charCodeAt(0) & 0xff)));
    void this.#follow();
  }

  // ── for React ───────────────────────────────────────────────────────────────────────────────────────────────────

  get view(): View {
    return this.#view;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #set(change: Partial<View>): void {
    this.#view = { ...this.#view, ...change };
    const { options } = this.emulator.term;
    options.disableStdin = !this.mayType;
    options.cursorStyle = this.mayType ? "block" : "underline";
    for (const listener of this.#listeners) listener();
  }

  /** Whether what is typed here arrives. */
  get mayType(): boolean {
    const { session, viewer, role, connection } = this.#view;
    return connection.state === "live" && role === ViewerRole.WRITER && session.state === SessionState.OPEN && (session.keyboard === "" || session.keyboard === viewer) && session.connection !== Connection.RECONNECTING;
  }

  /** Whether the session is over. Its name may be another one's by now. */
  get ended(): boolean {
    return this.#view.session.state === SessionState.ENDED;
  }

  /** Whether this viewer has the keyboard. */
  get holds(): boolean {
    return this.#view.viewer !== "" && this.#view.session.keyboard === this.#view.viewer;
  }

  // ── what people do ──────────────────────────────────────────────────────────────────────────────────────────────

  /** Puts it into the page, until the function that it gives is called. */
  show(place: HTMLElement): () => void {
    const hide = this.emulator.show(place);
    this.#shown = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const observer = new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(() => this.resize(), 100);
    });
    observer.observe(place);
    this.resize();
    return () => {
      this.#shown = false;
      clearTimeout(timer);
      observer.disconnect();
      hide();
    };
  }

  /** Tells the session how large this window is, and shows the terminal in the size that it has. */
  resize(): void {
    if (!this.#shown) return;
    if (this.ended) {
      const { columns, rows } = this.#view.session;
      this.emulator.fitEnded(columns, rows);
      return;
    }
    const room = this.emulator.room;
    if (room !== undefined && this.#view.role !== ViewerRole.OBSERVER) this.#terminal.resize(room);
    this.emulator.fitLetters();
  }

  key(name: Parameters<typeof keyBytes>[0]): void {
    const { term } = this.emulator;
    if (this.mayType) this.#send(keyBytes(name, term.modes.applicationCursorKeysMode));
    term.focus();
  }

  take(): void {
    this.#terminal.take();
    this.resize();
    this.emulator.term.focus();
  }

  release(): void {
    this.#terminal.release();
  }

  handOver(viewer: string): void {
    this.#terminal.handOver(viewer);
  }

  retryNow(): void {
    this.#terminal.retryNow();
  }

  /** Goes to the line in which a command was begun; false where that is not there any more. */
  jump(command: string): boolean {
    const line = this.jumps.line(command);
    if (line === undefined || this.#view.alternate) return false;
    const { term } = this.emulator;
    term.scrollToLine(line);
    term.clearSelection();
    term.selectLines(line, line);
    return true;
  }

  /** Leaves the session, which goes on. */
  dispose(): void {
    this.#disposed = true;
    clearTimeout(this.#refusedTimer);
    this.#terminal.close();
    this.#drained?.();
    this.emulator.dispose();
  }

  #typed(data: string, bytes: string | Uint8Array): void {
    if (this.mayType && (this.holds || meant(data))) this.#send(bytes);
  }

  #send(bytes: string | Uint8Array): void {
    if (!this.#terminal.input(bytes)) return;
    const { typist, viewer } = this.#view;
    if (typist === undefined || typist.viewer !== viewer || Date.now() - typist.at > 1000) this.#set({ typist: { viewer, actor: undefined, at: Date.now() } });
  }

  // ── what the session says ───────────────────────────────────────────────────────────────────────────────────────

  async #follow(): Promise<void> {
    const { term } = this.emulator;
    try {
      for await (const event of this.#terminal) {
        switch (event.type) {
          case "attached":
            this.#learn(event.session);
            this.#set({ viewer: event.viewer, role: event.role, connection: this.#terminal.connection });
            if (!event.resumed) this.resize();
            break;
          case "screen":
            if (!event.continued) {
              const { columns, rows } = event;
              this.#later(() => {
                term.reset();
                term.resize(columns, rows);
                this.jumps.clear();
              });
              this.#tail.clear();
            }
            this.#write(event.data);
            this.#later(() => {
              this.jumps.expect(event.commands.map((c) => ({ id: c.commandId, line: c.line })));
              this.jumps.settle();
              // The size may have been told before the screen that was made for the one before it.
              this.#sizeTo(this.#view.session);
              this.emulator.fitLetters();
            });
            break;
          case "output":
            this.#tail.add(event.offset, event.data);
            this.#write(event.data);
            break;
          case "session":
            this.#learn(event.session);
            break;
          case "command":
            learn(event.command);
            // Told at its beginning; one that was short may be over by the time it is told.
            if (event.command.endTime === undefined || event.offset === Number(event.command.sessionOffset)) this.#mark(event.command, event.offset);
            break;
          case "typed":
            this.#set({ typist: { viewer: event.viewer, actor: event.actor, at: Date.now() } });
            break;
          case "refused":
            clearTimeout(this.#refusedTimer);
            this.#refusedTimer = setTimeout(() => this.#set({ refused: undefined }), REFUSED_MS);
            this.#set({ refused: event.failure });
            break;
          case "connection":
            this.#set({ connection: event.connection });
            break;
          case "ended":
            this.#learn(event.session);
            break;
        }
        if (this.#pending > MAX_PENDING) await new Promise<void>((resolve) => (this.#drained = resolve));
        if (this.#disposed) return;
      }
      this.#set({ connection: { state: "idle", attempt: 0 } });
    } catch (error) {
      if (this.#disposed) return;
      if (error instanceof TelexecError && error.reason === "SESSION_ENDED") {
        // How it ended is told by the session itself.
        client.session(this.id).then((session) => this.#learn(session), () => undefined);
      }
      this.#set({ problem: problemOf(error), connection: { state: "idle", attempt: 0 } });
    }
  }

  /** Notes where a command was typed whose output begins at an offset: before that, in as many lines as it has. */
  #mark(command: Command, offset: number): void {
    const since = this.#tail.linesSince(offset);
    if (since === undefined) return;
    const lines = command.command.trimEnd().split("\n").length;
    this.#later(() => this.jumps.above(command.id, since + lines));
  }

  #learn(session: Session): void {
    learnSession(session);
    // At its place in the output: what comes before it was made for the size before.
    this.#later(() => this.#sizeTo(session));
    this.#set({ session });
  }

  #sizeTo({ columns, rows }: Session): void {
    const { term } = this.emulator;
    if (columns < 1 || rows < 1 || (term.cols === columns && term.rows === rows)) return;
    term.resize(columns, rows);
    if (this.ended) this.resize();
    else this.emulator.fitLetters();
  }

  #write(data: Uint8Array): void {
    const size = data.length;
    this.#pending += size;
    this.emulator.term.write(data, () => {
      this.#pending -= size;
      if (this.#pending <= MAX_PENDING) this.#drained?.();
    });
  }

  /** Does something when all that was written before it has been drawn. */
  #later(act: () => void): void {
    this.emulator.term.write("", () => {
      if (!this.#disposed) act();
    });
  }
}

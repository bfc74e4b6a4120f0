// The terminal of a session, over a WebSocket of its own: GET /v1/sessions/{session}/terminal, each of whose messages is
// one AttachRequest or AttachResponse in the wire format of protobuf.
//
//	          first pull               attached
//	   idle ─────────────▶ connecting ──────────▶ live
//	                           ▲    a pause         │ lost, or silent
//	                           └── reconnecting ◀───┘
//
// Behind a loss it goes on at the exact byte where the service still has it, and otherwise with the screen as it is. What
// the consumer has taken is acknowledged, so that one who does not pull has at most a window of bytes waiting here.

import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Linked, unless } from "./abort.js";
import { Backoff, type BackoffOptions } from "./backoff.js";
import { TelexecError, invalid, protocolError } from "./error.js";
import type { ConnectionEvent } from "./follow.js";
import type { Actor, Command, Failure } from "./gen/telexec/v1/command_pb.js";
import { SessionState, ViewerRole, type Session } from "./gen/telexec/v1/session_pb.js";
import {
  AttachRequestSchema, AttachResponseSchema, KeyboardAction, type AttachResponse, type Screen, type ScreenCommand,
} from "./gen/telexec/v1/session_service_pb.js";
import { base64url, closeReason, protocol, statusOf, type ConnectionState, type WebSocketConstructor, type WebSocketLike } from "./link.js";
import { whole } from "./output.js";

/** The size of a terminal in characters. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** What a terminal tells, in the order of the session's output. */
export type TerminalEvent =
  /** One is there: at the beginning, and whenever a lost connection is back. Output goes on at offset. */
  | { readonly type: "attached"; readonly viewer: string; readonly role: ViewerRole; readonly session: Session; readonly resumed: boolean; readonly offset: number }
  /** The terminal as it is: at the beginning, and where bytes were missed. It comes in several pieces where it is large. */
  | TerminalScreenEvent
  /** Bytes that follow exactly on those before. */
  | { readonly type: "output"; readonly offset: number; readonly data: Uint8Array }
  /** The session has changed: who is here, who has the keyboard, size, title, connection. */
  | { readonly type: "session"; readonly session: Session }
  /** A command was begun, or has ended, at this place of the output. */
  | { readonly type: "command"; readonly command: Command; readonly offset: number }
  /** Somebody else typed. */
  | { readonly type: "typed"; readonly viewer: string; readonly actor: Actor | undefined }
  /** What this viewer asked for was not done: why. */
  | { readonly type: "refused"; readonly failure: Failure }
  /** The last event: the session is over. */
  | { readonly type: "ended"; readonly session: Session };

/** What a terminal of this size, newly reset, must be given. */
export interface TerminalScreenEvent {
  readonly type: "screen";
  readonly offset: number;
  readonly data: Uint8Array;
  readonly columns: number;
  readonly rows: number;
  /** Commands that were begun in the lines that data has, of which the first is 0. */
  readonly commands: readonly ScreenCommand[];
  /** It is the rest of the piece before: the terminal is not reset. */
  readonly continued: boolean;
}

/** How somebody attaches to a session. */
export interface AttachOptions {
  /** "observer" sees and never types; "writer" is refused where the caller may not type. Unset: what the caller may do. */
  readonly role?: "observer" | "writer" | undefined;
  /** The size of the viewer's window; unset: it takes what there is. */
  readonly size?: Size | undefined;
  /** What the client calls itself, for the others to see. */
  readonly label?: string | undefined;
  /** Lines of scrollback that come with the screen, 0 to 10,000; 1,000 unless told. */
  readonly scrollback?: number | undefined;
  /** Bytes that may wait here, 16 KiB to 2 MiB; 256 KiB unless told. */
  readonly windowBytes?: number | undefined;
  /** Go on at this offset, where its bytes are still there. */
  readonly fromOffset?: number | undefined;
  /** Leaves. The session goes on. */
  readonly signal?: AbortSignal | undefined;
}

type Say = NonNullable<MessageInitShape<typeof AttachRequestSchema>["request"]>;

/** The service takes no longer ones. */
const maxInput = 64 << 10;
/** How long a handshake, and the answer to the first message, may take. */
const handshakeMs = 10_000;
/** The service says something every 15 s; so much silence is a dead connection. */
const silenceMs = 40_000;
/** Silence is counted in steps, so that a machine that slept has not heard nothing meanwhile. */
const stepMs = 1_000;
/** After so long the next loss is a new one, and the pauses begin anew. */
const settledMs = 10_000;
const defaultWindow = 256 << 10;
/** What shows that all pieces of a screen are there; anything else may come between two of them. */
const behindScreens: ReadonlySet<AttachResponse["response"]["case"]> = new Set(["output", "session", "typed", "heartbeat", "ended"] as const);

/** The consumer does not want more. */
const finished = Symbol("finished");

export interface TerminalLink {
  readonly url: string;
  readonly token: () => Promise<string | undefined>;
  readonly WebSocket: WebSocketConstructor | undefined;
  readonly backoff: BackoffOptions | undefined;
  /** probe asks how the session is by an ordinary call, for a browser does not tell why a handshake failed. */
  readonly probe: (signal: AbortSignal) => Promise<Session>;
  /** Is called once it is over. */
  readonly closed: (terminal: SessionTerminal) => void;
}

/**
 * One viewer of a session. Its events are for one consumer, who goes through them once; the first pull attaches. An event
 * counts as taken when the next is asked for: who draws slowly may wait before that. The methods may be called at any time.
 */
export class SessionTerminal implements AsyncIterableIterator<TerminalEvent | ConnectionEvent> {
  readonly #link: TerminalLink;
  readonly #o: AttachOptions;
  readonly #until: Linked;
  readonly #backoff: Backoff;
  readonly #events: AsyncGenerator<TerminalEvent | ConnectionEvent, void, undefined>;

  readonly #queue: (TerminalEvent | ConnectionEvent)[] = [];
  #wake: (() => void) | undefined;
  #error: TelexecError | undefined;
  #done = false;

  #state: ConnectionState = { state: "idle", attempt: 0 };
  /** The consumer has been told that the connection is not what it was. */
  #told = false;
  #socket: WebSocketLike | undefined;
  #attached = false;
  #size: Size | undefined;
  #viewer = "";
  /** Where output goes on; undefined before the first. */
  #next: number | undefined;
  /** Where the output goes on behind a screen that may have more pieces. */
  #screen: number | undefined;
  /** The output that the consumer has taken, and what the service was told of it. */
  #taken = 0;
  #acknowledged = 0;
  #silentMs = 0;
  /** The service has asked for a pause of so long before the next attempt. */
  #notBeforeMs = 0;
  /** Counts the attempts, so that what comes of an older one is not taken for the present one's. */
  #generation = 0;
  #timer: ReturnType<typeof setTimeout> | undefined; // of the handshake, the next attempt, or settling
  #ticker: ReturnType<typeof setInterval> | undefined;

  constructor(link: TerminalLink, o: AttachOptions) {
    whole("fromOffset", o.fromOffset);
    whole("scrollback", o.scrollback);
    whole("windowBytes", o.windowBytes);
    if (link.WebSocket === undefined) {
      throw invalid("a terminal needs a WebSocket, and there is none here", "Give one as the option WebSocket, use Node 22, or start Node 20 with --experimental-websocket");
    }
    this.#link = link;
    this.#o = o;
    this.#size = o.size;
    this.#next = o.fromOffset;
    this.#backoff = new Backoff(link.backoff);
    this.#until = new Linked(o.signal);
    this.#events = this.#run();
  }

  /** How the connection is. */
  get connection(): ConnectionState {
    return this.#state;
  }

  /** This viewer's own Viewer.id; empty before it is attached. */
  get viewer(): string {
    return this.#viewer;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<TerminalEvent | ConnectionEvent, void>> {
    return this.#events.next();
  }

  /** Leaves, also while a pull waits. The session goes on. */
  async return(): Promise<IteratorResult<TerminalEvent | ConnectionEvent, void>> {
    this.close();
    await this.#events.return();
    return { done: true, value: undefined };
  }

  /**
   * Types; a string as UTF-8. false: there is no connection just now, and nothing was sent. Nothing is kept for later: a
   * key must not do what it was not meant for.
   */
  input(data: Uint8Array | string): boolean {
    if (!this.#attached) return false;
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
    for (let at = 0; at < bytes.length; at += maxInput) this.#send({ case: "input", value: bytes.subarray(at, at + maxInput) });
    return true;
  }

  /** Tells the size of the viewer's window. The terminal takes that of who has the keyboard, else of the writer who told last. */
  resize(size: Size): void {
    this.#size = size;
    if (this.#attached) this.#send({ case: "resize", value: { ...size } });
  }

  /** Takes the keyboard, also from somebody who has it. */
  take(): boolean {
    return this.#keyboard(KeyboardAction.TAKE);
  }

  /** Gives it back: anybody may type then. */
  release(): boolean {
    return this.#keyboard(KeyboardAction.RELEASE);
  }

  /** Gives it to another writer, named by Viewer.id. */
  handOver(viewer: string): boolean {
    return this.#keyboard(KeyboardAction.HAND_OVER, viewer);
  }

  /** Makes the next attempt to connect at once, where one is waited for. */
  retryNow(): void {
    if (this.#state.state === "reconnecting" && this.#socket === undefined && this.#timer !== undefined) void this.#connect();
  }

  /** Leaves. The session goes on. */
  close(): void {
    this.#until.abort(finished);
  }

  /** fail ends it by an error. */
  fail(error: TelexecError): void {
    this.#error ??= error;
    this.#drop();
    this.#wake?.();
  }

  #keyboard(action: KeyboardAction, viewer = ""): boolean {
    if (!this.#attached) return false;
    this.#send({ case: "keyboard", value: { action, viewer } });
    return true;
  }

  async *#run(): AsyncGenerator<TerminalEvent | ConnectionEvent, void, undefined> {
    const { signal } = this.#until;
    const wake = (): void => this.#wake?.();
    signal.addEventListener("abort", wake);
    this.#listen("addEventListener");
    try {
      if (!signal.aborted) void this.#connect();
      while (!signal.aborted) {
        const event = this.#queue.shift();
        if (event !== undefined) {
          yield event;
          this.#acknowledge(event);
        } else if (this.#done) {
          return;
        } else if (this.#error !== undefined) {
          throw this.#error;
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
      if (signal.reason !== finished) throw signal.reason;
    } finally {
      signal.removeEventListener("abort", wake);
      this.#listen("removeEventListener");
      this.#drop(1000);
      this.#until.abort(finished);
      this.#until.free();
      this.#set({ state: "idle", attempt: 0 });
      this.#link.closed(this);
    }
  }

  /** acknowledge notes what the consumer has dealt with, and tells the service of it now and then. */
  #acknowledge(event: TerminalEvent | ConnectionEvent): void {
    if (event.type !== "output" && event.type !== "screen") return;
    this.#taken = event.type === "output" ? event.offset + event.data.length : event.offset;
    const due = event.type === "screen" || this.#taken - this.#acknowledged >= (this.#o.windowBytes ?? defaultWindow) / 8;
    if (!due || !this.#attached) return;
    this.#acknowledged = this.#taken;
    this.#send({ case: "acknowledged", value: BigInt(this.#taken) });
  }

  #push(event: TerminalEvent | ConnectionEvent): void {
    const last = this.#queue.at(-1);
    // Of what is only how things are now, the newest counts; so that no queue grows while nobody pulls.
    if (last?.type === event.type && (event.type === "session" || event.type === "typed" || event.type === "connection")) this.#queue.pop();
    this.#queue.push(event);
    this.#wake?.();
  }

  #set(state: ConnectionState): void {
    const old = this.#state;
    this.#state = state;
    if (old.state === state.state && old.attempt === state.attempt && old.retryAt === state.retryAt && old.reason === state.reason) return;
    if (state.state === "reconnecting" || (state.state === "live" && this.#told)) {
      this.#told = state.state !== "live";
      this.#push({ type: "connection", connection: state });
    }
  }

  // ── one connection ──────────────────────────────────────────────────────────────────────────────────────────────

  async #connect(): Promise<void> {
    this.#drop();
    const generation = this.#generation;
    const { attempts } = this.#backoff;
    this.#timer = setTimeout(() => this.#lost("the handshake took too long"), handshakeMs);
    this.#set(attempts === 0 ? { state: "connecting", attempt: 0 } : { state: "reconnecting", attempt: attempts, reason: this.#state.reason ?? "" });
    let token: string | undefined;
    try {
      token = await this.#link.token();
    } catch (e) {
      if (generation !== this.#generation) return;
      if (e instanceof TelexecError && !e.temporary) this.fail(e);
      else this.#lost(e instanceof Error ? e.message : String(e));
      return;
    }
    if (generation !== this.#generation || this.#until.signal.aborted) return;
    const Socket = this.#link.WebSocket as WebSocketConstructor;
    let socket: WebSocketLike;
    try {
      socket = new Socket(this.#link.url, token === undefined ? [protocol] : [protocol, `telexec.bearer.${base64url(token)}`]);
    } catch (e) {
      this.#lost(`the WebSocket could not be made: ${e instanceof Error ? e.message : String(e)}`);
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#start();
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => this.#message(event.data);
    // A close follows; but the one of Node 20 leaves it out where the handshake fails.
    socket.onerror = () => {
      if (!this.#attached) this.#lost("the WebSocket could not be opened");
    };
    socket.onclose = (event: CloseEvent) => this.#lost(closeReason(event));
  }

  #start(): void {
    const { role, label, scrollback, windowBytes } = this.#o;
    this.#send({
      case: "start",
      value: {
        role: role === "observer" ? ViewerRole.OBSERVER : role === "writer" ? ViewerRole.WRITER : ViewerRole.UNSPECIFIED,
        label: label ?? "",
        windowBytes: windowBytes ?? defaultWindow,
        ...(this.#size === undefined ? {} : { size: { ...this.#size } }),
        ...(scrollback === undefined ? {} : { scrollbackLines: scrollback }),
        ...(this.#next === undefined ? {} : { fromOffset: BigInt(this.#next) }),
      },
    });
  }

  #message(data: ArrayBuffer | string): void {
    this.#silentMs = 0;
    let said: AttachResponse;
    try {
      said = fromBinary(AttachResponseSchema, new Uint8Array(data as ArrayBuffer));
    } catch {
      this.#lost("the service said something that cannot be understood");
      return;
    }
    const { response } = said;
    if (this.#screen !== undefined && behindScreens.has(response.case)) {
      this.#next = this.#screen;
      this.#screen = undefined;
    }
    switch (response.case) {
      case "attached": {
        const { viewer, role, session, resumed, offset } = response.value;
        if (session === undefined) return this.fail(protocolError("the service tells of no session"));
        this.#settle();
        this.#viewer = viewer;
        if (!resumed) this.#next = undefined;
        this.#screen = undefined;
        this.#acknowledged = Number(offset);
        this.#push({ type: "attached", viewer, role, session, resumed, offset: Number(offset) });
        return;
      }
      case "screen":
        this.#next = undefined; // until all pieces are here, which what comes behind them shows
        this.#screen = Number(response.value.offset);
        this.#push(screenEvent(response.value));
        return;
      case "output":
        this.#output(Number(response.value.offset), response.value.data);
        return;
      case "session":
        this.#push({ type: "session", session: response.value });
        return;
      case "command":
        if (response.value.command !== undefined) this.#push({ type: "command", command: response.value.command, offset: Number(response.value.offset) });
        return;
      case "typed":
        this.#push({ type: "typed", viewer: response.value.viewer, actor: response.value.actor });
        return;
      case "refused":
        this.#push({ type: "refused", failure: response.value });
        return;
      case "error": {
        // The service closes the socket behind it. Whether other credentials are there by now, the next handshake shows.
        const error = statusOf(response.value);
        if (!error.temporary && error.code !== "UNAUTHENTICATED") this.fail(error);
        this.#notBeforeMs = error.retryDelayMs ?? 0;
        return;
      }
      case "ended":
        this.#done = true;
        this.#push({ type: "ended", session: response.value });
        this.#drop(1000);
        return;
    }
  }

  /** output passes on what is new. A gap is none that the service may leave: it would send the screen. */
  #output(offset: number, data: Uint8Array): void {
    const next = this.#next ?? offset;
    if (offset > next) {
      this.#lost(`the service left out bytes ${next} to ${offset} without saying so`);
      return;
    }
    const known = Math.min(next - offset, data.length);
    this.#next = Math.max(next, offset + data.length);
    if (known < data.length) this.#push({ type: "output", offset: offset + known, data: data.subarray(known) });
  }

  #settle(): void {
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    this.#attached = true;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#backoff.reset();
    }, settledMs);
    this.#ticker = setInterval(() => {
      this.#silentMs += stepMs;
      if (this.#silentMs >= silenceMs) this.#lost(`nothing has come for ${silenceMs / 1000} s`);
    }, stepMs);
    this.#set({ state: "live", attempt: 0 });
  }

  #send(request: Say): void {
    this.#socket?.send(toBinary(AttachRequestSchema, create(AttachRequestSchema, { request })));
  }

  /** drop forgets the socket; what it may still say is not heard. */
  #drop(code?: number): void {
    this.#generation++;
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    this.#timer = this.#ticker = undefined;
    this.#attached = false;
    this.#silentMs = 0;
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => undefined;
    try {
      socket.close(code);
    } catch {
      // Still connecting, in an implementation that minds.
    }
  }

  // ── loss ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** lost makes another attempt after a pause, unless nobody wants one, or it is found that none can work. */
  #lost(reason: string): void {
    const mute = !this.#attached;
    this.#drop();
    if (this.#done || this.#error !== undefined || this.#until.signal.aborted) return;
    const delay = this.#backoff.next(this.#notBeforeMs);
    this.#notBeforeMs = 0;
    this.#timer = setTimeout(() => void this.#connect(), delay);
    this.#set({ state: "reconnecting", attempt: this.#backoff.attempts, retryAt: new Date(Date.now() + delay), reason });
    if (mute) void this.#probe();
  }

  async #probe(): Promise<void> {
    const generation = this.#generation;
    let session: Session;
    try {
      session = await unless(this.#until.signal, this.#link.probe(this.#until.signal));
    } catch (e) {
      // A proxy's own answer tells nothing of the session.
      if (e instanceof TelexecError && !e.temporary && e.reason !== "") this.fail(e);
      return;
    }
    if (this.#attached || this.#done || this.#error !== undefined || this.#until.signal.aborted) return;
    if (session.state === SessionState.ENDED) {
      // It was over before this viewer could be told.
      this.#done = true;
      this.#drop();
      this.#push({ type: "ended", session });
    } else if (generation === this.#generation && this.#state.state === "reconnecting") {
      this.#set({ ...this.#state, reason: "the service answers, but its WebSockets do not get through" });
    }
  }

  // ── the browser knows when another attempt is worth it ──────────────────────────────────────────────────────────

  readonly #awake = (): void => {
    if (globalThis.document?.visibilityState !== "hidden") this.retryNow();
  };

  /** An open socket would only fall silent. */
  readonly #offline = (): void => {
    if (this.#attached) this.#lost("the browser is offline");
  };

  #listen(change: "addEventListener" | "removeEventListener"): void {
    if (typeof globalThis.addEventListener !== "function") return;
    globalThis[change]("online", this.#awake);
    globalThis[change]("offline", this.#offline);
    globalThis.document?.[change]("visibilitychange", this.#awake);
  }
}

function screenEvent(s: Screen): TerminalScreenEvent {
  return { type: "screen", offset: Number(s.offset), data: s.data, columns: s.columns, rows: s.rows, commands: s.commands, continued: s.continued };
}

// One WebSocket of a client, and all that is followed over it.
//
//	            first follower            said by the service
//	   idle ──────────────────▶ connecting ──────────────────▶ live
//	    ▲                            │ ▲                        │
//	    │ nobody follows             ▼ │ a pause                │ lost, or silent
//	    └──────────────────────── reconnecting ◀────────────────┘
//	                                 │ ▲
//	  a handshake failed, HTTP was   ▼ │ tried again now and then
//	  answered, the next failed    polling
//
// A link knows nothing of what is followed: a Follower says what to ask for, from where it is by now, whenever there is
// a new connection, and takes what comes.

import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Backoff, type BackoffOptions } from "./backoff.js";
import { TelexecError, clientClosed, fromStatus, protocolError } from "./error.js";
import type { Status } from "./gen/google/rpc/status_pb.js";
import { SocketMessageSchema, SocketRequestSchema, type SocketMessage } from "./gen/telexec/v1/socket_pb.js";

/** How what is followed reaches this client. */
export interface ConnectionState {
  /**
   * "idle": nothing is followed. "connecting": for the first time. "live": over a WebSocket. "polling": by asking again and
   * again, because a WebSocket cannot be had. "reconnecting": there is none just now; what is followed goes on where it was.
   */
  readonly state: "idle" | "connecting" | "live" | "polling" | "reconnecting";
  /** How many attempts were made since it last worked; 0 while it works. */
  readonly attempt: number;
  /** When the next one is made, while that is waited for. */
  readonly retryAt?: Date;
  /** Why it does not work, or why it is polling; one sentence for people. */
  readonly reason?: string;
}

/** What makes a WebSocket: that of browsers, and of Node from 22 on. */
export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike;

/** The part of a WebSocket that is used. */
export interface WebSocketLike {
  binaryType: string;
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  onerror: ((event: never) => unknown) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** What to ask for, of a subscription. */
export type Subscribe = NonNullable<MessageInitShape<typeof SocketRequestSchema>["request"]>;

/** Something that is followed. */
export interface Follower {
  /** No word about anything for so long means that the connection is dead. */
  readonly silenceMs: number;
  /** What to ask for now; undefined: nothing, until it is resubscribed. */
  subscribe(): Subscribe | undefined;
  /** Takes what the service says about it. */
  receive(message: SocketMessage): void;
  /** Ends it. */
  fail(error: TelexecError): void;
  /** The state of the link has changed. */
  stateChanged(state: ConnectionState): void;
  /** Whatever it waits for by itself, it is to try now. */
  hurry(): void;
}

export interface LinkOptions {
  readonly url: string;
  readonly token: () => Promise<string | undefined>;
  /** undefined: it polls. */
  readonly WebSocket: WebSocketConstructor | undefined;
  /** It never polls instead. */
  readonly socketOnly: boolean;
  readonly backoff: BackoffOptions | undefined;
  /** probe asks the service by HTTP whether it is there; it rejects with a TelexecError. */
  readonly probe: (signal?: AbortSignal) => Promise<unknown>;
}

/** Subscriptions that a socket may have; the service takes no more. */
const maxFollowers = 64;

/** The subprotocol of protobuf's wire format. */
export const protocol = "telexec.v1.proto";
/** Behind one of these nothing more comes of a subscription. */
const lastOf = new Set<string | undefined>(["ended", "unsubscribed", "error"]);
/** How long a handshake may take. */
const handshakeMs = 10_000;
/** A socket that nobody needs is closed after so long. */
const idleMs = 1_000;
/** After so long the next loss is a new one, and the pauses begin anew. */
const settledMs = 10_000;
/** Silence is counted in steps, so that a machine that slept has not heard nothing meanwhile. */
const stepMs = 1_000;
/** How often a WebSocket is tried again while polling: at first, and at most. */
const retrySocketMs = { first: 30_000, max: 300_000 };

export class Link {
  readonly #o: LinkOptions;
  readonly #backoff: Backoff;
  readonly #followers = new Set<Follower>();
  /** Subscriptions that the socket has, by the ids that they have there. */
  readonly #byId = new Map<string, Follower>();
  readonly #ids = new Map<Follower, string>();
  readonly #changed: () => void;

  #state: ConnectionState = { state: "idle", attempt: 0 };
  #polling: boolean;
  #closed = false;
  #socket: WebSocketLike | undefined;
  #opened = false;
  /** The service has said something over this socket, so that it is one. */
  #heard = false;
  #silentMs = 0;
  /** Nothing was ever heard over the last socket. */
  #mute = false;
  /** How many attempts were begun since HTTP was answered behind a mute one: they should have worked. undefined: it was not. */
  #triedSince: number | undefined;
  /** The service has asked for a pause of so long before the next attempt. */
  #notBeforeMs = 0;
  #nextId = 0;
  /** The service is being asked by HTTP whether it is there. */
  #probing = false;
  /** Counts the attempts, so that what comes of an older one is not taken for the present one's. */
  #generation = 0;
  /** While polling: when a WebSocket is tried again, and the pause behind that. */
  #socketAt = 0;
  #nextSocketMs = retrySocketMs.first;
  #timer: ReturnType<typeof setTimeout> | undefined; // of the next attempt, the handshake, or settling
  #ticker: ReturnType<typeof setInterval> | undefined;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #listening = false;

  /** changed is called whenever state is another one. */
  constructor(o: LinkOptions, changed: () => void) {
    this.#o = o;
    this.#changed = changed;
    this.#backoff = new Backoff(o.backoff);
    this.#polling = o.WebSocket === undefined;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Whether followers are to ask by themselves. */
  get polling(): boolean {
    return this.#polling;
  }

  /** Whether it takes no more followers. One without a WebSocket takes any number. */
  get full(): boolean {
    return this.#o.WebSocket !== undefined && this.#followers.size >= maxFollowers;
  }

  /** attach begins to follow. */
  attach(f: Follower): void {
    if (this.#closed) {
      f.fail(clientClosed());
      return;
    }
    clearTimeout(this.#idle);
    this.#idle = undefined;
    // One that comes later is told what the others know.
    if (this.#followers.size > 0) f.stateChanged(this.#state);
    this.#followers.add(f);
    if (this.#polling) {
      this.#trySocketLater();
      if (this.#state.state === "idle") this.#set({ state: "polling", attempt: 0, ...this.#why() });
    } else if (this.#socket === undefined && this.#timer === undefined) {
      void this.#connect();
    } else if (this.#opened) {
      this.#subscribe(f);
    }
  }

  /** detach ends following, and the socket when nobody follows any more. */
  detach(f: Follower): void {
    if (!this.#followers.delete(f)) return;
    this.unsubscribe(f);
    if (this.#followers.size > 0) return;
    if (this.#socket === undefined) {
      this.#rest();
      return;
    }
    this.#idle = setTimeout(() => this.#rest(), idleMs);
  }

  /** unsubscribe stops what is said about f until it is subscribed again. */
  unsubscribe(f: Follower): void {
    const id = this.#ids.get(f);
    if (id === undefined) return;
    this.#ids.delete(f);
    this.#byId.delete(id);
    this.#send(this.#newId(), { case: "unsubscribe", value: { subscription: id } });
  }

  /** resubscribe goes on where f is; without a connection it does nothing, for the next one begins so. */
  resubscribe(f: Follower): void {
    if (this.#opened && this.#followers.has(f) && !this.#ids.has(f)) this.#subscribe(f);
  }

  /** retryNow makes the next attempt at once. */
  retryNow(): void {
    if (this.#closed || this.#followers.size === 0) return;
    if (this.#state.state === "reconnecting" && this.#polling) for (const f of [...this.#followers]) f.hurry();
    if (this.#o.WebSocket !== undefined && this.#socket === undefined && this.#timer !== undefined) void this.#connect();
  }

  /** check asks the service whether it is there and the credentials are good; otherwise it rejects. */
  async check(signal: AbortSignal): Promise<void> {
    await this.#o.probe(signal);
  }

  /** pollWorked and pollFailed tell how asking went. */
  pollWorked(): void {
    if (!this.#polling || this.#state.state !== "reconnecting") return;
    // The service was away: that may have been all that the WebSocket lacked.
    this.#trySocketSoon();
    this.#set({ state: "polling", attempt: 0, ...this.#why() });
  }

  pollFailed(error: TelexecError, attempt: number, retryAt: Date): void {
    if (this.#polling) this.#set({ state: "reconnecting", attempt, retryAt, reason: error.message });
  }

  close(): void {
    this.#closed = true;
    for (const f of [...this.#followers]) f.fail(clientClosed());
    this.#followers.clear();
    this.#rest();
  }

  /** rest closes what is open, until there is a follower again. */
  #rest(): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    this.#drop(1000);
    this.#backoff.reset();
    this.#mute = false;
    this.#triedSince = undefined;
    this.#set({ state: "idle", attempt: 0 });
  }

  #why(): { reason: string } {
    return { reason: this.#o.WebSocket === undefined ? "there is no WebSocket here" : "WebSockets do not get through to the service" };
  }

  /** set comes behind the timer that goes with a state: who is told may close the client. */
  #set(state: ConnectionState): void {
    const old = this.#state;
    this.#state = state;
    this.#listen(state.state !== "idle");
    if (old.state === state.state && old.attempt === state.attempt && old.retryAt === state.retryAt && old.reason === state.reason) return;
    for (const f of [...this.#followers]) f.stateChanged(state);
    this.#changed();
  }

  // ── one connection ──────────────────────────────────────────────────────────────────────────────────────────────

  async #connect(): Promise<void> {
    this.#drop();
    const Socket = this.#o.WebSocket;
    if (Socket === undefined) return;
    const generation = this.#generation;
    if (this.#triedSince !== undefined) this.#triedSince++;
    // Before the token is there: nobody else may begin meanwhile.
    this.#timer = setTimeout(() => this.#lost("the handshake took too long"), handshakeMs);
    if (this.#polling) {
      this.#postpone();
    } else {
      const attempt = this.#backoff.attempts;
      this.#set(attempt === 0 ? { state: "connecting", attempt } : { state: "reconnecting", attempt, ...because(this.#state.reason) });
    }
    let token: string | undefined;
    try {
      token = await this.#o.token();
    } catch (e) {
      if (generation !== this.#generation) return;
      if (e instanceof TelexecError && !e.temporary) this.#failAll(e);
      else this.#lost(e instanceof Error ? e.message : String(e), false);
      return;
    }
    if (generation !== this.#generation) return;
    let socket: WebSocketLike;
    try {
      socket = new Socket(this.#o.url, token === undefined ? [protocol] : [protocol, `telexec.bearer.${base64url(token)}`]);
    } catch (e) {
      // Some refuse at once what may not be: a page that came over TLS, an address without.
      this.#lost(`the WebSocket could not be made: ${e instanceof Error ? e.message : String(e)}`);
      return;
    }
    this.#listenTo(socket);
  }

  #listenTo(socket: WebSocketLike): void {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#open();
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => this.#message(event.data);
    // A close follows; but the one of Node 20 leaves it out where the handshake fails.
    socket.onerror = () => {
      if (!this.#opened) this.#lost("the WebSocket could not be opened");
    };
    socket.onclose = (event: CloseEvent) => this.#lost(closeReason(event));
  }

  #open(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#opened = true;
    this.#silentMs = 0;
    this.#polling = false;
    this.#ticker = setInterval(() => this.#tick(), stepMs);
    this.#set({ state: "live", attempt: 0 });
    for (const f of [...this.#followers]) this.#subscribe(f);
  }

  #tick(): void {
    // With no subscription nothing is to be heard.
    if (this.#ids.size === 0) return;
    this.#silentMs += stepMs;
    let limit = Infinity;
    for (const f of this.#ids.keys()) limit = Math.min(limit, f.silenceMs);
    if (this.#silentMs >= limit) this.#lost(`nothing has come for ${limit / 1000} s`);
  }

  #message(data: ArrayBuffer | string): void {
    this.#silentMs = 0;
    if (!this.#heard) {
      this.#heard = true;
      this.#mute = false;
      this.#triedSince = undefined;
      this.#nextSocketMs = retrySocketMs.first;
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#backoff.reset();
      }, settledMs);
    }
    let message: SocketMessage;
    try {
      message = fromBinary(SocketMessageSchema, new Uint8Array(data as ArrayBuffer));
    } catch {
      this.#lost("the service said something that cannot be understood");
      return;
    }
    if (message.id === "" && message.data?.data.case === "error") {
      const error = statusOf(message.data.data.value);
      // The service closes the socket behind it. Whether other credentials are there by now, the next handshake shows.
      if (!error.temporary && error.code !== "UNAUTHENTICATED") this.#failAll(error);
      this.#notBeforeMs = error.retryDelayMs ?? 0;
      return;
    }
    const f = this.#byId.get(message.id);
    if (f === undefined) return;
    if (lastOf.has(message.data?.data.case)) {
      this.#byId.delete(message.id);
      this.#ids.delete(f);
    }
    f.receive(message);
  }

  #subscribe(f: Follower): void {
    const request = f.subscribe();
    if (request === undefined) return;
    const id = this.#newId();
    this.#ids.set(f, id);
    this.#byId.set(id, f);
    if (this.#ids.size === 1) this.#silentMs = 0;
    this.#send(id, request);
  }

  #newId(): string {
    return `s${++this.#nextId}`;
  }

  #send(id: string, request: Subscribe): void {
    if (!this.#opened) return;
    this.#socket?.send(toBinary(SocketRequestSchema, create(SocketRequestSchema, { id, request })));
  }

  /** drop forgets the socket; what it may still say is not heard. */
  #drop(code?: number): void {
    this.#generation++;
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    this.#timer = this.#ticker = undefined;
    this.#ids.clear();
    this.#byId.clear();
    this.#opened = this.#heard = false;
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

  /** lost makes another attempt, unless nobody needs one. mute: over this socket nothing was heard, though it should. */
  #lost(reason: string, mute = this.#unheard()): void {
    this.#drop();
    if (this.#followers.size === 0) {
      this.#rest();
      return;
    }
    if (this.#polling) {
      this.#trySocketLater();
      return;
    }
    this.#mute = mute;
    if (!mute) this.#triedSince = undefined;
    if (this.#triedSince && !this.#o.socketOnly) {
      this.#poll();
      return;
    }
    this.#later(reason);
    if (mute) this.#probe();
  }

  #unheard(): boolean {
    // With no subscription, all of whose consumers are busy, nothing was to be heard.
    return !this.#heard && !(this.#opened && this.#ids.size === 0);
  }

  /**
   * probe asks by an ordinary call, for a browser does not tell why a handshake failed. The answer counts as long as no
   * socket was better meanwhile: it may take longer than the next attempts. They may have failed because the service was
   * away until it answered, so that there is one more behind it, at once; only one, for it may fail at once as well.
   */
  #probe(): void {
    if (this.#probing) return;
    this.#probing = true;
    const still = (): boolean => {
      this.#probing = false;
      return !this.#opened && this.#mute && !this.#polling && this.#followers.size > 0;
    };
    this.#o.probe().then(
      () => {
        if (!still()) return;
        this.#triedSince ??= 0;
        if (this.#triedSince === 0 && this.#socket === undefined && this.#timer !== undefined) void this.#connect();
      },
      (e: unknown) => {
        if (still() && e instanceof TelexecError && !e.temporary && e.reason !== "") this.#failAll(e);
      },
    );
  }

  /** later makes another attempt after a pause. */
  #later(reason: string): void {
    const delay = this.#backoff.next(this.#notBeforeMs);
    this.#notBeforeMs = 0;
    this.#timer = setTimeout(() => void this.#connect(), delay);
    this.#set({ state: "reconnecting", attempt: this.#backoff.attempts, retryAt: new Date(Date.now() + delay), reason });
  }

  #poll(): void {
    this.#drop();
    this.#polling = true;
    this.#backoff.reset();
    this.#postpone();
    this.#trySocketLater();
    this.#set({ state: "polling", attempt: 0, ...this.#why() });
  }

  #trySocketLater(): void {
    if (this.#o.WebSocket === undefined || this.#timer !== undefined || this.#socket !== undefined) return;
    this.#timer = setTimeout(() => void this.#connect(), Math.max(0, this.#socketAt - Date.now()));
  }

  /**
   * trySocketSoon does so after a pause as between attempts, for polls may fail and work in turn. A handshake that began
   * while the service was away is given up: it may hang for long.
   */
  #trySocketSoon(): void {
    this.#drop();
    this.#socketAt = Math.min(this.#socketAt, Date.now() + this.#backoff.next());
    this.#trySocketLater();
  }

  /** postpone says when a WebSocket is tried behind the present attempt. */
  #postpone(): void {
    this.#socketAt = Date.now() + this.#nextSocketMs;
    this.#nextSocketMs = Math.min(2 * this.#nextSocketMs, retrySocketMs.max);
  }

  #failAll(error: TelexecError): void {
    const followers = [...this.#followers];
    this.#followers.clear();
    this.#rest();
    for (const f of followers) f.fail(error);
  }

  // ── the browser knows when another attempt is worth it ──────────────────────────────────────────────────────────

  readonly #awake = (): void => {
    if (globalThis.document?.visibilityState !== "hidden") this.retryNow();
  };

  /** An open socket would only fall silent. */
  readonly #offline = (): void => {
    if (this.#opened) this.#lost("the browser is offline", false);
  };

  #listen(on: boolean): void {
    if (on === this.#listening || typeof globalThis.addEventListener !== "function") return;
    this.#listening = on;
    const change = on ? "addEventListener" : "removeEventListener";
    globalThis[change]("online", this.#awake);
    globalThis[change]("offline", this.#offline);
    globalThis.document?.[change]("visibilitychange", this.#awake);
  }
}

/** statusOf is fromStatus, also for what cannot be understood. */
export function statusOf(status: Status): TelexecError {
  try {
    return fromStatus(status);
  } catch (e) {
    return protocolError("the service tells of a failure that cannot be understood", "UNAVAILABLE", e);
  }
}

export function closeReason(event: { code: number; reason: string }): string {
  return event.reason !== "" ? event.reason : `the connection was closed (${event.code})`;
}

export function base64url(text: string): string {
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function because(reason: string | undefined): { reason?: string } {
  return reason === undefined ? {} : { reason };
}

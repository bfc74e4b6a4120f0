// What happens in the service: the changes of all commands that the caller may see.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { pause } from "./abort.js";
import { unreachable, type TelexecError } from "./error.js";
import { pollBytes, type Cursor } from "./follow.js";
import type { Command } from "./gen/telexec/v1/command_pb.js";
import type { WatchEventsResponse } from "./gen/telexec/v1/event_service_pb.js";
import { SessionState, type Session } from "./gen/telexec/v1/session_pb.js";
import type { SocketMessage } from "./gen/telexec/v1/socket_pb.js";
import type { Subscribe } from "./link.js";
import { mark, sizeOf, whole } from "./output.js";
import type { Rest } from "./rest.js";
import { routes } from "./routes.js";

/** What is told of all commands. */
export type CommandEvent =
  /** A command was made or has changed: this is how it is. sequence is where to go on after it. */
  | { readonly type: "command"; readonly command: Command; readonly sequence: bigint }
  /** A session was opened, has changed, or has ended: this is how it is. */
  | { readonly type: "session"; readonly session: Session }
  /**
   * What was missed has been told; from here on it is live. Told again whenever the connection was lost and is back, and
   * while polling whenever a session is gone. sessions are the ids of those that have not ended: whoever knows of others
   * asks how they ended.
   */
  | { readonly type: "synced"; readonly sequence: bigint; readonly sessions: readonly string[] };

/** From where, and of what. All filters given must match. */
export interface EventsStart {
  /** sequence of the last event that the caller has; 0: all that is stored. Unset: only what has not ended. */
  readonly after?: bigint | number | undefined;
  readonly host?: string | undefined;
  readonly principal?: string | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

const pollEveryMs = 2_000;
/** Of so many commands is remembered how they were told last. */
const remembered = 10_000;

export class EventCursor implements Cursor<CommandEvent> {
  readonly silenceMs = 25_000;
  readonly done = false;

  readonly #rest: Rest;
  readonly #o: EventsStart;
  #after: bigint | undefined;
  /** How commands were told last: whoever has not ended is told again after a loss, and by every poll. */
  readonly #told = new Map<string, { version: bigint; mark: string }>();
  /** How sessions were told last, of those that have not ended. */
  readonly #sessions = new Map<string, { version: bigint; mark: string }>();
  /** Those that were told since it was asked last what there is. */
  #present = new Set<string>();
  #polledBefore = false;
  /** The last poll was not the whole of it. */
  #more = false;

  constructor(rest: Rest, o: EventsStart) {
    whole("after", o.after);
    this.#rest = rest;
    this.#o = o;
    this.#after = o.after === undefined ? undefined : BigInt(o.after);
  }

  #where() {
    return {
      ...(this.#after === undefined ? {} : { after: this.#after }),
      host: this.#o.host ?? "",
      principal: this.#o.principal ?? "",
      labels: { ...this.#o.labels },
      heartbeat: durationFromMs(10_000),
    };
  }

  subscribe(): Subscribe {
    this.#present = new Set();
    return { case: "subscribeEvents", value: this.#where() };
  }

  accept(message: SocketMessage): CommandEvent[] {
    const data = message.data?.data;
    switch (data?.case) {
      case "event":
        return this.#changed(data.value, message.sequence);
      case "session":
        return this.#session(data.value);
      case "synced":
        this.#forget();
        return [{ type: "synced", sequence: this.#advance(message.sequence), sessions: [...this.#present] }];
      case "heartbeat":
        this.#advance(message.sequence);
        return [];
      default:
        return [];
    }
  }

  #advance(sequence: bigint): bigint {
    if (this.#after === undefined || sequence > this.#after) this.#after = sequence;
    return this.#after;
  }

  #changed(command: Command, sequence: bigint): CommandEvent[] {
    const at = this.#advance(sequence);
    const known = this.#told.get(command.id);
    const now = { version: command.version, mark: mark(command) };
    if (known !== undefined && (now.version < known.version || (now.version === known.version && now.mark === known.mark))) return [];
    this.#told.delete(command.id); // so that the order is that of the last word
    this.#told.set(command.id, now);
    if (this.#told.size > remembered) {
      for (const id of this.#told.keys()) {
        this.#told.delete(id);
        break;
      }
    }
    return [{ type: "command", command, sequence: at }];
  }

  /** session passes on what is news: all that have not ended are told again after a loss, and by every poll. */
  #session(session: Session): CommandEvent[] {
    const { id, version } = session;
    if (session.state === SessionState.ENDED) {
      this.#present.delete(id);
      this.#sessions.delete(id);
      return [{ type: "session", session }];
    }
    this.#present.add(id);
    const known = this.#sessions.get(id);
    const now = { version, mark: sessionMark(session) };
    if (known !== undefined && (version < known.version || (version === known.version && now.mark === known.mark))) return [];
    this.#sessions.set(id, now);
    return [{ type: "session", session }];
  }

  /** forget forgets those that were not told again: they have ended. */
  #forget(): boolean {
    let gone = false;
    for (const id of this.#sessions.keys()) {
      if (this.#present.has(id)) continue;
      this.#sessions.delete(id);
      gone = true;
    }
    return gone;
  }

  async poll(signal: AbortSignal, give: (events: CommandEvent[]) => void): Promise<boolean> {
    if (this.#polledBefore && !this.#more) await pause(pollEveryMs, signal);
    let bytes = 0;
    this.#present = new Set();
    for await (const said of this.#rest.lines(routes.watchEvents, this.#where(), { signal, silenceMs: this.silenceMs })) {
      if (signal.aborted) return false;
      if (said.event.case === "command") {
        const events = this.#changed(said.event.value, said.sequence);
        give(events);
        for (const e of events) bytes += this.size(e);
        // The rest is asked for when these are taken: of a long history there is no end.
        if ((this.#more = bytes >= pollBytes)) return true;
      }
      if (said.event.case === "session") give(this.#session(said.event.value));
      if (said.event.case !== "synced") continue;
      this.#more = false;
      give(this.#synced(said));
      return true;
    }
    throw unreachable("the answer was cut off");
  }

  /** synced is told of the first poll, and where a session is gone: it would come every two seconds. */
  #synced(said: WatchEventsResponse): CommandEvent[] {
    const sequence = this.#advance(said.sequence);
    const first = !this.#polledBefore;
    this.#polledBefore = true;
    const gone = this.#forget();
    return first || gone ? [{ type: "synced", sequence, sessions: [...this.#present] }] : [];
  }

  recover(error: TelexecError): Promise<boolean> {
    // The store is another one than before. What began at a place in the old one cannot go on; what began at the beginning,
    // or with what has not ended, can do so again.
    if (error.reason !== "EVENTS_UNKNOWN" || Number(this.#o.after ?? 0) !== 0) return Promise.resolve(false);
    this.#after = this.#o.after === undefined ? undefined : 0n;
    this.#told.clear();
    this.#sessions.clear();
    this.#polledBefore = false;
    return Promise.resolve(true);
  }

  size(event: CommandEvent): number {
    switch (event.type) {
      case "command":
        return sizeOf(event.command);
      case "session":
        return 2_048 + 512 * event.session.viewers.length;
      case "synced":
        return 256 + 64 * event.sessions.length;
    }
  }
}

/** sessionMark tells states of a session of one version apart: what changes without a new one. */
function sessionMark(s: Session): string {
  return [s.keyboard, s.currentCommand, s.connection, s.title, s.columns, s.rows, ...s.viewers.map((v) => `${v.id} ${v.role} ${v.behind}`)].join("\n");
}

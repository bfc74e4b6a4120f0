// What happens in the service: the changes of all commands that the caller may see.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { pause } from "./abort.js";
import { unreachable, type TelexecError } from "./error.js";
import { pollBytes, type Cursor } from "./follow.js";
import type { Command } from "./gen/telexec/v1/command_pb.js";
import type { WatchEventsResponse } from "./gen/telexec/v1/event_service_pb.js";
import type { SocketMessage } from "./gen/telexec/v1/socket_pb.js";
import type { Subscribe } from "./link.js";
import { mark, sizeOf, whole } from "./output.js";
import type { Rest } from "./rest.js";
import { routes } from "./routes.js";

/** What is told of all commands. */
export type CommandEvent =
  /** A command was made or has changed: this is how it is. sequence is where to go on after it. */
  | { readonly type: "command"; readonly command: Command; readonly sequence: bigint }
  /** What was missed has been told; from here on it is live. Told again whenever the connection was lost and is back. */
  | { readonly type: "synced"; readonly sequence: bigint };

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
    return { case: "subscribeEvents", value: this.#where() };
  }

  accept(message: SocketMessage): CommandEvent[] {
    const data = message.data?.data;
    switch (data?.case) {
      case "event":
        return this.#changed(data.value, message.sequence);
      case "synced":
        return [{ type: "synced", sequence: this.#advance(message.sequence) }];
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

  async poll(signal: AbortSignal, give: (events: CommandEvent[]) => void): Promise<boolean> {
    if (this.#polledBefore && !this.#more) await pause(pollEveryMs, signal);
    let bytes = 0;
    for await (const said of this.#rest.lines(routes.watchEvents, this.#where(), { signal, silenceMs: this.silenceMs })) {
      if (signal.aborted) return false;
      if (said.event.case === "command") {
        const events = this.#changed(said.event.value, said.sequence);
        give(events);
        for (const e of events) bytes += this.size(e);
        // The rest is asked for when these are taken: of a long history there is no end.
        if ((this.#more = bytes >= pollBytes)) return true;
      }
      if (said.event.case !== "synced") continue;
      this.#more = false;
      give(this.#synced(said));
      return true;
    }
    throw unreachable("the answer was cut off");
  }

  /** synced is told of the first poll only: it would come every two seconds. */
  #synced(said: WatchEventsResponse): CommandEvent[] {
    const sequence = this.#advance(said.sequence);
    const first = !this.#polledBefore;
    this.#polledBefore = true;
    return first ? [{ type: "synced", sequence }] : [];
  }

  recover(error: TelexecError): Promise<boolean> {
    // The store is another one than before. What began at a place in the old one cannot go on; what began at the beginning,
    // or with what has not ended, can do so again.
    if (error.reason !== "EVENTS_UNKNOWN" || Number(this.#o.after ?? 0) !== 0) return Promise.resolve(false);
    this.#after = this.#o.after === undefined ? undefined : 0n;
    this.#told.clear();
    this.#polledBefore = false;
    return Promise.resolve(true);
  }

  size(event: CommandEvent): number {
    return event.type === "command" ? sizeOf(event.command) : 256;
  }
}

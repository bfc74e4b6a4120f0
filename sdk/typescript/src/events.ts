// What happens in the service: the changes of all commands and sessions that the caller may see, and the events of tasks.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { pause } from "./abort.js";
import { protocolError, unreachable, type TelexecError } from "./error.js";
import { pollBytes, type Cursor } from "./follow.js";
import type { Command } from "./gen/telexec/v1/command_pb.js";
import type { WatchEventsResponse } from "./gen/telexec/v1/event_service_pb.js";
import { SessionState, type Session } from "./gen/telexec/v1/session_pb.js";
import type { SocketMessage } from "./gen/telexec/v1/socket_pb.js";
import type { Task, TaskEvent } from "./gen/telexec/v1/task_pb.js";
import type { Subscribe } from "./link.js";
import { mark, sizeOf, whole } from "./output.js";
import type { Rest } from "./rest.js";
import { routes } from "./routes.js";
import { hasTaskEnded, taskSize } from "./tasks.js";

/** What is told of all commands, sessions and tasks. */
export type CommandEvent =
  /** A command was made or has changed: this is how it is. sequence is where to go on after it. */
  | { readonly type: "command"; readonly command: Command; readonly sequence: bigint }
  /** A session was opened, has changed, or has ended: this is how it is. */
  | { readonly type: "session"; readonly session: Session }
  /** A task as it is, when it is met: those that have not ended before synced, others before the first event that is told of them. */
  | { readonly type: "task"; readonly task: Task }
  /** Something has happened to a task, each once and in its order. Where sequence is not above that of the task as it was told, it has it in it. */
  | { readonly type: "taskEvent"; readonly event: TaskEvent }
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
  /** Of tasks that the caller knows, by id: sequence of the last event that it has; at most 1000. */
  readonly taskSequences?: Readonly<Record<string, bigint | number>> | undefined;
}

/** How a task was told last. */
interface ToldTask {
  /** Of the last event; undefined: none was told, and at is how far the task itself was. */
  readonly sequence: bigint | undefined;
  readonly at: bigint;
  readonly version: bigint;
  readonly ended: boolean;
}

const pollEveryMs = 2_000;
/** Of so many commands is remembered how they were told last. */
const remembered = 10_000;
/** Of so many tasks the service is told how far they are known; it takes no more. */
const maxTasks = 1000;
/** Of those so many may have ended: somebody may have them undone while nobody listens. Each is told again by every poll. */
const maxEndedTasks = 32;

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
  /** How tasks were told last, the last told one last. */
  readonly #tasks = new Map<string, ToldTask>();
  /** Those that the caller has named and nothing was told of. */
  readonly #named: Set<string>;
  #polledBefore = false;
  /** The last poll was not the whole of it. */
  #more = false;

  constructor(rest: Rest, o: EventsStart) {
    whole("after", o.after);
    this.#rest = rest;
    this.#o = o;
    this.#after = o.after === undefined ? undefined : BigInt(o.after);
    const sequences = Object.entries(o.taskSequences ?? {});
    for (const [id, sequence] of sequences) {
      whole(`taskSequences of ${id}`, sequence);
      this.#tasks.set(id, { sequence: BigInt(sequence), at: 0n, version: -1n, ended: false });
    }
    this.#named = new Set(this.#tasks.keys());
  }

  #where() {
    return {
      ...(this.#after === undefined ? {} : { after: this.#after }),
      host: this.#o.host ?? "",
      principal: this.#o.principal ?? "",
      labels: { ...this.#o.labels },
      heartbeat: durationFromMs(10_000),
      taskSequences: Object.fromEntries([...this.#tasks].map(([id, t]) => [id, t.sequence ?? t.at])),
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
      case "task":
        return this.#task(data.value);
      case "taskEvent":
        return this.#taskEvent(data.value);
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

  /** task passes on a task that is met, and what is news of one that is told again: its events come behind it. */
  #task(task: Task): CommandEvent[] {
    const known = this.#tasks.get(task.id);
    if (known !== undefined && task.version <= known.version) return [];
    this.#remember(task.id, { sequence: known?.sequence, at: task.sequence, version: task.version, ended: hasTaskEnded(task.state) });
    return [{ type: "task", task }];
  }

  #taskEvent(event: TaskEvent): CommandEvent[] {
    const known = this.#tasks.get(event.taskId);
    const last = known?.sequence;
    if (last !== undefined && event.sequence <= last) return [];
    if (last !== undefined && event.sequence !== last + 1n) {
      throw protocolError(`the service left out events ${last + 1n} to ${event.sequence - 1n} of the task ${event.taskId} without saying so`, "DATA_LOSS");
    }
    this.#remember(event.taskId, { sequence: event.sequence, at: known?.at ?? 0n, version: known?.version ?? -1n, ended: hasTaskEnded(event.state) });
    return [{ type: "taskEvent", event }];
  }

  /** remember puts it behind all others: of those that have ended, and of too many, the first are forgotten. */
  #remember(id: string, told: ToldTask): void {
    this.#named.delete(id);
    this.#tasks.delete(id);
    this.#tasks.set(id, told);
    let ended = 0;
    for (const t of this.#tasks.values()) if (t.ended) ended++;
    for (const [old, t] of this.#tasks) {
      if (t.ended && ended > maxEndedTasks) ended--;
      else if (this.#tasks.size <= maxTasks) continue;
      this.#tasks.delete(old);
    }
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
      if (said.event.case === "task") give(this.#task(said.event.value));
      if (said.event.case === "taskEvent") give(this.#taskEvent(said.event.value));
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
    // Retention has removed a task meanwhile, or it may be seen no more.
    if (error.reason === "UNKNOWN_TASK" || error.reason === "ACCESS_DENIED") {
      const gone = error.metadata["task_id"];
      const known = [...this.#tasks.keys()].filter((id) => !this.#named.has(id) && (gone === undefined || id === gone));
      for (const id of known) this.#tasks.delete(id);
      return Promise.resolve(known.length > 0);
    }
    // The store is another one than before. What began at a place in the old one cannot go on; what began at the beginning,
    // or with what has not ended, can do so again.
    if (error.reason !== "EVENTS_UNKNOWN" || Number(this.#o.after ?? 0) !== 0) return Promise.resolve(false);
    this.#after = this.#o.after === undefined ? undefined : 0n;
    this.#told.clear();
    this.#sessions.clear();
    this.#tasks.clear();
    this.#polledBefore = false;
    return Promise.resolve(true);
  }

  size(event: CommandEvent): number {
    switch (event.type) {
      case "command":
        return sizeOf(event.command);
      case "session":
        return 2_048 + 512 * event.session.viewers.length;
      case "task":
        return taskSize(event.task);
      case "taskEvent":
        return 512 + 2 * event.event.message.length;
      case "synced":
        return 256 + 64 * event.sessions.length;
    }
  }
}

/** sessionMark tells states of a session of one version apart: what changes without a new one. */
function sessionMark(s: Session): string {
  return [s.keyboard, s.currentCommand, s.connection, s.title, s.columns, s.rows, ...s.viewers.map((v) => `${v.id} ${v.role} ${v.behind}`)].join("\n");
}

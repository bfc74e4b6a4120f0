// What happens to one task: its events, which are stored, each once and in its order, and how it goes on behind the last.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { protocolError, unreachable } from "./error.js";
import type { Cursor } from "./follow.js";
import type { SocketMessage } from "./gen/telexec/v1/socket_pb.js";
import { TaskState, type Task, type TaskEvent } from "./gen/telexec/v1/task_pb.js";
import type { WatchTaskResponse } from "./gen/telexec/v1/task_service_pb.js";
import type { Subscribe } from "./link.js";
import { whole } from "./output.js";
import type { Rest } from "./rest.js";
import { routes } from "./routes.js";

/** What is told of a task. */
export type TaskWatchEvent =
  /** The task as it is: when watching begins, and where a connection was lost and is back. Its last events may be told behind it. */
  | { readonly type: "task"; readonly task: Task }
  /** Something has happened. event.sequence is where to go on after it. */
  | { readonly type: "event"; readonly event: TaskEvent }
  /** The last event: the task as it ended. */
  | { readonly type: "ended"; readonly task: Task };

/** Where watching begins. */
export interface TaskStart {
  /** sequence of the last event that the caller has; 0, which is the default: from the beginning. */
  readonly after?: bigint | number | undefined;
  /** Milliseconds after which the service shows that it is there where nothing else happens, 1,000 to 300,000; 10,000 unless told. */
  readonly heartbeat?: number | undefined;
}

const pollWaitMs = 25_000;

/** hasTaskEnded reports whether a task in this state does nothing more, unless somebody has it undone. */
export function hasTaskEnded(state: TaskState): boolean {
  return state >= TaskState.COMPLETED;
}

/** taskSize gives how much memory a task takes, about: what may be large of it are the hosts and the command lines. */
export function taskSize(t: Task): number {
  let size = 2_048;
  for (const s of t.steps) size += 1_024 + 2 * (s.command.length + s.undo.length) + 512 * s.runs.length;
  return size;
}

export class TaskCursor implements Cursor<TaskWatchEvent> {
  readonly silenceMs: number;
  done = false;

  readonly #rest: Rest;
  readonly #id: string;
  readonly #heartbeatMs: number;
  /** The last event that was passed on. */
  #after: bigint;
  #version = -1n;
  /** The version that the last poll found, behind whose events nothing was left: what comes next is waited for. */
  #awaited: bigint | undefined;

  constructor(rest: Rest, id: string, o: TaskStart) {
    whole("after", o.after);
    whole("heartbeat", o.heartbeat);
    this.#rest = rest;
    this.#id = id;
    this.#after = BigInt(o.after ?? 0);
    this.#heartbeatMs = o.heartbeat ?? 10_000;
    // As OutputCursor.
    this.silenceMs = o.heartbeat === undefined ? 25_000 : Math.max(3_000, 2.5 * o.heartbeat);
  }

  #where() {
    return { taskId: this.#id, after: this.#after, heartbeat: durationFromMs(this.#heartbeatMs) };
  }

  subscribe(): Subscribe {
    return { case: "subscribeTask", value: this.#where() };
  }

  accept(message: SocketMessage): TaskWatchEvent[] {
    if (this.done) return [];
    const data = message.data?.data;
    switch (data?.case) {
      case "task":
        return this.#task(data.value);
      case "taskEvent":
        return this.#event(data.value);
      default:
        return [];
    }
  }

  #task(task: Task): TaskWatchEvent[] {
    // It comes first as well, and its events behind it.
    if (hasTaskEnded(task.state) && task.sequence <= this.#after) {
      this.done = true;
      return [{ type: "ended", task }];
    }
    if (task.version <= this.#version) return [];
    this.#version = task.version;
    return [{ type: "task", task }];
  }

  #event(event: TaskEvent): TaskWatchEvent[] {
    if (event.sequence <= this.#after) return [];
    if (event.sequence !== this.#after + 1n) {
      throw protocolError(`the service left out events ${this.#after + 1n} to ${event.sequence - 1n} of the task without saying so`, "DATA_LOSS");
    }
    this.#after = event.sequence;
    return [{ type: "event", event }];
  }

  async poll(signal: AbortSignal, give: (events: TaskWatchEvent[]) => void): Promise<boolean> {
    if (this.#awaited !== undefined) {
      const known = this.#awaited;
      this.#awaited = undefined;
      const request = { taskId: this.#id, wait: durationFromMs(pollWaitMs), ifVersionGreaterThan: known };
      const found = await this.#rest.wait(routes.getTask, request, signal, pollWaitMs);
      return !signal.aborted && found !== undefined;
    }
    let first: Task | undefined;
    for await (const said of this.#rest.lines(routes.watchTask, this.#where(), { signal, silenceMs: pollWaitMs })) {
      if (signal.aborted) return false;
      give(this.#polled(said));
      if (this.done) return true;
      if (said.response.case === "task") first ??= said.response.value;
      // The service would go on; but what was given is only taken when this is over.
      if (first === undefined || hasTaskEnded(first.state) || first.sequence > this.#after) continue;
      this.#awaited = first.version;
      return true;
    }
    if (signal.aborted) return false;
    throw unreachable("the answer was cut off");
  }

  #polled(said: WatchTaskResponse): TaskWatchEvent[] {
    switch (said.response.case) {
      case "task":
        return this.#task(said.response.value);
      case "event":
        return this.#event(said.response.value);
      default:
        return [];
    }
  }

  /** Events are stored before they are told: where the service has fewer, it is another one. */
  recover(): Promise<boolean> {
    return Promise.resolve(false);
  }

  size(event: TaskWatchEvent): number {
    return event.type === "event" ? 512 + 2 * event.event.message.length : taskSize(event.task);
  }
}

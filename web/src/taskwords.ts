// Tasks in words and colours.

import { StepState, TaskState, UndoState, type Step, type Task } from "@telexec/client";
import { count } from "./format.ts";

export type Tone = "wait" | "run" | "good" | "bad" | "off";

/** Of enums: "awaiting approval". */
function word(name: string | undefined): string {
  return name === undefined || name === "UNSPECIFIED" ? "" : name.toLowerCase().replaceAll("_", " ");
}

export const taskWord = (state: TaskState): string => word(TaskState[state]) || "unknown";
export const stepWord = (state: StepState): string => word(StepState[state]) || "unknown";
const undoWords: Partial<Record<UndoState, string>> = {
  [UndoState.PENDING]: "to be undone",
  [UndoState.RUNNING]: "undoing",
  [UndoState.AWAITING_APPROVAL]: "undo awaits approval",
  [UndoState.UNKNOWN]: "not undone: nobody knows what became of it",
  [UndoState.CANCELLED]: "undo cancelled",
};
export const undoWord = (state: UndoState): string => undoWords[state] ?? word(UndoState[state]);

/** Enum names as in the API, small, for URLs. */
export const taskKey = (state: TaskState): string => TaskState[state].toLowerCase();

export function taskStateOf(key: string): TaskState | undefined {
  const value = TaskState[key.toUpperCase() as keyof typeof TaskState];
  return typeof value === "number" && value !== 0 ? value : undefined;
}

export const allTaskStates: TaskState[] = Object.values(TaskState).filter((s): s is TaskState => typeof s === "number" && s !== 0);

export function taskTone(state: TaskState): Tone {
  switch (state) {
    case TaskState.QUEUED:
    case TaskState.AWAITING_APPROVAL:
      return "wait";
    case TaskState.RUNNING:
    case TaskState.UNDOING:
      return "run";
    case TaskState.COMPLETED:
      return "good";
    case TaskState.CANCELLED:
    case TaskState.UNDONE:
      return "off";
    default:
      return "bad";
  }
}

export function stepTone(state: StepState): Tone {
  switch (state) {
    case StepState.AWAITING_APPROVAL:
      return "wait";
    case StepState.RUNNING:
      return "run";
    case StepState.COMPLETED:
      return "good";
    case StepState.FAILED:
    case StepState.LOST:
      return "bad";
    default:
      return "off";
  }
}

export function undoTone(state: UndoState): Tone {
  switch (state) {
    case UndoState.RUNNING:
      return "run";
    case UndoState.PENDING:
    case UndoState.AWAITING_APPROVAL:
      return "wait";
    case UndoState.UNDONE:
      return "good";
    case UndoState.UNDO_FAILED:
    case UndoState.UNKNOWN:
      return "bad";
    default:
      return "off";
  }
}

/** The first line of what it is about. */
export function titleOf(task: Task): string {
  const line = task.task.split("\n").find((l) => l.trim() !== "") ?? "";
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

/** "on web1"; "in session deploy" where the host is not known yet. */
export function whereOf(step: Step | undefined, host: string): string {
  return host === "" && step !== undefined && step.session !== "" ? `in session ${step.session}` : `on ${host}`;
}

/** "web1", "web1 and web2", "18 hosts"; "session deploy" for a host that is not known yet. */
export function hostsWords(steps: readonly Step[]): string {
  const names = [...new Set(steps.flatMap((s) => s.runs.map((r) => r.host || `session ${s.session}`)))];
  if (names.length <= 2) return names.join(" and ");
  return `${count(names.length)} hosts`;
}

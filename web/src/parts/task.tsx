// What stands for tasks in several places.

import { StepState, TaskState, UndoState, type Step, type Task } from "@telexec/client";
import { spoken, toSeconds } from "../format.ts";
import { taskEnded } from "../taskstate.ts";
import { stepTone, stepWord, taskTone, taskWord, undoTone, undoWord } from "../taskwords.ts";

export function TaskMark({ task }: { task: Task }) {
  const cancelling = !taskEnded(task.state) && (task.state === TaskState.UNDOING ? task.undo?.cancellation : task.cancellation) !== undefined;
  return (
    <span className={`state tone-${cancelling ? "wait" : taskTone(task.state)}`} data-testid="task-state" data-state={TaskState[task.state]}>
      <span className="dot" aria-hidden="true" />
      {cancelling ? "cancelling" : taskWord(task.state)}
    </span>
  );
}

export function StepMark({ state }: { state: StepState }) {
  return (
    <span className={`state tone-${stepTone(state)}`} data-testid="step-state" data-state={StepState[state]}>
      <span className="dot" aria-hidden="true" />
      {stepWord(state)}
    </span>
  );
}

export function UndoMark({ state }: { state: UndoState }) {
  if (state === UndoState.UNSPECIFIED) return null;
  return (
    <span className={`undo-mark tone-${undoTone(state)}`} data-testid="undo-state" data-state={UndoState[state]}>
      <span aria-hidden="true">↩ </span>
      {undoWord(state)}
    </span>
  );
}

/** How much is done, while it is not over. */
export function Percent({ of, label, testid }: { of: number; label: string; testid?: string }) {
  const percent = Math.max(0, Math.min(100, of));
  return (
    <span className="progress" data-testid={testid} data-percent={Math.floor(percent)}>
      <progress max={100} value={percent} aria-label={label} />
      <span className="tabular">{Math.floor(percent)} %</span>
    </span>
  );
}

/** "place 3, about 2:10". */
export function QueuePlace({ task }: { task: Task }) {
  if (task.queue === undefined || task.state !== TaskState.QUEUED) return null;
  const wait = toSeconds(task.queue.estimatedWait);
  return (
    <span className="tabular">
      place {task.queue.position}
      {wait !== undefined && `, about ${spoken(wait)}`}
    </span>
  );
}

/** The step that a task is at. */
export function currentStep(task: Task): Step | undefined {
  return task.steps[Math.min(task.currentStep, task.steps.length - 1)];
}

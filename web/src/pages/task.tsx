// One task: where it is, its steps with what became of them on each host, what waits for people, what runs just now, and how
// it is taken back.

import { useEffect, useId, useMemo, useRef, useState, type FormEvent } from "react";
import { ApprovalState, StepState, TaskState, UndoState, type Approval, type Step, type StepRun, type Task, type TaskEvent, type UndoStep } from "@telexec/client";
import { aborted, client, problemOf, reasonOf, sentence, useConnection } from "../client.ts";
import { useDecide } from "../decide.ts";
import { count, originWord, pairsText, toDate } from "../format.ts";
import { useKeys } from "../keys.ts";
import { lastAsk, learn, learnTask, useAwaiting, useCommand, useSyncs, useTask } from "../live.ts";
import { sourceOf } from "../output/source.ts";
import { OutputView } from "../output/view.tsx";
import { ApprovalCard } from "../parts/approval.tsx";
import { Dialog } from "../parts/dialog.tsx";
import { StepTerms } from "../parts/plan.tsx";
import { Deadline, Elapsed, Exit, Failed, Labels, Line, Skeleton, Time, useTitle } from "../parts/small.tsx";
import { Percent, QueuePlace, StepMark, TaskMark, UndoMark } from "../parts/task.tsx";
import { useSame } from "../same.ts";
import { Link, navigate, usePlace, withQuery } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import { commandOf, findCommand, groupsOf, stepEnded, taskEnded, type CommandPlace, type Group } from "../taskstate.ts";
import { taskWord, titleOf, undoWord, whereOf } from "../taskwords.ts";
import "../styles/tasks.css";

export default function TaskPage({ id }: { id: string }) {
  const { task, approvals, guest, error, retry, put } = useDetail(id);
  useTitle(task === undefined ? `Task ${id}` : `${taskWord(task.state)}: ${titleOf(task).slice(0, 60)}`);
  if (task === undefined) {
    return (
      <section className="page">
        <h1 className="mono">{id}</h1>
        {error === undefined ? <Skeleton rows={5} /> : <Failed error={error} retry={retry} />}
      </section>
    );
  }
  return <Shown task={task} approvals={approvals} guest={guest} error={error} retry={retry} put={put} />;
}

// The task as events make it; whenever something has happened it is asked for too, for most events do not tell all, and the
// approvals are known only by that.
function useDetail(id: string) {
  const known = useTask(id);
  const syncs = useSyncs();
  const awaiting = useAwaiting();
  const [approvals, setApprovals] = useState<readonly Approval[]>([]);
  // Whoever may only decide about a step is shown its task with the approval, and by nothing else.
  const [guest, setGuest] = useState<Task>();
  const [error, setError] = useState<unknown>();
  const [turn, setTurn] = useState(0);
  const stop = useRef<AbortController>(undefined);
  const asking = useRef({ busy: false, again: false, last: -Infinity });
  // What an answer had in it is not asked for.
  const answered = useRef(-1n);
  const due = useRef(0n);
  if (known !== undefined && lastAsk(known) > answered.current) due.current = lastAsk(known);

  const ask = async (signal: AbortSignal): Promise<void> => {
    try {
      const answer = await client.getTask(id, {}, { signal });
      if (signal.aborted) return;
      if (answer.task !== undefined) {
        answered.current = answer.task.sequence;
        learnTask(answer.task);
      }
      setApprovals(answer.approvals);
      setGuest(undefined);
      setError(undefined);
    } catch (failed) {
      if (signal.aborted || aborted(failed)) return;
      if (["UNKNOWN_TASK", "ACCESS_DENIED"].includes(reasonOf(failed))) {
        const found = await asGuest(id, signal);
        if (signal.aborted) return;
        setApprovals(found);
        const seen = found[0]?.task;
        if (seen !== undefined) setGuest((was) => (was !== undefined && was.sequence > seen.sequence ? was : seen));
        setError(seen === undefined ? failed : undefined);
        return;
      }
      problemOf(failed); // what is known of it already may hide the error
      setError(failed);
    }
  };
  const want = (): void => {
    const a = asking.current;
    a.again = true;
    if (a.busy) return;
    a.busy = true;
    const { signal } = (stop.current ??= new AbortController());
    void (async () => {
      while (a.again && !signal.aborted) {
        // The first at once; of many at a time the last counts.
        const pause = a.last + (many(known) ? 1000 : 200) - performance.now();
        if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
        a.again = false;
        a.last = performance.now();
        if (!signal.aborted) await ask(signal).catch(setError);
      }
      a.busy = false;
    })();
  };
  useEffect(want, [id, due.current, syncs, awaiting, turn]);
  useEffect(
    () => () => {
      stop.current?.abort();
      stop.current = undefined;
    },
    [],
  );
  const task = known ?? guest;
  return {
    task, approvals, error,
    guest: known === undefined && guest !== undefined,
    retry: () => setTurn(turn + 1),
    put: (approval: Approval) => {
      if (approval.command !== undefined) learn(approval.command);
      setApprovals((all) => all.map((a) => (a.id === approval.id ? approval : a)).filter((a) => a.state === ApprovalState.PENDING));
      setTurn((n) => n + 1);
    },
  };
}

function many(task: Task | undefined): boolean {
  return task !== undefined && task.steps.reduce((n, s) => n + s.runs.length, 0) > 100;
}

async function asGuest(id: string, signal: AbortSignal): Promise<Approval[]> {
  const found: Approval[] = [];
  let seen = 0;
  for await (const approval of client.approvals({ states: [ApprovalState.PENDING], pageSize: 100 }, { signal })) {
    if (approval.task?.id === id) found.push(approval);
    if (++seen >= 500) break;
  }
  return found;
}

function Shown({ task, approvals, guest, error, retry, put }: {
  task: Task; approvals: readonly Approval[]; guest: boolean; error: unknown; retry: () => void; put: (approval: Approval) => void;
}) {
  const session = useSession();
  const barred = guest ? "You may decide about its steps; the task itself is others'." : lacks(session, "operator");
  const place = usePlace();
  const ended = taskEnded(task.state);
  const [cancelling, setCancelling] = useState(false);
  const [undoing, setUndoing] = useState<{ step: string }>();
  const [failed, setFailed] = useState<unknown>();
  const undoable = task.steps.some(mayUndo);
  const open = (): void => setUndoing({ step: "" });
  useKeys({
    ...(!ended && barred === undefined ? { x: () => setCancelling(true) } : {}),
    ...(ended && undoable && barred === undefined ? { u: open } : {}),
  });
  const wanted = place.query.get("run") ?? "";
  const shown = (wanted === "" ? undefined : findCommand(task, wanted)) ?? commandOf(task);
  const show = (command: string): void => navigate(withQuery(place, { run: command, at: "" }), { replace: true });

  return (
    <section className="page task-page" aria-label={`Task ${task.id}`}>
      <div className="command-head task-head">
        <div className="command-state" role="status">
          <TaskMark task={task} />
        </div>
        <h1 data-testid="task-title">
          <span className="task-text" tabIndex={task.task.split("\n").length > 4 ? 0 : undefined}>
            <Line text={task.task} />
          </span>
        </h1>
        <div className="command-acts">
          {!ended && (
            <button type="button" className="danger" data-testid="cancel-task" disabled={barred !== undefined} title={barred ?? "x"} onClick={() => setCancelling(true)}>
              {task.state === TaskState.UNDOING ? "Cancel the undo" : task.cancellation === undefined ? "Cancel" : "Cancel again"}
            </button>
          )}
          {ended && (
            <button type="button" data-testid="undo-task" disabled={barred !== undefined || !undoable} title={barred ?? (undoable ? "u" : "Nothing of it has run that can be undone, and is not undone yet")} onClick={open}>
              Undo…
            </button>
          )}
        </div>
      </div>
      <Facts task={task} />
      <Notices task={task} guest={guest} />
      {error !== undefined && <Failed error={error} retry={retry} />}
      {failed !== undefined && <Failed error={failed} />}
      <Gates task={task} approvals={approvals} put={put} retry={retry} guest={guest} />
      <div className="task-body">
        <section aria-labelledby="steps-title" className="task-steps">
          <h2 id="steps-title">Steps</h2>
          <ol className="steps" data-testid="steps">
            {task.steps.map((step, i) => (
              <StepRow
                key={step.name} task={task} step={step} nth={i} shown={shown} guest={guest}
                chosen={place.query.get("step") === step.name}
                undo={ended && barred === undefined && mayUndo(step) ? () => setUndoing({ step: step.name }) : undefined}
                show={show}
              />
            ))}
          </ol>
        </section>
        <section aria-labelledby="output-title" className="task-output">
          {shown === undefined ? (
            <>
              <h2 id="output-title">Output</h2>
              <p className="faint quiet-line">{ended ? "Nothing of it has run." : "Nothing of it has begun yet."}</p>
            </>
          ) : guest ? (
            <>
              <h2 id="output-title">Output</h2>
              <p className="faint quiet-line">What its commands print is for those whose task it is.</p>
            </>
          ) : (
            <Output key={shown.id} task={task} at={shown} />
          )}
        </section>
      </div>
      {!guest && <History task={task} />}
      <CancelDialog task={task} open={cancelling} onClose={() => setCancelling(false)} onFailed={setFailed} />
      <Dialog open={undoing !== undefined} onClose={() => setUndoing(undefined)} title={undoing?.step ? "Undo this step?" : "Undo this task?"} testid="undo-dialog">
        {undoing !== undefined && <UndoForm task={task} step={undoing.step} onClose={() => setUndoing(undefined)} />}
      </Dialog>
    </section>
  );
}

// What became of a run that has begun is known only where it was completed; of the others a person has to say more.
function mayHaveRun(run: StepRun): boolean {
  return run.state === StepState.LOST || (stepEnded(run.state) && run.state !== StepState.COMPLETED && run.startTime !== undefined);
}

// Something of it has run, or may have, and is neither undone nor about to be.
function mayUndo(step: Step): boolean {
  const open = (r: StepRun): boolean => ![UndoState.UNDONE, UndoState.PENDING, UndoState.RUNNING, UndoState.AWAITING_APPROVAL].includes(r.undoState);
  return step.undo !== "" && step.runs.some((r) => (r.state === StepState.COMPLETED || mayHaveRun(r)) && open(r));
}

function Facts({ task }: { task: Task }) {
  const made = toDate(task.createTime);
  const began = toDate(task.startTime);
  const end = toDate(task.endTime);
  const ended = taskEnded(task.state);
  return (
    <div className="command-facts">
      <dl className="facts strip">
        <div>
          <dt>By</dt>
          <dd>
            <Line text={task.createdBy?.principal ?? ""} /> <span className="faint">through {originWord(task.createdBy?.origin) || "?"}</span>
          </dd>
        </div>
        <div>
          <dt>Submitted</dt>
          <dd>
            <Time at={made} />
          </dd>
        </div>
        {began !== undefined && (
          <div>
            <dt>Started</dt>
            <dd>
              <Time at={began} />
            </dd>
          </div>
        )}
        {end !== undefined && (
          <div>
            <dt>Ended</dt>
            <dd>
              <Time at={end} />
            </dd>
          </div>
        )}
        <div>
          <dt>{began === undefined ? (ended ? "Waited" : "Waits") : ended ? "Took" : "Runs for"}</dt>
          <dd>
            <Elapsed from={began ?? made} to={end} />
          </dd>
        </div>
        {task.state === TaskState.QUEUED && (
          <div>
            <dt>Queue</dt>
            <dd data-testid="queue-place">{task.queue === undefined ? <span className="faint">–</span> : <QueuePlace task={task} />}</dd>
          </div>
        )}
        {task.priority !== 0 && (
          <div>
            <dt>Priority</dt>
            <dd className="tabular">{task.priority}</dd>
          </div>
        )}
        {task.conversationId !== "" && (
          <div>
            <dt>Conversation</dt>
            <dd>
              <Link to={`/tasks?conversation=${encodeURIComponent(task.conversationId)}`}><Line text={task.conversationId} /></Link>
            </dd>
          </div>
        )}
        {task.outcome !== TaskState.UNSPECIFIED && (
          <div>
            <dt>Had come to</dt>
            <dd>{taskWord(task.outcome)}</dd>
          </div>
        )}
        {Object.keys(task.labels).length > 0 && (
          <div>
            <dt>Labels</dt>
            <dd aria-label={pairsText(task.labels)}>
              <Labels labels={task.labels} />
            </dd>
          </div>
        )}
        <div className="fact-wide">
          <dt>{task.state === TaskState.UNDOING ? "Undone" : "Progress"}</dt>
          <dd>
            <Percent of={task.percent} label={task.state === TaskState.UNDOING ? "Undone of what is to be undone" : "Done of all steps"} testid="task-percent" />
          </dd>
        </div>
      </dl>
      <details className="fact-more">
        <summary>More</summary>
        <dl className="facts">
          <dt>Id</dt>
          <dd className="mono">{task.id}</dd>
          {task.requestId !== "" && (
            <>
              <dt>Request id</dt>
              <dd className="mono"><Line text={task.requestId} /></dd>
            </>
          )}
          {Object.entries(task.context).map(([key, value]) => (
            <div className="fact" key={key}>
              <dt><Line text={key} /></dt>
              <dd className="context"><Line text={value} /></dd>
            </div>
          ))}
        </dl>
      </details>
    </div>
  );
}

function Notices({ task, guest }: { task: Task; guest: boolean }) {
  const c = task.cancellation;
  const { undo } = task;
  return (
    <>
      {guest && (
        <p className="note" data-testid="guest">
          You see this task for there is a step of it to decide about. It is shown as it was when that was asked for last.
        </p>
      )}
      {task.failure !== undefined && (
        <div className="notice bad" role="status" data-testid="failure">
          <p>
            <Line text={sentence(task.failure.message)} />
            <code className="reason">{task.failure.reason}</code>
          </p>
          {task.failure.hint !== "" && <p className="hint"><Line text={sentence(task.failure.hint)} /></p>}
        </div>
      )}
      {c !== undefined && (
        <p className="notice off" role="status" data-testid="cancellation">
          Cancel asked for by <Line text={c.by?.principal ?? ""} /> through {originWord(c.by?.origin)}, <Time at={toDate(c.time)} />
          {c.reason !== "" && <>: <Line text={c.reason} /></>}
        </p>
      )}
      {undo !== undefined && (
        <p className={undo.state === UndoState.UNDO_FAILED ? "notice bad" : "notice off"} role="status" data-testid="undo-notice">
          {undo.automatic ? "A step has failed, for which what was done is undone" : <>Undo asked for by <Line text={undo.by?.principal ?? ""} /> through {originWord(undo.by?.origin)}</>}, <Time at={toDate(undo.time)} />
          {undo.reason !== "" && <>: <Line text={undo.reason} /></>}
          {task.state === TaskState.UNDO_FAILED && " Some of it could not be undone: the steps say what and why."}
          {undo.cancellation !== undefined && <> It was cancelled by <Line text={undo.cancellation.by?.principal ?? ""} />.</>}
        </p>
      )}
    </>
  );
}

// What waits for people. The plan stands beneath; a guest has it there, too.
function Gates({ task, approvals, put, retry, guest }: { task: Task; approvals: readonly Approval[]; put: (approval: Approval) => void; retry: () => void; guest: boolean }) {
  const { busy, refused, said, decide } = useDecide(put, retry);
  return (
    <section className="gates" aria-label="What waits for a decision">
      <p role="status" className="unseen">
        {said}
      </p>
      {refused !== undefined && <Failed error={refused} />}
      {approvals.length > 0 && (
        <ul className="cards" data-testid="gates" data-guest={guest}>
          {approvals.map((a) => (
            <ApprovalCard key={a.commandId} approval={ofTask(a, task)} busy={busy} withPlan={false} decide={decide} />
          ))}
        </ul>
      )}
    </section>
  );
}

// The task does not come with each of its approvals, for it is there already.
function ofTask(approval: Approval, task: Task): Approval {
  const at = findCommand(task, approval.commandId);
  const step = at === undefined ? undefined : task.steps[at.step];
  if (approval.task !== undefined || at === undefined || step === undefined) return approval;
  return { ...approval, task, step: step.name, undoes: at.undoes };
}

interface Showing {
  shown: CommandPlace | undefined;
  show: (command: string) => void;
  guest: boolean;
}

function StepRow({ task, step, nth, chosen, undo, ...showing }: { task: Task; step: Step; nth: number; chosen: boolean; undo: (() => void) | undefined } & Showing) {
  const current = !taskEnded(task.state) && task.currentStep === nth && task.state !== TaskState.QUEUED;
  const [only] = step.runs;
  // No event of the task says when a command has begun on its host; the command does.
  const first = useCommand(step.runs.find((r) => r.commandId !== "")?.commandId ?? "");
  const began = toDate(step.startTime) ?? toDate(first?.startTime);
  const row = useRef<HTMLLIElement>(null);
  useEffect(() => {
    if (chosen) row.current?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  return (
    <li ref={row} className={chosen ? "step chosen" : "step"} data-testid="step" data-name={step.name} data-state={StepState[step.state]} data-undo={UndoState[step.undoState]} aria-current={current ? "step" : undefined}>
      <div className="step-head">
        <span className="tabular faint">{nth + 1}</span>
        <h3><Line text={step.name} /></h3>
        <StepMark state={step.state} />
        <UndoMark state={step.undoState} />
        <span className="step-end">
          {step.state === StepState.RUNNING && <Percent of={step.percent} label={`Done of step ${nth + 1}`} />}
          {began !== undefined && (
            <span className="tabular faint" data-testid="step-took">
              <Elapsed from={began} to={stepEnded(step.state) ? toDate(step.endTime) ?? began : undefined} />
            </span>
          )}
          {undo !== undefined && (
            <button type="button" data-testid="undo-step" aria-label={`Undo step ${nth + 1}`} onClick={undo}>
              Undo…
            </button>
          )}
        </span>
      </div>
      <pre className="step-line" tabIndex={0} aria-label={`Command line of step ${nth + 1}`} data-testid="step-line">
        <Line text={step.command} />
      </pre>
      {step.undo !== "" && (
        <pre className="step-line undo-line" tabIndex={0} aria-label={`Taken back by`}>
          <span className="faint">undo: </span>
          <Line text={step.undo} />
        </pre>
      )}
      <StepTerms step={step} />
      {step.runs.length === 1 && only !== undefined ? <RunLine run={only} of={step} alone {...showing} /> : <Runs step={step} {...showing} />}
    </li>
  );
}

// A step on several hosts: those that came to the same are one line.
function Runs({ step, ...showing }: { step: Step } & Showing) {
  const { outputOf, comparing, left, compareAll } = useSame(showing.guest ? [] : step.runs);
  const groups = groupsOf(step.runs, outputOf);
  return (
    <div className="run-groups" data-testid="run-groups">
      {groups.map((g) => (
        <RunGroup key={g.key} group={g} of={step} {...showing} />
      ))}
      {comparing && <p className="faint" role="status">Comparing the outputs…</p>}
      {!comparing && left > 0 && (
        <button type="button" data-testid="compare" onClick={compareAll}>
          Compare the outputs of {count(left)} hosts
        </button>
      )}
    </div>
  );
}

function RunGroup({ group, of, ...showing }: { group: Group<StepRun>; of: Step } & Showing) {
  const [open, setOpen] = useState(false);
  const [one] = group.runs;
  if (one === undefined) return null;
  if (group.runs.length === 1) return <RunLine run={one} of={of} {...showing} />;
  const command = one.commandId;
  const pressed = showing.shown !== undefined && group.runs.some((r) => r.commandId === showing.shown?.id);
  return (
    <div className="run-group" data-testid="run-group" data-hosts={group.runs.length} data-same={group.same}>
      <div className="run-line">
        <strong className="run-host">{count(group.runs.length)} hosts</strong>
        <StepMark state={one.state} />
        <RunExit run={one} />
        <UndoMark state={one.undoState} />
        {group.same && <span className="same">same output</span>}
        <span className="step-end">
          {command !== "" && !showing.guest && (
            <button type="button" aria-pressed={pressed} onClick={() => showing.show(command)}>
              Output
            </button>
          )}
        </span>
      </div>
      {one.failure !== undefined && <p className="run-why"><Line text={sentence(one.failure.message)} /></p>}
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary className="cut"><Line text={hostNames(group.runs)} /></summary>
        {open && group.runs.map((r) => <RunLine key={r.host} run={r} of={of} {...showing} />)}
      </details>
    </div>
  );
}

function hostNames(runs: readonly StepRun[]): string {
  const names = runs.slice(0, 12).map((r) => r.host).join(", ");
  return runs.length > 12 ? `${names} and ${runs.length - 12} more` : names;
}

function RunExit({ run }: { run: StepRun }) {
  if (run.exitCode === undefined) return null;
  return (
    <span className={run.exitCode === 0 ? "exit" : "exit exit-bad"} data-testid="run-exit" data-code={run.exitCode}>
      exit {run.exitCode}
    </span>
  );
}

// alone: what its step says already is left out.
function RunLine({ run, of, alone = false, shown, show, guest }: { run: StepRun; of: Step; alone?: boolean } & Showing) {
  const where = whereOf(of, run.host);
  return (
    <div className="run-one" data-testid="run" data-host={run.host} data-state={StepState[run.state]}>
      <div className="run-line">
        <strong className="run-host"><Line text={run.host || where} /></strong>
        {!alone && <StepMark state={run.state} />}
        <RunExit run={run} />
        {!alone && <UndoMark state={run.undoState} />}
        {run.retryTime !== undefined && (
          <span className="faint">
            tried again: <Deadline at={toDate(run.retryTime)} />
          </span>
        )}
        {run.earlierCommandIds.length > 0 && (
          <span className="faint">
            tried before:{" "}
            {run.earlierCommandIds.map((id, i) => (
              <Link key={id} to={`/commands/${id}`}>
                {i > 0 && " "}
                {i + 1}
              </Link>
            ))}
          </span>
        )}
        <span className="step-end">
          {run.commandId !== "" && !guest && (
            <button type="button" data-testid="show-output" aria-pressed={shown?.id === run.commandId} aria-label={`Output ${where}`} onClick={() => show(run.commandId)}>
              Output
            </button>
          )}
          {run.undoCommandId !== "" && !guest && (
            <button type="button" data-testid="show-undo" aria-pressed={shown?.id === run.undoCommandId} aria-label={`Output of the undo ${where}`} onClick={() => show(run.undoCommandId)}>
              Undo’s output
            </button>
          )}
          {run.commandId !== "" && (
            <Link to={`/commands/${run.commandId}`} data-testid="command-link" aria-label={`Command ${where}`}>
              command
            </Link>
          )}
        </span>
      </div>
      {run.failure !== undefined && (
        <p className="run-why">
          <Line text={sentence(run.failure.message)} />
          <code className="reason">{run.failure.reason}</code>
        </p>
      )}
      {run.undoFailure !== undefined && (
        <p className="run-why" data-testid="undo-why">
          Not undone: <Line text={run.undoFailure.message} />
          <code className="reason">{run.undoFailure.reason}</code>
        </p>
      )}
    </div>
  );
}

function Output({ task, at }: { task: Task; at: CommandPlace }) {
  const command = useCommand(at.id);
  const source = useMemo(() => sourceOf(at.id, learn), [at.id]);
  const [error, setError] = useState<unknown>();
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    setError(undefined);
    // Its id is stored before it is made, so that it may not be there yet; its first event tells of it.
    client.get(at.id, { output: { omit: true } }, { signal: stop.signal }).then(
      (answer) => {
        if (answer.command !== undefined) learn(answer.command);
      },
      (failed: unknown) => {
        if (!stop.signal.aborted && reasonOf(failed) !== "UNKNOWN_COMMAND") setError(failed);
      },
    );
    return () => stop.abort();
  }, [at.id, attempt]);
  const step = task.steps[at.step];
  const run = step?.runs[at.run];
  return (
    <>
      <div className="output-head">
        <h2 id="output-title">
          {at.undoes ? "Undo of " : ""}<Line text={step?.name ?? ""} /> {step !== undefined && <Line text={whereOf(step, run?.host ?? "")} />}
        </h2>
        {command !== undefined && <Exit command={command} />}
        <Link to={`/commands/${at.id}`} data-testid="output-command">
          Open the command
        </Link>
      </div>
      {error !== undefined && command === undefined && <Failed error={error} retry={() => setAttempt(attempt + 1)} />}
      {command === undefined && error === undefined && <p className="faint quiet-line">It has not begun yet.</p>}
      {command !== undefined && (command.pty === undefined ? <OutputView command={command} source={source} ending="" /> : <p className="faint quiet-line">It runs on a terminal: see the command.</p>)}
    </>
  );
}

/** So many events are shown; those before are left out. */
const MAX_EVENTS = 2000;

function History({ task }: { task: Task }) {
  const [open, setOpen] = useState(false);
  return (
    <details className="history" data-testid="history" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>What has happened · {count(task.sequence)} events</summary>
      {open && <Events task={task} />}
    </details>
  );
}

function Events({ task }: { task: Task }) {
  const [events, setEvents] = useState<readonly TaskEvent[]>([]);
  const [error, setError] = useState<unknown>();
  const [turn, setTurn] = useState(0);
  const last = useRef(0n);
  const { state } = useConnection();
  // Up to where the task had gone when it was watched until its end; undefined while it is watched.
  const [over, setOver] = useState<bigint>();
  const reached = useRef(task.sequence);
  reached.current = task.sequence;
  useEffect(() => {
    const stop = new AbortController();
    const from = reached.current;
    setError(undefined);
    setOver(undefined);
    let fresh: TaskEvent[] = [];
    let soon: ReturnType<typeof setTimeout> | undefined;
    const draw = (): void => {
      soon = undefined;
      const more = fresh;
      fresh = [];
      setEvents((all) => [...all, ...more].slice(-MAX_EVENTS));
    };
    (async () => {
      for await (const said of client.watchTask(task.id, { after: last.current, signal: stop.signal })) {
        if (said.type !== "event") continue;
        last.current = said.event.sequence;
        fresh.push(said.event);
        soon ??= setTimeout(draw, 30);
      }
      if (!stop.signal.aborted) setOver(last.current > from ? last.current : from);
    })().catch((failed: unknown) => {
      if (!stop.signal.aborted) setError(failed);
    });
    return () => {
      stop.abort();
      if (soon !== undefined) {
        clearTimeout(soon);
        draw();
      }
    };
  }, [task.id, turn]);
  // One that has ended may be undone, and be over again by the time that this is told: then there is more.
  const more = over !== undefined && task.sequence > over;
  useEffect(() => {
    if (more) setTurn((n) => n + 1);
  }, [more]);
  return (
    <>
      {error !== undefined && <Failed error={error} retry={() => setTurn(turn + 1)} />}
      {events.length === 0 && error === undefined && <p className="faint">{state === "reconnecting" ? "Waiting for the connection…" : "Loading…"}</p>}
      {(events[0]?.sequence ?? 1n) > 1n && <p className="faint">The {count((events[0]?.sequence ?? 1n) - 1n)} before are left out here.</p>}
      <ol className="events" tabIndex={0} aria-label="Events">
        {events.map((e) => (
          <li key={String(e.sequence)} data-testid="task-event" data-sequence={String(e.sequence)} data-type={e.type}>
            <span className="tabular faint">{String(e.sequence)}</span>
            <span className="a-time">
              <Time at={toDate(e.time)} />
            </span>
            <span className="faint event-type">{e.type.replaceAll("_", " ")}</span>
            <span className="event-what">
              <Line text={sentence(e.message)} />
              {e.exitCode !== undefined && ` · exit ${e.exitCode}`}
              {e.type === "step_progress" && ` · ${Math.floor(e.percent)} %`}
              {e.failure !== undefined && !e.message.includes(e.failure.message) && <> · <Line text={e.failure.message} /></>}
            </span>
          </li>
        ))}
      </ol>
    </>
  );
}

function CancelDialog({ task, open, onClose, onFailed }: { task: Task; open: boolean; onClose: () => void; onFailed: (error: unknown) => void }) {
  const [reason, setReason] = useState("");
  const undoing = task.state === TaskState.UNDOING;
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    onFailed(undefined);
    client.cancelTask(task.id, { reason }).then(
      (answer) => {
        if (answer.task !== undefined) learnTask(answer.task);
      },
      (error: unknown) => onFailed(error),
    );
    onClose();
  };
  return (
    <Dialog open={open} onClose={onClose} title={undoing ? "Cancel the undo?" : "Cancel this task?"} testid="cancel-dialog">
      <form onSubmit={submit}>
        <p className="task-text"><Line text={titleOf(task)} /></p>
        <p>
          {undoing ? "What runs of the undo is ended, and nothing more of it begins." : "What runs of it is ended, and nothing more of it begins. What was done stays as it is, and can be undone afterwards."}
        </p>
        <div className="field">
          <label htmlFor="cancel-reason">Reason (shown to whoever watches, and kept)</label>
          <input id="cancel-reason" value={reason} maxLength={1000} data-testid="cancel-reason" onChange={(event) => setReason(event.target.value)} />
        </div>
        <div className="actions">
          <button type="submit" className="danger primary" data-testid="cancel-confirm" autoFocus>
            {undoing ? "Cancel the undo" : "Cancel the task"}
          </button>
          <button type="button" onClick={onClose}>
            Let it run
          </button>
        </div>
      </form>
    </Dialog>
  );
}

// What would run, asked for as the service sees it now, and then the confirmation.
function UndoForm({ task, step, onClose }: { task: Task; step: string; onClose: () => void }) {
  const [unknown, setUnknown] = useState(false);
  const [reason, setReason] = useState("");
  const [preview, setPreview] = useState<readonly UndoStep[]>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [turn, setTurn] = useState(0);
  const doubtful = task.steps.some((s) => (step === "" || s.name === step) && s.undo !== "" && s.runs.some(mayHaveRun));
  const nothing = reasonOf(error) === "NOTHING_TO_UNDO";
  const id = useId();
  useEffect(() => {
    const stop = new AbortController();
    setPreview(undefined);
    setError(undefined);
    client.undoTask(task.id, { step, includeUnknown: unknown, preview: true }, { signal: stop.signal }).then(
      (answer) => setPreview(answer.preview),
      (failed: unknown) => {
        if (!stop.signal.aborted) setError(failed);
      },
    );
    return () => stop.abort();
  }, [task.id, step, unknown, turn]);
  const runs = preview?.filter((u) => u.state === UndoState.PENDING) ?? [];
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (busy || runs.length === 0) return;
    setBusy(true);
    client
      .undoTask(task.id, { step, includeUnknown: unknown, reason })
      .then((answer) => {
        if (answer.task !== undefined) learnTask(answer.task);
        onClose();
      })
      .catch((failed: unknown) => setError(failed))
      .finally(() => setBusy(false));
  };
  return (
    <form onSubmit={submit} data-testid="undo-form">
      <p>{step === "" ? "These commands run, one after the other, the last step first:" : <>For the step <strong><Line text={step} /></strong> these commands run:</>}</p>
      {preview === undefined && error === undefined && <Skeleton rows={2} />}
      {nothing && <p className="note" role="status">Nothing: what is known to be done is undone already, or has no undo.</p>}
      {error !== undefined && !nothing && <Failed error={error} retry={() => setTurn(turn + 1)} />}
      {preview !== undefined && (
        <ol className="undo-preview" data-testid="undo-preview" tabIndex={0} aria-label="What would run">
          {preview.map((u) => (
            <li key={`${u.step} ${u.host}`} data-testid="undo-item" data-state={UndoState[u.state]}>
              <span>
                <strong><Line text={u.step} /></strong> <span className="faint"><Line text={whereOf(task.steps.find((s) => s.name === u.step), u.host)} /></span>
              </span>
              {u.state === UndoState.PENDING ? (
                <code className="plan-line"><Line text={u.command} /></code>
              ) : (
                <span className="faint">{u.state === UndoState.NOT_UNDOABLE ? "has no undo: it stays as it is" : undoWord(u.state)}</span>
              )}
            </li>
          ))}
        </ol>
      )}
      {(doubtful || unknown) && (
        <label className="check">
          <input type="checkbox" checked={unknown} data-testid="undo-unknown" onChange={(event) => setUnknown(event.target.checked)} /> Also what may have run: nobody knows what became of it
        </label>
      )}
      <div className="field">
        <label htmlFor={`${id}-reason`}>Reason (shown to whoever watches, and kept)</label>
        <input id={`${id}-reason`} value={reason} maxLength={1000} data-testid="undo-reason" onChange={(event) => setReason(event.target.value)} />
      </div>
      <div className="actions">
        <button type="submit" className="danger primary" data-testid="undo-confirm" disabled={busy || runs.length === 0}>
          {runs.length === 1 ? "Run this command" : `Run these ${runs.length} commands`}
        </button>
        <button type="button" onClick={onClose}>
          Leave it
        </button>
      </div>
    </form>
  );
}

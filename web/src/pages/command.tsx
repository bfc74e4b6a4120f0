// One command: how it is, what it prints, and what one can do to it.

import { lazy, Suspense, useEffect, useMemo, useState, type FormEvent } from "react";
import { CancelOutcome, CommandState, type Command } from "@telexec/client";
import { client, problemOf, sentence } from "../client.ts";
import { bytes, count, durabilityWord, hasEnded, originWord, outcomeWords, pairsText, reconnecting, spoken, stateWord, toDate, toSeconds } from "../format.ts";
import { useKeys } from "../keys.ts";
import { learn, useCommand } from "../live.ts";
import { sourceOf } from "../output/source.ts";
import { OutputView } from "../output/view.tsx";
import { Deadline, Elapsed, Exit, Failed, Labels, Line, ProgressBar, Skeleton, State, Time, useTitle } from "../parts/small.tsx";
import { Dialog } from "../parts/dialog.tsx";
import { Menu } from "../parts/menu.tsx";
import { Link } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import { placeOf } from "../taskstate.ts";

const TerminalView = lazy(() => import("../output/terminal.tsx"));

const SIGNALS = ["INT", "TERM", "HUP", "QUIT", "KILL", "USR1", "USR2", "STOP", "CONT"];

export function CommandPage({ id }: { id: string }) {
  const command = useCommand(id);
  const [error, setError] = useState<unknown>();
  const [attempt, setAttempt] = useState(0);
  useTitle(command === undefined ? `Command ${id}` : `${stateWord(command.state)}: ${command.command.split("\n")[0]?.slice(0, 60)}`);

  useEffect(() => {
    const stop = new AbortController();
    setError(undefined);
    client.get(id, { output: { omit: true } }, { signal: stop.signal }).then(
      (answer) => {
        if (answer.command !== undefined) learn(answer.command);
      },
      (failed: unknown) => {
        if (stop.signal.aborted) return;
        problemOf(failed); // what is known of it already may hide the error
        setError(failed);
      },
    );
    return () => stop.abort();
  }, [id, attempt]);

  if (command === undefined) {
    return (
      <section className="page">
        <h1 className="mono">{id}</h1>
        {error === undefined ? <Skeleton rows={5} /> : <Failed error={error} retry={() => setAttempt(attempt + 1)} />}
      </section>
    );
  }
  return <Known command={command} />;
}

function Known({ command }: { command: Command }) {
  const session = useSession();
  const source = useMemo(() => sourceOf(command.id, learn), [command.id]);
  const barred = lacks(session, "operator");
  const ended = hasEnded(command);
  const [asking, setAsking] = useState(false);
  const [failed, setFailed] = useState<unknown>();
  useKeys(ended || barred !== undefined ? {} : { x: () => setAsking(true) });

  const cancelled = command.state === CommandState.CANCELLED && command.cancellation !== undefined;
  // What the output area ends with, word for word the same wherever a cancel is shown.
  const ending = cancelled ? `[CANCELLED] Command terminated by ${originWord(command.cancellation?.by?.origin) || "grpc"}` : "";

  return (
    <section className="page command-page" aria-label={`Command ${command.id}`}>
      <div className="command-head">
        <div className="command-state" role="status">
          <State command={command} />
          <Exit command={command} />
        </div>
        <h1>
          <code className="command-line" data-testid="command-line">
            <Line text={command.command} />
          </code>
        </h1>
        <div className="command-acts">
          {!ended && (
            <>
              <button type="button" className="danger" data-testid="cancel-button" disabled={barred !== undefined} title={barred ?? "x"} onClick={() => setAsking(true)}>
                {command.cancellation === undefined ? "Cancel" : "Cancel again"}
              </button>
              <SignalMenu command={command} disabled={barred !== undefined || command.state !== CommandState.RUNNING} onFailed={setFailed} />
            </>
          )}
          {ended && (
            <Link className="button" to={`/?run=1&on=${encodeURIComponent(command.host)}`}>
              Run another
            </Link>
          )}
        </div>
      </div>
      <Facts command={command} />
      <Notices command={command} />
      {failed !== undefined && <Failed error={failed} />}
      {command.pty !== undefined ? (
        <Suspense fallback={<div className="terminal-box" aria-busy="true" />}>
          <TerminalView command={command} source={source} mayType={barred === undefined} ending={ending} />
        </Suspense>
      ) : (
        <OutputView command={command} source={source} ending={ending} />
      )}
      {command.pty === undefined && command.stdinOpen && !ended && <InputLine command={command} disabled={barred} />}
      <CancelDialog
        command={command}
        open={asking}
        onClose={() => setAsking(false)}
        onFailed={setFailed}
      />
    </section>
  );
}

function Facts({ command }: { command: Command }) {
  const queued = toDate(command.createTime);
  const started = toDate(command.startTime);
  const end = toDate(command.endTime);
  const ended = hasEnded(command);
  const timeout = toSeconds(command.timeout);
  const wait = toSeconds(command.queue?.estimatedWait);
  const step = placeOf(command.taskStep);
  return (
    <div className="command-facts">
      <dl className="facts strip">
        <div>
          <dt>Host</dt>
          <dd>
            <Link to={`/hosts?host=${encodeURIComponent(command.host)}`}><Line text={command.host} /></Link>
            {command.sudoUser !== "" && ` as ${command.sudoUser}`}
          </dd>
        </div>
        <div>
          <dt>By</dt>
          <dd>
            <Line text={command.createdBy?.principal ?? ""} /> <span className="faint">through {originWord(command.createdBy?.origin) || "?"}</span>
          </dd>
        </div>
        <div>
          <dt>Accepted</dt>
          <dd>
            <Time at={queued} />
          </dd>
        </div>
        {started !== undefined && (
          <div>
            <dt>Started</dt>
            <dd>
              <Time at={started} />
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
          <dt>{started === undefined ? (ended ? "Waited" : "Waits") : ended ? "Took" : "Runs for"}</dt>
          <dd data-testid="duration">
            <Elapsed from={started ?? queued} to={end} />
            {timeout !== undefined && <span className="faint"> of {spoken(timeout)}</span>}
          </dd>
        </div>
        {step !== undefined && (
          <div>
            <dt>Step of a task</dt>
            <dd>
              <Link to={`/tasks/${step.task}?step=${encodeURIComponent(step.step)}`} data-testid="task-step-link">
                <Line text={step.step} />
              </Link>
            </dd>
          </div>
        )}
        {command.sessionId !== "" && (
          <div>
            <dt>Session</dt>
            <dd>
              <Link to={`/sessions/${command.sessionId}`} data-testid="session-link">
                <Line text={command.session} />
              </Link>
            </dd>
          </div>
        )}
        {command.queue !== undefined && command.state === CommandState.QUEUED && (
          <div>
            <dt>Queue</dt>
            <dd className="tabular">
              place {command.queue.position} for the {command.queue.waitsFor || "host"}
              {wait !== undefined && `, about ${spoken(wait)}`}
            </dd>
          </div>
        )}
        <div>
          <dt>Watching</dt>
          <dd className="tabular" data-testid="watchers" data-count={command.watchers}>
            {command.watchers}
          </dd>
        </div>
        {command.durability !== 0 && (
          <div>
            <dt>Lives</dt>
            <dd title={command.durabilityReason}>{durabilityWord(command.durability)}</dd>
          </div>
        )}
        {(command.progress !== undefined || !ended) && (
          <div className="fact-wide">
            <dt>Progress</dt>
            <dd>{command.progress === undefined ? <span className="faint">–</span> : <ProgressBar progress={command.progress} />}</dd>
          </div>
        )}
      </dl>
      <details className="fact-more">
        <summary>More</summary>
        <dl className="facts">
          <dt>Id</dt>
          <dd className="mono">{command.id}</dd>
          {command.workingDirectory !== "" && (
            <>
              <dt>Directory</dt>
              <dd className="mono"><Line text={command.workingDirectory} /></dd>
            </>
          )}
          {command.envNames.length > 0 && (
            <>
              <dt>Variables</dt>
              <dd className="mono"><Line text={command.envNames.join(", ")} /></dd>
            </>
          )}
          {Object.keys(command.labels).length > 0 && (
            <>
              <dt>Labels</dt>
              <dd aria-label={pairsText(command.labels)}>
                <Labels labels={command.labels} />
              </dd>
            </>
          )}
          {command.actionType !== "" && (
            <>
              <dt>Action</dt>
              <dd className="mono"><Line text={command.actionType} /></dd>
            </>
          )}
          <dt>Policy rule</dt>
          <dd>{command.policyRule || "default"}</dd>
          {command.durabilityReason !== "" && (
            <>
              <dt>Not durable</dt>
              <dd><Line text={command.durabilityReason} /></dd>
            </>
          )}
          {command.requestId !== "" && (
            <>
              <dt>Request id</dt>
              <dd className="mono"><Line text={command.requestId} /></dd>
            </>
          )}
          <dt>Output</dt>
          <dd>
            stdout {bytes(command.stdoutBytes)}, stderr {bytes(command.stderrBytes)}
          </dd>
        </dl>
      </details>
    </div>
  );
}

function Notices({ command }: { command: Command }) {
  const c = command.cancellation;
  const awaited = command.awaitedApproval;
  return (
    <>
      {reconnecting(command) && !hasEnded(command) && (
        <p className="notice wait" role="status">
          The connection to {command.host} is lost and is being made again. The command goes on there; what it prints meanwhile comes when the connection is back.
        </p>
      )}
      {command.state === CommandState.AWAITING_APPROVAL && (
        <p className="notice wait" role="status">
          Waits for approval
          {awaited !== undefined && ` by ${awaited.requiredApprovals} of ${awaited.roles.join(" or ")}, ${awaited.approvals} so far; `}
          {awaited !== undefined && <Deadline at={toDate(awaited.expireTime)} />} · rule {command.policyRule} · <Link to={`/approvals?id=${command.id}`}>Show the approval</Link>
        </p>
      )}
      {command.failure !== undefined && !(c !== undefined && command.state === CommandState.CANCELLED) && (
        <div className="notice bad" role="status" data-testid="failure">
          <p>
            <Line text={sentence(command.failure.message)} />
            <code className="reason">{command.failure.reason}</code>
          </p>
          {command.failure.hint !== "" && <p className="hint"><Line text={sentence(command.failure.hint)} /></p>}
        </div>
      )}
      {c !== undefined && (
        <div className="notice off" role="status" data-testid="cancellation">
          <p>
            Cancel asked for by <Line text={c.by?.principal ?? ""} /> through {originWord(c.by?.origin)}, <Time at={toDate(c.time)} />
            {c.reason !== "" && <>: <Line text={c.reason} /></>}
          </p>
          <p>
            <Outcome command={command} />
          </p>
          {c.report !== undefined && c.report.left.length > 0 && (
            <table className="left">
              <thead>
                <tr>
                  <th>PID</th>
                  <th>User</th>
                  <th>Left on the host</th>
                  <th>Why</th>
                </tr>
              </thead>
              <tbody>
                {c.report.left.map((p) => (
                  <tr key={String(p.pid)}>
                    <td className="tabular">{String(p.pid)}</td>
                    <td>{p.user}</td>
                    <td className="mono"><Line text={p.command} /></td>
                    <td>{p.why}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </div>
      )}
    </>
  );
}

function Outcome({ command }: { command: Command }) {
  const c = command.cancellation;
  const report = c?.report;
  const pending = report === undefined || report.outcome === CancelOutcome.PENDING || report.outcome === CancelOutcome.UNSPECIFIED;
  if (pending && !hasEnded(command)) {
    return (
      <>
        Under way for <Elapsed from={toDate(c?.time)} />
        {report !== undefined && report.message !== "" && `: ${report.message}`}
      </>
    );
  }
  if (report === undefined) return null;
  const took = toSeconds(report.duration);
  const nothingToDo = report.outcome === CancelOutcome.NEVER_STARTED || report.outcome === CancelOutcome.ALREADY_ENDED;
  const parts = [
    report.ended > 0 ? `${count(report.ended)} ${report.ended === 1 ? "process" : "processes"} ended${report.signal === "" ? "" : ` with ${report.signal}`}` : "",
    outcomeWords(report.outcome),
    took === undefined || nothingToDo ? "" : `after ${spoken(took)}`,
  ].filter((part) => part !== "");
  return <>{sentence(parts.join(", "))}.</>;
}

function CancelDialog({ command, open, onClose, onFailed }: {
  command: Command;
  open: boolean;
  onClose: () => void;
  onFailed: (error: unknown) => void;
}) {
  const [reason, setReason] = useState("");
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    onFailed(undefined);
    client.cancel(command.id, { reason }).then(
      (answer) => {
        if (answer.command !== undefined) learn(answer.command);
      },
      (error: unknown) => onFailed(error),
    );
    onClose();
  };
  return (
    <Dialog open={open} onClose={onClose} title="Cancel this command?" testid="cancel-dialog">
      <form onSubmit={submit}>
        <p>
          <code className="command-line">
            <Line text={command.command.slice(0, 500)} />
          </code>
        </p>
        <p>It and all its processes on {command.host} are ended: asked with INT and TERM first, then killed.</p>
        <div className="field">
          <label htmlFor="cancel-reason">Reason (shown to whoever watches, and kept)</label>
          <input id="cancel-reason" value={reason} maxLength={1000} data-testid="cancel-reason" onChange={(event) => setReason(event.target.value)} />
        </div>
        <div className="actions">
          <button type="submit" className="danger primary" data-testid="cancel-confirm" autoFocus>
            Cancel the command
          </button>
          <button type="button" onClick={onClose}>
            Let it run
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function SignalMenu({ command, disabled, onFailed }: { command: Command; disabled: boolean; onFailed: (error: unknown) => void }) {
  const [said, setSaid] = useState("");
  const send = (name: string): void => {
    onFailed(undefined);
    client.signal(command.id, name).then(
      (answer) => {
        if (answer.command !== undefined) learn(answer.command);
        setSaid(`SIG${name} sent`);
        setTimeout(() => setSaid(""), 3000);
      },
      (error: unknown) => onFailed(error),
    );
  };
  if (disabled) {
    return (
      <button type="button" disabled>
        Signal
      </button>
    );
  }
  return (
    <Menu
      className="menu-button"
      summary={
        <summary role="button" data-testid="signal-menu">
          <span aria-live="polite">{said === "" ? "Signal" : said}</span>
        </summary>
      }
    >
      {SIGNALS.map((name) => (
        <button key={name} type="button" data-testid={`signal-${name}`} onClick={() => send(name)}>
          {name}
        </button>
      ))}
    </Menu>
  );
}

function InputLine({ command, disabled }: { command: Command; disabled: string | undefined }) {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const send = async (data: string, eof: boolean): Promise<void> => {
    const line = text;
    setBusy(true);
    setProblem("");
    setText(""); // the next line may be typed while this one is on its way
    try {
      await client.sendInput(command.id, data, { eof });
    } catch (error) {
      setProblem(problemOf(error).message);
      setText((typed) => line + typed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      className="input-line"
      onSubmit={(event) => {
        event.preventDefault();
        void send(`${text}\n`, false);
      }}
    >
      <label htmlFor="input-line">Input</label>
      <input id="input-line" className="mono" data-testid="stdin-input" value={text} disabled={disabled !== undefined} title={disabled} spellCheck={false} autoComplete="off" autoCapitalize="none" onChange={(event) => setText(event.target.value)} />
      <button type="submit" data-testid="stdin-send" disabled={busy || disabled !== undefined}>
        Send
      </button>
      <button type="button" data-testid="stdin-eof" disabled={busy || disabled !== undefined} onClick={() => void send(text, true)} title="Sends what is typed, and closes the input">
        End of input
      </button>
      <span className="bad" role="status">
        {problem}
      </span>
    </form>
  );
}

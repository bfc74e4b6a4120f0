// Small things that stand in many places.

import { useEffect, useMemo, type ReactNode } from "react";
import { CommandState, SessionState, type Command, type Progress as ProgressMessage, type Session } from "@telexec/client";
import { problemOf, type Problem } from "../client.ts";
import { useServiceNow } from "../clock.ts";
import { spellOut } from "../odd.ts";
import { completionWord, hasEnded, reconnecting, sessionState, spelled, spoken, stateWord, toDate, tone, when } from "../format.ts";

export function Time({ at }: { at: Date | undefined }) {
  if (at === undefined) return null;
  const iso = at.toISOString();
  return (
    <time dateTime={iso} title={iso}>
      {when(at)}
    </time>
  );
}

/** How long ago something was, or how long it took. */
export function Elapsed({ from, to }: { from: Date | undefined; to?: Date | undefined }) {
  const at = useServiceNow(from !== undefined && to === undefined);
  if (from === undefined) return null;
  return <span className="tabular">{spoken(((to?.getTime() ?? at) - from.getTime()) / 1000)}</span>;
}

/** How long a command took, or takes, where no head of a column says so; from when to when is in its title, and in words for who cannot see. */
export function Took({ command }: { command: Command }) {
  const ran = toDate(command.startTime);
  const from = ran ?? toDate(command.createTime);
  const to = toDate(command.endTime);
  const now = useServiceNow(from !== undefined && to === undefined);
  if (from === undefined) return null;
  const seconds = ((to?.getTime() ?? now) - from.getTime()) / 1000;
  const [word, times] =
    to === undefined
      ? [ran === undefined ? "waits" : "for", `${ran === undefined ? "asked for" : "started"} ${when(from)}`]
      : [ran === undefined ? "waited" : "took", `${when(from)} to ${when(to)}`];
  return (
    <span className="tabular faint took" data-testid="took" title={`${word} ${spelled(seconds)}: ${times}`}>
      <span aria-hidden="true">{word} {spoken(seconds)}</span>
      <span className="unseen">{word} {spelled(seconds)}, {times}</span>
    </span>
  );
}

/** How long until then. */
export function Deadline({ at }: { at: Date | undefined }) {
  const current = useServiceNow(at !== undefined);
  if (at === undefined) return null;
  const left = (at.getTime() - current) / 1000;
  return (
    <time dateTime={at.toISOString()} title={at.toISOString()} className={left < 60 ? "tabular soon" : "tabular"}>
      {left > 0 ? `${spoken(Math.max(1, left))} left` : "over"}
    </time>
  );
}

export function State({ command }: { command: Command }) {
  const cancelling = command.cancellation !== undefined && !hasEnded(command);
  const word = cancelling ? "cancelling" : stateWord(command.state);
  return (
    <span className={`state tone-${cancelling ? "wait" : tone(command)}`} data-testid="state" data-state={CommandState[command.state]}>
      <span className="dot" aria-hidden="true" />
      {word}
      {reconnecting(command) && (
        <span className="reconnecting" title="The connection to the host is lost and is being made again; the command goes on there">
          {" "}
          · reconnecting
        </span>
      )}
    </span>
  );
}

export function TerminalState({ session }: { session: Session }) {
  const { word, tone } = sessionState(session);
  return (
    <span className={`state tone-${tone}`} data-testid="session-state" data-state={SessionState[session.state]}>
      <span className="dot" aria-hidden="true" />
      {word}
    </span>
  );
}

export function Exit({ command }: { command: Command }) {
  if (command.exitCode !== undefined) {
    return (
      <span className={command.exitCode === 0 ? "exit" : "exit exit-bad"} data-testid="exit-code" data-code={command.exitCode}>
        exit {command.exitCode}
      </span>
    );
  }
  if (command.exitSignal !== "") return <span className="exit exit-bad">SIG{command.exitSignal}</span>;
  if (command.state === CommandState.COMPLETED) {
    const by = completionWord(command.completion);
    return (
      <span className="exit" data-testid="exit-unknown" title={by === "" ? "It has ended; its exit code is not known" : `Its end was recognised by ${by}, which tells no exit code`}>
        code unknown
      </span>
    );
  }
  return null;
}

export function ProgressBar({ progress, quiet = false }: { progress: ProgressMessage | undefined; quiet?: boolean }) {
  if (progress === undefined) return null;
  const percent = Math.max(0, Math.min(100, progress.percent));
  return (
    <span className="progress" data-testid={quiet ? undefined : "progress"} data-percent={percent}>
      <progress max={100} value={percent} aria-label={progress.label === "" ? "Progress" : `Progress: ${progress.label}`} />
      <span className="tabular">{Math.floor(percent)} %</span>
      {progress.label !== "" && <span className="faint cut">{progress.label}</span>}
    </span>
  );
}

/** A failure: what it is, what to do, and another try. */
export function Failed({ error, retry, children }: { error: unknown; retry?: (() => void) | undefined; children?: ReactNode }) {
  const problem = useMemo(() => (error === undefined ? undefined : problemOf(error)), [error]);
  if (problem === undefined) return null;
  return (
    <Refused problem={problem}>
      <div className="actions">
        {retry !== undefined && (
          <button type="button" onClick={retry}>
            Try again
          </button>
        )}
        {children}
      </div>
    </Refused>
  );
}

/** What did not go, why, and what to do; beneath it what can be done here. */
export function Refused({ problem, children }: { problem: Problem; children?: ReactNode }) {
  return (
    <div className="problem" role="alert">
      <p>
        <Line text={problem.message} />
        {problem.reason !== "" && <code className="reason">{problem.reason}</code>}
      </p>
      {problem.hint !== "" && (
        <p className="hint">
          <Line text={problem.hint} />
        </p>
      )}
      {children}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children !== undefined && <p>{children}</p>}
    </div>
  );
}

export function Skeleton({ rows }: { rows: number }) {
  return (
    <div className="skeleton" aria-busy="true" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} />
      ))}
    </div>
  );
}

export function Labels({ labels }: { labels: Record<string, string> }) {
  const pairs = Object.entries(labels);
  if (pairs.length === 0) return null;
  return (
    <span className="labels">
      {pairs.map(([key, value]) => (
        <span className="label" key={key}>
          <Line text={value === "" ? key : `${key}=${value}`} />
        </span>
      ))}
    </span>
  );
}

/** A command line, or part of one, with nothing in it that cannot be seen. */
export function Line({ text }: { text: string }) {
  return spellOut(text).map((part, i) =>
    part.odd ? (
      <span key={i} className="odd" title="A character that cannot be seen">
        {part.text}
      </span>
    ) : (
      part.text
    ),
  );
}

export function started(command: Command): Date | undefined {
  return toDate(command.startTime) ?? toDate(command.createTime);
}

/** Sets the title of the page. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title === "" ? "telexec" : `${title} · telexec`;
  }, [title]);
}

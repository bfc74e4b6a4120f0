// One approval: what is asked for, all that counts for it, and the decision. It names the hash of the request as it is shown
// here: what was read is what runs, or nothing does.

import { useState } from "react";
import { ApprovalState, Verdict, type Approval, type DecisionInit } from "@telexec/client";
import { sentence } from "../client.ts";
import { changesOf } from "../diff.ts";
import { bytes, originWord, pairsText, spoken, toDate, toSeconds } from "../format.ts";
import { Link } from "../router.ts";
import { Plan } from "./plan.tsx";
import { PolicyHint } from "./run.tsx";
import { Deadline, Labels, Line, Time } from "./small.tsx";

/** Without onChoose it is not one of several. withPlan shows the task that a step is of, where nothing else does. */
export function ApprovalCard({ approval, busy, chosen = false, onChoose, withPlan = true, decide }: {
  approval: Approval;
  busy: boolean;
  chosen?: boolean;
  onChoose?: (on: boolean) => void;
  withPlan?: boolean;
  decide: (decisions: DecisionInit[], words: string) => Promise<boolean>;
}) {
  const command = approval.command;
  const [mode, setMode] = useState<"" | "reject" | "modify">("");
  const [reason, setReason] = useState("");
  const [edited, setEdited] = useState(command?.command ?? "");
  // Another approver may modify the request while this one reads it, or is about to press a button.
  const hash = String(approval.requestHash);
  const [read, setRead] = useState(hash);
  const changed = approval.state === ApprovalState.PENDING && read !== hash;
  if (command === undefined) return null;
  const pending = approval.state === ApprovalState.PENDING;
  const timeout = toSeconds(command.timeout);
  const id = approval.commandId;
  const task = approval.task;
  const step = task?.steps.find((s) => s.name === approval.step);
  const send = (verdict: Verdict, words: string): void => {
    void decide(
      [
        {
          commandId: id, verdict, reason, requestHash: approval.requestHash,
          ...(verdict === Verdict.MODIFY ? { modified: { command: edited } } : {}),
        },
      ],
      words,
    ).then((done) => {
      if (done) {
        setMode("");
        setReason("");
      }
    });
  };
  return (
    <li className={pending ? "card" : "card decided"} data-testid="approvals-row" data-id={id} data-state={ApprovalState[approval.state]} tabIndex={0}>
      <div className="card-head">
        {approval.canDecide && onChoose !== undefined && (
          <label className="choose">
            <input type="checkbox" checked={chosen} onChange={(event) => onChoose(event.target.checked)} aria-label={`Choose the command on ${command.host}`} />
          </label>
        )}
        <span className={`state tone-${pending ? "wait" : approval.state === ApprovalState.APPROVED ? "good" : "bad"}`}>
          <span className="dot" aria-hidden="true" />
          {pending ? `${approval.approvals} of ${approval.requiredApprovals} approved` : ApprovalState[approval.state].toLowerCase()}
        </span>
        <span>
          <strong><Line text={command.host} /></strong> <span className="faint mono"><Line text={approval.target} /></span>
        </span>
        {task !== undefined && (
          <span>
            {approval.undoes ? "takes back " : ""}step <strong><Line text={approval.step} /></strong>
          </span>
        )}
        <span className="card-end">{pending ? <Deadline at={toDate(approval.expireTime)} /> : <Time at={toDate(approval.decideTime)} />}</span>
      </div>
      <pre className="request" data-testid="approval-command" tabIndex={0} aria-label="Command line">
        <Line text={command.command} />
      </pre>
      {step !== undefined && !approval.undoes && step.undo !== "" && (
        <div className="taken-back">
          <span className="faint">Taken back by, and approved with it:</span>
          <pre className="request" tabIndex={0} data-testid="approval-undo" aria-label="Command line that takes it back">
            <Line text={step.undo} />
          </pre>
        </div>
      )}
      {step !== undefined && !approval.undoes && step.runs.length > 1 && (
        <p data-testid="approval-hosts">
          It holds for all {step.runs.length} hosts of the step: <span className="mono"><Line text={step.runs.map((r) => r.host).join(", ")} /></span>
        </p>
      )}
      <dl className="facts strip">
        <div>
          <dt>Asked by</dt>
          <dd>
            <Line text={approval.requestedBy?.principal ?? ""} /> <span className="faint">through {originWord(approval.requestedBy?.origin)}</span>
          </dd>
        </div>
        <div>
          <dt>At</dt>
          <dd>
            <Time at={toDate(approval.createTime)} />
          </dd>
        </div>
        <div>
          <dt>Rule</dt>
          <dd>{approval.rule}</dd>
        </div>
        <div>
          <dt>Decided by</dt>
          <dd>{approval.roles.join(" or ")}</dd>
        </div>
        {command.sudoUser !== "" && (
          <div>
            <dt>As user</dt>
            <dd>{command.sudoUser}</dd>
          </div>
        )}
        {command.workingDirectory !== "" && (
          <div>
            <dt>Directory</dt>
            <dd className="mono"><Line text={command.workingDirectory} /></dd>
          </div>
        )}
        {command.envNames.length > 0 && (
          <div>
            <dt>Variables</dt>
            <dd className="mono"><Line text={command.envNames.join(", ")} /></dd>
          </div>
        )}
        {approval.stdinBytes > 0n && (
          <div>
            <dt>Input</dt>
            <dd>{bytes(approval.stdinBytes)}</dd>
          </div>
        )}
        {timeout !== undefined && (
          <div>
            <dt>Timeout</dt>
            <dd>{spoken(timeout)}</dd>
          </div>
        )}
        {Object.keys(command.labels).length > 0 && (
          <div>
            <dt>Labels</dt>
            <dd aria-label={pairsText(command.labels)}>
              <Labels labels={command.labels} />
            </dd>
          </div>
        )}
        {task !== undefined && withPlan && (
          <div>
            <dt>Task</dt>
            <dd>
              <Link to={`/tasks/${task.id}`} data-testid="task-link">open</Link>
            </dd>
          </div>
        )}
        <div>
          <dt>Command</dt>
          <dd>
            <Link to={`/commands/${id}`}>open</Link>
          </dd>
        </div>
      </dl>
      {task !== undefined && withPlan && <Plan task={task} at={approval.step} />}
      {approval.decisions.length > 0 && (
        <ol className="decisions" aria-label="Decisions so far">
          {approval.decisions.map((d, i) => (
            <li key={i}>
              <Time at={toDate(d.time)} /> <Line text={d.by?.principal ?? ""} /> <b>{word(d.verdict)}</b>
              {d.reason !== "" && <>: <Line text={d.reason} /></>}
              {d.verdict === Verdict.MODIFY && <pre className="request"><Line text={d.command} /></pre>}
            </li>
          ))}
        </ol>
      )}
      {pending && !approval.canDecide && approval.cannotDecideReason !== "" && <p className="note">{sentence(approval.cannotDecideReason)}</p>}
      {approval.canDecide && changed && (
        <div className="note" role="alert" data-testid="request-changed">
          <p>The request was modified while you looked at it: read it again.</p>
          <div className="actions">
            <button
              type="button"
              onClick={() => {
                setRead(hash);
                setMode("");
              }}
            >
              I have read it
            </button>
          </div>
        </div>
      )}
      {approval.canDecide && !changed && mode === "" && (
        <div className="actions">
          <button type="button" className="primary" data-testid="approve-button" disabled={busy} onClick={() => send(Verdict.APPROVE, "Approved")}>
            Approve
          </button>
          <button type="button" data-testid="reject-button" disabled={busy} onClick={() => setMode("reject")}>
            Reject…
          </button>
          <button
            type="button"
            data-testid="modify-button"
            disabled={busy}
            onClick={() => {
              setEdited(command.command);
              setMode("modify");
            }}
          >
            Modify…
          </button>
        </div>
      )}
      {approval.canDecide && !changed && mode !== "" && (
        <form
          className="decide"
          onSubmit={(event) => {
            event.preventDefault();
            send(mode === "reject" ? Verdict.REJECT : Verdict.MODIFY, mode === "reject" ? "Rejected" : "Modified");
          }}
        >
          {mode === "modify" && (
            <div className="field">
              <label htmlFor={`edit-${id}`}>Run this instead</label>
              <textarea id={`edit-${id}`} className="mono" rows={Math.min(12, edited.split("\n").length + 1)} value={edited} spellCheck={false} autoFocus data-testid="modify-input" onChange={(event) => setEdited(event.target.value)} />
              <Diff before={command.command} after={edited} />
              <PolicyHint host={command.host} command={edited} directory={command.workingDirectory} sudo={command.sudoUser} action={command.actionType} env={command.envNames.join()} />
            </div>
          )}
          <div className="field">
            <label htmlFor={`why-${id}`}>Reason (shown to <Line text={approval.requestedBy?.principal ?? "the one who asked"} />)</label>
            <input id={`why-${id}`} value={reason} maxLength={1000} autoFocus={mode === "reject"} data-testid="reason-input" onChange={(event) => setReason(event.target.value)} />
          </div>
          <div className="actions">
            <button type="submit" className={mode === "reject" ? "danger primary" : "primary"} data-testid="decide-confirm" disabled={busy || (mode === "modify" && (edited.trim() === "" || edited === command.command))}>
              {mode === "reject" ? "Reject" : "Modify"}
            </button>
            <button type="button" onClick={() => setMode("")}>
              Back
            </button>
          </div>
        </form>
      )}
    </li>
  );
}

function word(verdict: Verdict): string {
  return verdict === Verdict.APPROVE ? "approved" : verdict === Verdict.REJECT ? "rejected" : "modified";
}

function Diff({ before, after }: { before: string; after: string }) {
  if (before === after) return null;
  const tags = { same: "span", gone: "del", new: "ins" } as const;
  return (
    <pre className="request diff" aria-label="What changes" data-testid="diff" tabIndex={0}>
      {changesOf(before, after).map(({ kind, text }, i) => {
        const Tag = tags[kind];
        return (
          <Tag key={i}>
            <Line text={text} />
          </Tag>
        );
      })}
    </pre>
  );
}

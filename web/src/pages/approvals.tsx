// What waits for a decision, and deciding it. A decision names the hash of the request as it is shown here: what was
// read is what runs, or nothing does.

import { useEffect, useRef, useState } from "react";
import { ApprovalState, Verdict, type Approval, type DecisionInit } from "@telexec/client";
import { client, reasonOf, sentence } from "../client.ts";
import { bytes, originWord, pairsText, spoken, toDate, toSeconds } from "../format.ts";
import { useListKeys } from "../keys.ts";
import { learn, useAwaiting } from "../live.ts";
import { PolicyHint } from "../parts/run.tsx";
import { Deadline, Empty, Failed, Labels, Line, Skeleton, Time, useTitle } from "../parts/small.tsx";
import { Link, navigate, usePlace, withQuery } from "../router.ts";

export default function ApprovalsPage() {
  useTitle("Approvals");
  useListKeys("[data-testid=approvals-row]");
  const place = usePlace();
  const all = place.query.has("all");
  const only = place.query.get("id") ?? "";
  const { approvals, error, retry, put } = useApprovals(all, only);
  // By the id, the hash of the request as it was when it was chosen.
  const [chosen, setChosen] = useState<ReadonlyMap<string, string>>(new Map());
  const [busy, setBusy] = useState(false);
  const [refused, setRefused] = useState<unknown>();
  const [said, setSaid] = useState("");

  // Mine first; then by what ends soonest.
  const shown = approvals?.toSorted((a, b) => {
    const pending = Number(b.state === ApprovalState.PENDING) - Number(a.state === ApprovalState.PENDING);
    if (pending !== 0) return pending;
    if (a.canDecide !== b.canDecide) return a.canDecide ? -1 : 1;
    if (a.state === ApprovalState.PENDING) return (toDate(a.expireTime)?.getTime() ?? 0) - (toDate(b.expireTime)?.getTime() ?? 0);
    return a.commandId < b.commandId ? 1 : -1;
  });
  const batch = shown?.filter((a) => a.canDecide && chosen.get(a.commandId) === String(a.requestHash)) ?? [];

  const decide = async (decisions: DecisionInit[], words: string): Promise<boolean> => {
    setBusy(true);
    setRefused(undefined);
    setSaid("");
    try {
      for (const approval of await client.decide(decisions)) put(approval);
      setChosen(new Map());
      setSaid(words);
      return true;
    } catch (failed) {
      setRefused(failed);
      // It is another request by now, or somebody was faster: what is shown must be what is.
      if (["REQUEST_CHANGED", "ALREADY_DECIDED"].includes(reasonOf(failed))) retry();
      return false;
    } finally {
      setBusy(false);
    }
  };
  const decideBatch = (verdict: Verdict.APPROVE | Verdict.REJECT): void => {
    void decide(
      batch.map((a) => ({ commandId: a.commandId, verdict, requestHash: a.requestHash })),
      `${batch.length} ${verdict === Verdict.APPROVE ? "approved" : "rejected"}`,
    );
  };

  return (
    <section className="page" aria-label="Approvals">
      <div className="heading">
        <h1>Approvals</h1>
        <button type="button" aria-pressed={all} onClick={() => navigate(withQuery(place, { all: all ? "" : "1", id: "" }), { replace: true })}>
          {all ? "Only what waits" : "Also what is decided"}
        </button>
      </div>
      <div className="batch" role="group" aria-label="Several at once" hidden={batch.length === 0}>
        <span>{batch.length} chosen</span>
        <button type="button" className="primary" disabled={busy} data-testid="approve-batch" onClick={() => decideBatch(Verdict.APPROVE)}>
          Approve all of them
        </button>
        <button type="button" className="danger" disabled={busy} onClick={() => decideBatch(Verdict.REJECT)}>
          Reject all of them
        </button>
      </div>
      <p role="status" className="quiet-line">
        {said}
      </p>
      {refused !== undefined && <Failed error={refused} />}
      {error !== undefined && <Failed error={error} retry={retry} />}
      {approvals === undefined && error === undefined && <Skeleton rows={3} />}
      {shown?.length === 0 && (
        <Empty title={all ? "Nothing has waited for approval yet." : "Nothing waits for approval."}>
          Commands that a rule wants approved show here: those that you may decide, and your own.
        </Empty>
      )}
      <ul className="cards">
        {shown?.map((approval) => (
          <ApprovalCard
            key={approval.commandId}
            approval={approval}
            busy={busy}
            chosen={batch.includes(approval)}
            onChoose={(on) => {
              const next = new Map(chosen);
              if (on) next.set(approval.commandId, String(approval.requestHash));
              else next.delete(approval.commandId);
              setChosen(next);
            }}
            decide={decide}
          />
        ))}
      </ul>
    </section>
  );
}

function ApprovalCard({ approval, busy, chosen, onChoose, decide }: {
  approval: Approval;
  busy: boolean;
  chosen: boolean;
  onChoose: (on: boolean) => void;
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
        {approval.canDecide && (
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
        <span className="card-end">{pending ? <Deadline at={toDate(approval.expireTime)} /> : <Time at={toDate(approval.decideTime)} />}</span>
      </div>
      <pre className="request" data-testid="approval-command" tabIndex={0} aria-label="Command line">
        <Line text={command.command} />
      </pre>
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
        <div>
          <dt>Command</dt>
          <dd>
            <Link to={`/commands/${id}`}>open</Link>
          </dd>
        </div>
      </dl>
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

// What the edit changes, word by word.
function Diff({ before, after }: { before: string; after: string }) {
  if (before === after) return null;
  const a = before.split(/(\s+)/);
  const b = after.split(/(\s+)/);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const removed = a.slice(head, a.length - tail).join("");
  const added = b.slice(head, b.length - tail).join("");
  return (
    <pre className="request diff" aria-label="What changes" data-testid="diff">
      <Line text={a.slice(0, head).join("")} />
      {removed !== "" && (
        <del>
          <Line text={removed} />
        </del>
      )}
      {added !== "" && (
        <ins>
          <Line text={added} />
        </ins>
      )}
      <Line text={a.slice(a.length - tail).join("")} />
    </pre>
  );
}

// useApprovals asks again whenever a command that awaits approval comes, goes or changes.
function useApprovals(all: boolean, only: string) {
  const [approvals, setApprovals] = useState<Approval[]>();
  const [error, setError] = useState<unknown>();
  const [turn, setTurn] = useState(0);
  const awaiting = useAwaiting();
  const asked = useRef("");
  useEffect(() => {
    const stop = new AbortController();
    const first = asked.current !== `${all}${only}`;
    asked.current = `${all}${only}`;
    const soon = setTimeout(
      () => {
        (async () => {
          let found: Approval[];
          if (only !== "") found = [await client.approval(only, { signal: stop.signal })];
          else {
            const states = all ? [] : [ApprovalState.PENDING];
            found = [];
            for await (const approval of client.approvals({ states, pageSize: 100 }, { signal: stop.signal })) {
              if (found.push(approval) >= 200) break;
            }
          }
          if (stop.signal.aborted) return;
          setApprovals(found);
          setError(undefined);
        })().catch((failed: unknown) => {
          if (!stop.signal.aborted) setError(failed);
        });
      },
      first ? 0 : 100,
    );
    return () => {
      clearTimeout(soon);
      stop.abort();
    };
  }, [awaiting, turn, all, only]);
  return {
    approvals,
    error,
    retry: () => setTurn((n) => n + 1),
    put: (approval: Approval) => {
      if (approval.command !== undefined) learn(approval.command);
      setApprovals((known) => known?.map((a) => (a.commandId === approval.commandId ? approval : a)));
    },
  };
}

// What waits for a decision, and deciding it. A decision names the hash of the request as it is shown here: what was
// read is what runs, or nothing does.

import { useEffect, useRef, useState } from "react";
import { ApprovalState, Verdict, type Approval, type DecisionInit } from "@telexec/client";
import { client } from "../client.ts";
import { useDecide } from "../decide.ts";
import { toDate } from "../format.ts";
import { useListKeys } from "../keys.ts";
import { learn, useAwaiting } from "../live.ts";
import { ApprovalCard } from "../parts/approval.tsx";
import { Empty, Failed, Skeleton, useTitle } from "../parts/small.tsx";
import { navigate, usePlace, withQuery } from "../router.ts";

export default function ApprovalsPage() {
  useTitle("Approvals");
  useListKeys("[data-testid=approvals-row]");
  const place = usePlace();
  const all = place.query.has("all");
  const only = place.query.get("id") ?? "";
  const { approvals, error, retry, put } = useApprovals(all, only);
  // By the id, the hash of the request as it was when it was chosen.
  const [chosen, setChosen] = useState<ReadonlyMap<string, string>>(new Map());
  const { busy, refused, said, decide: send } = useDecide(put, retry);

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
    const done = await send(decisions, words);
    if (done) setChosen(new Map());
    return done;
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
          Commands and steps of tasks that need a yes show here: those that you may decide, and your own.
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
      // The answer to a decision has no task with it.
      setApprovals((known) => known?.map((a) => (a.commandId === approval.commandId ? { ...approval, task: approval.task ?? a.task } : a)));
    },
  };
}

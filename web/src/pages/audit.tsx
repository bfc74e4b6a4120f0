// The audit: who did what, newest first.

import { useEffect, useRef, useState } from "react";
import type { AuditEntry, VerifyAuditResponse } from "@telexec/client";
import { aborted, client } from "../client.ts";
import { bytes, count, dateOf, originWord, toDate, toStamp } from "../format.ts";
import { useListKeys } from "../keys.ts";
import { FilterForm, TextFilter, TimeFilter } from "../parts/filters.tsx";
import { Empty, Failed, Line, Skeleton, Time, useTitle } from "../parts/small.tsx";
import { Link, navigate, usePlace, withQuery } from "../router.ts";
import { hasRole, useSession } from "../session.ts";

const KINDS = [
  "command.accepted", "command.ended", "command.cancel", "command.signal", "command.input", "session.opened", "session.typed", "session.keyboard",
  "session.close", "session.ended", "approval.decided", "refused", "login", "logout", "token.created", "token.revoked", "policy.loaded", "service.started", "service.stopped",
];
const PARAMS = ["kind", "principal", "host", "command", "from", "to"];

export default function AuditPage() {
  useTitle("Audit");
  const session = useSession();
  if (session === undefined) return <section className="page"><h1>Audit</h1><Skeleton rows={8} /></section>;
  if (!hasRole(session)) {
    return (
      <section className="page narrow" data-testid="audit-barred">
        <h1>Audit</h1>
        <Empty title="Only an admin may read the audit.">
          You are {session.principal} with {session.roles.join(" and ") || "no role"}. Ask an admin for a token with the role admin.
        </Empty>
      </section>
    );
  }
  return <Audit />;
}

function Audit() {
  useListKeys("[data-testid=audit-row] > summary");
  const place = usePlace();
  const value = (name: string): string => place.query.get(name) ?? "";
  const key = PARAMS.map(value).join("\n");
  const [entries, setEntries] = useState<AuditEntry[]>();
  const [next, setNext] = useState("");
  const [loading, setLoading] = useState(true);
  const [failed, setFailed] = useState<{ token: string; error: unknown }>(); // and the page that was asked for
  const stop = useRef<AbortController>(undefined);

  const load = async (token: string): Promise<void> => {
    stop.current?.abort();
    const { signal } = (stop.current = new AbortController());
    setLoading(true);
    setFailed(undefined);
    try {
      const from = dateOf(value("from"));
      const to = dateOf(value("to"));
      const page = await client
        .auditEntries(
          {
            kinds: value("kind") === "" ? [] : [value("kind")],
            principal: value("principal"), host: value("host"), commandId: value("command"), pageSize: 50,
            ...(from === undefined ? {} : { timeFrom: toStamp(from) }),
            ...(to === undefined ? {} : { timeTo: toStamp(to) }),
          },
          { signal },
        )
        .page(token);
      setEntries((before) => (token === "" ? page.entries : [...(before ?? []), ...page.entries]));
      setNext(page.nextPageToken);
      setLoading(false);
    } catch (error) {
      if (aborted(error) || signal.aborted) return;
      setFailed({ token, error });
      setLoading(false);
    }
  };
  useEffect(() => {
    void load("");
    return () => stop.current?.abort();
  }, [key]);

  return (
    <section className="page" aria-label="Audit">
      <div className="heading">
        <h1>Audit</h1>
        <Verify />
      </div>
      <FilterForm
        of="the audit"
        params={PARAMS}
        acts={
          <button type="button" className="quiet" onClick={() => void load("")}>
            Refresh
          </button>
        }
      >
        <label>
          Kind
          <select value={value("kind")} data-testid="filter-kind" onChange={(event) => navigate(withQuery(place, { kind: event.target.value }), { replace: true })}>
            <option value="">any</option>
            {KINDS.map((kind) => (
              <option key={kind}>{kind}</option>
            ))}
          </select>
        </label>
        <TextFilter name="Who" param="principal" />
        <TextFilter name="Host" param="host" />
        <TextFilter name="Command" param="command" hint="id" />
        <TimeFilter name="From" param="from" />
        <TimeFilter name="To" param="to" />
      </FilterForm>
      {failed !== undefined && <Failed error={failed.error} retry={() => void load(failed.token)} />}
      {entries === undefined && failed === undefined && <Skeleton rows={8} />}
      {entries?.length === 0 && <Empty title="No entry matches the filters." />}
      {entries !== undefined && entries.length > 0 && (
        <div className="rows">
          {entries.map((entry) => (
            <Entry key={String(entry.sequence)} entry={entry} />
          ))}
        </div>
      )}
      {next !== "" && failed === undefined && (
        <button type="button" className="more-button" disabled={loading} onClick={() => void load(next)}>
          {loading ? "Loading…" : "Load more"}
        </button>
      )}
    </section>
  );
}

function Entry({ entry }: { entry: AuditEntry }) {
  const facts: [string, string][] = [
    ["Call", entry.callId],
    ["Method", entry.method],
    ["Address", entry.address],
    ["Subject", entry.subject],
    ["Decision", entry.decision],
    ["Rule", entry.rule],
    ["Outcome", entry.outcome],
    ["Reason", entry.reason],
    ["Detail", entry.detail],
    ["As user", entry.sudoUser],
    ["Signal", entry.signal],
    ["Exit code", entry.exitCode === undefined ? "" : String(entry.exitCode)],
    ["Request", hex(entry.requestHash)],
    ["stdout", entry.stdout === undefined ? "" : `${bytes(entry.stdout.bytes)} ${hex(entry.stdout.sha256)}`],
    ["stderr", entry.stderr === undefined ? "" : `${bytes(entry.stderr.bytes)} ${hex(entry.stderr.sha256)}`],
    ["Times", entry.count > 1 ? String(entry.count) : ""],
    ["Hash", hex(entry.hash)],
  ];
  return (
    <details className="audit" data-testid="audit-row" data-kind={entry.kind}>
      <summary>
        <span className="a-seq tabular faint">{String(entry.sequence)}</span>
        <span className="a-time">
          <Time at={toDate(entry.time)} />
        </span>
        <span className={entry.kind === "refused" ? "bad" : undefined}>{entry.kind}</span>
        <span className="a-who cut">
          <Line text={entry.by?.principal ?? ""} /> <span className="faint">{originWord(entry.by?.origin)}</span>
        </span>
        <span className="a-what cut">
          {entry.host !== "" && <><Line text={entry.host} /> </>}
          <code className="line">
            <Line text={entry.command || entry.detail || entry.subject || entry.method} />
          </code>
        </span>
        <span className="a-out cut faint">{(entry.outcome || entry.reason || entry.decision).toLowerCase().replaceAll("_", " ")}</span>
      </summary>
      <dl className="facts">
        {entry.commandId !== "" && (
          <>
            <dt>Command</dt>
            <dd className="mono">
              <Link to={`/commands/${entry.commandId}`}>{entry.commandId}</Link>
            </dd>
          </>
        )}
        {entry.command !== "" && (
          <>
            <dt>Line</dt>
            <dd>
              <code className="command-line">
                <Line text={entry.command} />
              </code>
            </dd>
          </>
        )}
        {facts.map(([name, what]) =>
          what === "" ? null : (
            <div className="fact" key={name}>
              <dt>{name}</dt>
              <dd className="mono">
                <Line text={what} />
              </dd>
            </div>
          ),
        )}
      </dl>
    </details>
  );
}

function hex(data: Uint8Array): string {
  return Array.from(data, (b) => b.toString(16).padStart(2, "0")).join("");
}

function Verify() {
  const [busy, setBusy] = useState(false);
  const [answer, setAnswer] = useState<VerifyAuditResponse>();
  const [error, setError] = useState<unknown>();
  const verify = async (): Promise<void> => {
    setBusy(true);
    setError(undefined);
    try {
      setAnswer(await client.verifyAudit());
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="verify">
      <span role="status" data-testid="verify-result" className={answer?.intact === false ? "bad" : "good"}>
        {answer?.intact === true && `Intact: ${count(answer.verifiedRows)} rows are as they were written`}
        {answer?.intact === false && `Broken at row ${String(answer.brokenSequence)}: ${answer.brokenReason}`}
      </span>
      {error !== undefined && <Failed error={error} />}
      <button type="button" data-testid="verify-button" disabled={busy} onClick={() => void verify()}>
        {busy ? "Checking…" : "Verify"}
      </button>
    </div>
  );
}

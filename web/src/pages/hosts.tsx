// The hosts: how they are, and whether they can be reached.

import { useEffect, useRef, useState } from "react";
import { Durability, type CheckHostResponse, type Host } from "@telexec/client";
import { client, problemOf, sentence } from "../client.ts";
import { durabilityWord, spoken, toDate, toSeconds } from "../format.ts";
import { useListKeys } from "../keys.ts";
import { useSlowVersion } from "../live.ts";
import { Empty, Failed, Labels, Line, Skeleton, Time, useTitle } from "../parts/small.tsx";
import { Link, usePlace, withQuery } from "../router.ts";
import { lacks, useSession } from "../session.ts";

export default function HostsPage() {
  useTitle("Hosts");
  useListKeys("[data-testid=hosts-row]");
  const place = usePlace();
  const only = place.query.get("host") ?? "";
  const { hosts, error, retry, put } = useHosts();
  const shown = hosts?.filter((h) => only === "" || h.name === only);
  return (
    <section className="page" aria-label="Hosts">
      <div className="heading">
        <h1>Hosts</h1>
        {only !== "" && (
          <Link className="button" to={withQuery(place, { host: "" })}>
            All hosts
          </Link>
        )}
      </div>
      {error !== undefined && <Failed error={error} retry={retry} />}
      {hosts === undefined && error === undefined && <Skeleton rows={4} />}
      {shown !== undefined && shown.length === 0 && (
        <Empty title={only === "" ? "The service knows no hosts." : `There is no host ${only}.`}>
          Hosts come from the configuration of the service and from its ssh_config.
        </Empty>
      )}
      {shown !== undefined && shown.length > 0 && (
        <ul className="rows">
          {shown.map((host) => (
            <HostRow key={host.name} host={host} put={put} />
          ))}
        </ul>
      )}
    </section>
  );
}

function HostRow({ host, put }: { host: Host; put: (host: Host) => void }) {
  const session = useSession();
  const barred = lacks(session, "operator");
  const [busy, setBusy] = useState(false);
  const [result, setResult] = useState<CheckHostResponse>();
  const [problem, setProblem] = useState("");
  const check = async (): Promise<void> => {
    setBusy(true);
    setProblem("");
    try {
      const answer = await client.checkHost(host.name);
      setResult(answer);
      if (answer.host !== undefined) put(answer.host);
    } catch (error) {
      setProblem(problemOf(error).message);
    } finally {
      setBusy(false);
    }
  };
  const failing = host.lastFailure !== undefined;
  const state = failing ? "failing" : host.connections > 0 ? "connected" : host.lastConnectedTime === undefined ? "not used yet" : "idle";
  return (
    <li className="host" data-testid="hosts-row" data-host={host.name} tabIndex={0}>
      <div className="host-main">
        <span className={`state tone-${failing ? "bad" : host.connections > 0 ? "good" : "off"}`}>
          <span className="dot" aria-hidden="true" />
          {state}
        </span>
        <span className="host-name">
          <strong><Line text={host.name} /></strong>{" "}
          <span className="faint mono">
            <Line text={`${host.user}@${host.address}`} />
          </span>
          {host.proxyJump.length > 0 && <span className="faint"> through {host.proxyJump.join(", then ")}</span>}
          <Labels labels={host.labels} />
        </span>
        <span className="tabular host-load">
          {host.runningCommands} of {host.maxCommands} running
          {host.queuedCommands > 0 && `, ${host.queuedCommands} waiting`}
        </span>
        <span className="host-when faint">{host.lastConnectedTime !== undefined && <>seen <Time at={toDate(host.lastConnectedTime)} /></>}</span>
        <span className="host-acts">
          <button type="button" data-testid="check-button" disabled={busy || barred !== undefined} title={barred} onClick={() => void check()}>
            {busy ? "Checking…" : "Check"}
          </button>
          <Link className="button" to={`/sessions?open=1&on=${encodeURIComponent(host.name)}`} data-testid="host-terminal">
            Terminal
          </Link>
          <Link className="button" to={`/?run=1&on=${encodeURIComponent(host.name)}`}>
            Run here
          </Link>
        </span>
      </div>
      {host.lastFailure !== undefined && (
        <p className="host-note bad">
          Failing, last at <Time at={toDate(host.lastFailureTime)} />: <Line text={host.lastFailure.message} /> <code className="reason">{host.lastFailure.reason}</code>
          {host.lastFailure.hint !== "" && <span className="hint"><Line text={sentence(host.lastFailure.hint)} /></span>}
        </p>
      )}
      <div role="status">
        {problem !== "" && <p className="host-note bad">{problem}</p>}
        {result !== undefined && (
          <p className="host-note" data-testid="check-result" data-ok={result.ok}>
            {result.ok ? <b className="good">Reached</b> : <b className="bad">Not reached</b>} in {spoken(toSeconds(result.duration) ?? 0)}
            {result.ok && (
              <>
                {" "}
                · {result.serverVersion} · <span className="mono">{result.hostKeyFingerprint}</span> · commands are {durabilityWord(result.durability)}
                {result.durability === Durability.ATTACHED && result.durabilityReason !== "" && `: ${result.durabilityReason}`}
              </>
            )}
            {!result.ok && result.failure !== undefined && result.failure.message !== host.lastFailure?.message && ` · ${result.failure.message}. ${result.failure.hint}`}
          </p>
        )}
      </div>
    </li>
  );
}

// useHosts asks again when commands have changed, and now and then: connections come and go without a command too. One
// question is answered before the next is asked, however much happens.
function useHosts() {
  const [hosts, setHosts] = useState<Host[]>();
  const [error, setError] = useState<unknown>();
  const ask = useRef<() => void>(undefined);
  const version = useSlowVersion();
  useEffect(() => {
    const stop = new AbortController();
    let asking = false;
    let again = false;
    const load = async (): Promise<void> => {
      const all: Host[] = [];
      for await (const host of client.hosts({ pageSize: 200 }, { signal: stop.signal })) all.push(host);
      setHosts(all);
      setError(undefined);
    };
    ask.current = (): void => {
      if (asking) {
        again = true;
        return;
      }
      asking = true;
      load()
        .catch((failed: unknown) => {
          if (!stop.signal.aborted) setError(failed);
        })
        .finally(() => {
          asking = false;
          if (again && !stop.signal.aborted) {
            again = false;
            ask.current?.();
          }
        });
    };
    const timer = setInterval(() => ask.current?.(), 10_000);
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  }, []);
  useEffect(() => ask.current?.(), [version]);
  return {
    hosts,
    error,
    retry: () => ask.current?.(),
    put: (host: Host) => setHosts((all) => all?.map((h) => (h.name === host.name ? host : h))),
  };
}

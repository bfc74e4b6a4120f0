// Choosing the host that something is to run on.

import { useEffect, useId, useState } from "react";
import type { Host } from "@telexec/client";
import { client, preferred, problemOf, type Problem } from "../client.ts";
import { pairsText, toDate } from "../format.ts";
import { Line, Time } from "./small.tsx";

/** The hosts there are, asked for once. */
export function useHosts(): { hosts: Host[] | undefined; failed: Problem | undefined } {
  const [hosts, setHosts] = useState<Host[]>();
  const [failed, setFailed] = useState<Problem>();
  useEffect(() => {
    let gone = false;
    (async () => {
      const all: Host[] = [];
      for await (const host of client.hosts()) all.push(host);
      if (!gone) setHosts(all);
    })().catch((error: unknown) => {
      if (!gone) setFailed(problemOf(error));
    });
    return () => {
      gone = true;
    };
  }, []);
  return { hosts, failed };
}

/** The host that was used last, or else the first that works. */
export function usual(hosts: readonly Host[] = []): string {
  const last = preferred("telexec.host");
  return (hosts.find((h) => h.name === last) ?? hosts.find((h) => h.lastFailure === undefined) ?? hosts[0])?.name ?? "";
}

/** A field with the hosts, and beneath it what is known of the one that is chosen. */
export function HostField({ testid, hosts, failed, value, disabled, pick }: {
  testid: string; hosts: readonly Host[] | undefined; failed: Problem | undefined; value: string; disabled: boolean; pick: (name: string) => void;
}) {
  const id = useId();
  const chosen = hosts?.find((h) => h.name === value);
  return (
    <div className="field">
      <label htmlFor={id}>Host</label>
      <select id={id} data-testid={testid} value={value} disabled={disabled} aria-describedby={`${id}-note`} onChange={(event) => pick(event.target.value)}>
        {hosts === undefined && <option value={value}>{value === "" ? "…" : value}</option>}
        {hosts?.map((h) => (
          <option key={h.name} value={h.name}>
            {h.name}
            {Object.keys(h.labels).length > 0 && ` · ${pairsText(h.labels)}`}
            {h.lastFailure !== undefined && " · failing"}
          </option>
        ))}
        {hosts !== undefined && chosen === undefined && value !== "" && <option value={value}>{value}</option>}
      </select>
      <p className="under" id={`${id}-note`}>
        {failed !== undefined && <span className="bad">{failed.message}</span>}
        {hosts?.length === 0 && "There are no hosts: add one to the configuration of the service."}
        {chosen?.lastFailure !== undefined && (
          <span className="bad">
            Last failure <Time at={toDate(chosen.lastFailureTime)} />: <Line text={chosen.lastFailure.message} />
          </span>
        )}
        {chosen !== undefined && chosen.lastFailure === undefined && <Line text={`${chosen.user}@${chosen.address}`} />}
      </p>
    </div>
  );
}

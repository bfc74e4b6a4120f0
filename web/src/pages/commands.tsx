// All commands: what has not ended, live, and below it the history.

import { memo, useEffect, useMemo, useRef, useState } from "react";
import { CommandState, type Command } from "@telexec/client";
import { aborted, client } from "../client.ts";
import {
  allOrigins, allStates, count, dateOf, hasEnded, originOf, originWord, parsePairs, spoken, stateKey, stateOf, stateWord, toDate, toSeconds, toStamp,
} from "../format.ts";
import { useListKeys } from "../keys.ts";
import { learn, listen, useActive, useEnded } from "../live.ts";
import { FilterForm, TextFilter, TimeFilter } from "../parts/filters.tsx";
import { RunForm } from "../parts/run.tsx";
import { Elapsed, Empty, Exit, Failed, Labels, Line, ProgressBar, Skeleton, started, State, Time, useTitle } from "../parts/small.tsx";
import { Link, navigate, usePlace, withQuery } from "../router.ts";
import { lacks, useSession } from "../session.ts";

const PARAMS = ["state", "host", "origin", "principal", "label", "from", "to"];

interface Filter {
  state: CommandState | undefined;
  host: string;
  origin: number | undefined;
  principal: string;
  labels: Record<string, string>;
  from: Date | undefined;
  to: Date | undefined;
}

function filterOf(query: URLSearchParams): Filter {
  const date = (name: string): Date | undefined => {
    const text = query.get(name);
    return text === null ? undefined : dateOf(text);
  };
  return {
    state: stateOf(query.get("state") ?? ""),
    host: query.get("host") ?? "",
    origin: originOf(query.get("origin") ?? ""),
    principal: query.get("principal") ?? "",
    labels: parsePairs(query.get("label") ?? "", /,/) ?? {},
    from: date("from"),
    to: date("to"),
  };
}

function matches(command: Command, filter: Filter): boolean {
  const made = toDate(command.createTime);
  return (
    (filter.state === undefined || command.state === filter.state) &&
    (filter.host === "" || command.host === filter.host) &&
    (filter.origin === undefined || command.createdBy?.origin === filter.origin) &&
    (filter.principal === "" || command.createdBy?.principal === filter.principal) &&
    Object.entries(filter.labels).every(([key, value]) => command.labels[key] === value) &&
    (filter.from === undefined || (made !== undefined && made >= filter.from)) &&
    (filter.to === undefined || (made !== undefined && made < filter.to))
  );
}

// What runs before what waits for somebody, and that before what waits for its turn, of which the next one is first.
function runningFirst(a: Command, b: Command): number {
  const rank = (c: Command): number => (c.state === CommandState.QUEUED ? 2 : c.state === CommandState.AWAITING_APPROVAL ? 1 : 0);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  return a.id < b.id === (rank(a) < 2) ? 1 : -1;
}

export function CommandsPage() {
  useTitle("Commands");
  useListKeys("a.command-row");
  const place = usePlace();
  const session = useSession();
  const running = place.query.has("run");
  const filterKey = PARAMS.map((name) => place.query.get(name) ?? "").join("\n");
  const filter = useMemo(() => filterOf(place.query), [filterKey]);
  const filtered = filterKey.trim() !== "";
  const { commands, synced, failed } = useActive();
  const active = commands.filter((c) => matches(c, filter)).sort(runningFirst);
  const history = useHistory(filter, filterKey);
  const open = (): void => navigate(withQuery(place, { run: "1" }));
  const barred = lacks(session, "operator");

  return (
    <section className="page" aria-label="Commands">
      <div className="heading">
        <h1>Commands</h1>
        {!running && (
          <button type="button" className="primary" data-testid="open-run" onClick={open}>
            Run a command
          </button>
        )}
      </div>
      {running && <RunForm host={place.query.get("on") ?? ""} onClose={() => navigate(withQuery(place, { run: "", on: "" }), { replace: true })} />}
      <Filters />
      <section aria-labelledby="active-title">
        <h2 id="active-title">
          Now <span className="tabular faint">{active.length}</span>
        </h2>
        {failed !== undefined && <Failed error={failed} retry={() => void listen()} />}
        {active.length > 0 && (
          <ul className="rows" data-testid="active-list">
            {active.map((c) => (
              <Row key={c.id} command={c} />
            ))}
          </ul>
        )}
        {active.length === 0 && (synced ? <p className="faint quiet-line">{filtered ? "Nothing that matches runs or waits." : "Nothing runs or waits."}</p> : <Skeleton rows={1} />)}
      </section>
      <section aria-labelledby="history-title">
        <h2 id="history-title">History</h2>
        {history.commands.length > 0 && (
          <ul className="rows" data-testid="history-list">
            {history.commands.map((c) => (
              <Row key={c.id} command={c} />
            ))}
          </ul>
        )}
        {history.loading && history.commands.length === 0 && <Skeleton rows={6} />}
        {history.error !== undefined && <Failed error={history.error} retry={history.more} />}
        {!history.loading && history.error === undefined && history.commands.length === 0 && !history.rest && (
          <Empty title={filtered ? "No command matches the filters." : "No command has ended yet."}>
            {filtered ? <Link to="/">Show all commands</Link> : barred === undefined ? "Run one: press r." : "What others run shows here."}
          </Empty>
        )}
        {history.rest && history.error === undefined && (
          <button type="button" className="more-button" data-testid="load-more" disabled={history.loading} onClick={history.more}>
            {history.loading ? "Loading…" : "Load more"}
          </button>
        )}
      </section>
    </section>
  );
}

// useHistory reads pages of what has ended, and puts in what ends meanwhile.
function useHistory(filter: Filter, key: string) {
  const [pages, setPages] = useState<{ key: string; ids: Map<string, Command>; next: string; done: boolean }>();
  const [loading, setLoading] = useState(true);
  const [error, setError] = useState<unknown>();
  const stop = useRef<AbortController>(undefined);
  const ended = useEnded();

  const load = async (before: typeof pages): Promise<void> => {
    stop.current?.abort();
    const signal = (stop.current = new AbortController()).signal;
    setLoading(true);
    setError(undefined);
    try {
      const states = filter.state === undefined ? allStates.filter((s) => s >= CommandState.COMPLETED) : [filter.state];
      const page = await client
        .list(
          {
            states, host: filter.host, principal: filter.principal, labels: filter.labels, pageSize: 50,
            ...(filter.origin === undefined ? {} : { origin: filter.origin }),
            ...(filter.from === undefined ? {} : { createTimeFrom: toStamp(filter.from) }),
            ...(filter.to === undefined ? {} : { createTimeTo: toStamp(filter.to) }),
          },
          { signal },
        )
        .page(before?.next);
      if (signal.aborted) return;
      const ids = new Map(before?.ids);
      for (const command of page.commands) {
        const newest = learn(command);
        if (hasEnded(newest)) ids.set(command.id, newest);
      }
      setPages({ key, ids, next: page.nextPageToken, done: page.nextPageToken === "" });
      setLoading(false);
    } catch (failed) {
      if (aborted(failed) || signal.aborted) return;
      setError(failed);
      setLoading(false);
    }
  };
  useEffect(() => {
    void load(undefined);
    return () => stop.current?.abort();
  }, [key]);

  const loaded = pages?.key === key ? pages : undefined;
  const commands = useMemo(() => {
    if (loaded === undefined) return [];
    const all = new Map(loaded.ids);
    let oldest = "";
    for (const id of loaded.ids.keys()) if (oldest === "" || id < oldest) oldest = id;
    // What is older than the pages comes with its page.
    for (const command of ended) {
      if (all.has(command.id) || ((loaded.done || oldest === "" || command.id > oldest) && matches(command, filter))) all.set(command.id, command);
    }
    return [...all.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  }, [loaded, ended, filter]);
  return { commands, loading, error, rest: loaded !== undefined && !loaded.done, more: () => void load(loaded) };
}

const Row = memo(function Row({ command }: { command: Command }) {
  const ended = hasEnded(command);
  const wait = toSeconds(command.queue?.estimatedWait);
  return (
    <li>
      <Link to={`/commands/${command.id}`} className={ended ? "command-row" : "command-row active"} data-testid="command-row" data-id={command.id}>
        <span className="c-state">
          <State command={command} />
        </span>
        <span className="c-line">
          <code className="line"><Line text={firstLine(command.command)} /></code>
          <span className="c-more">
            {command.progress !== undefined && !ended && <ProgressBar progress={command.progress} quiet />}
            {command.queue !== undefined && command.state === CommandState.QUEUED && (
              <span className="tabular">
                place {command.queue.position} for the {command.queue.waitsFor || "host"}
                {wait !== undefined && `, about ${spoken(wait)}`}
              </span>
            )}
            {command.awaitedApproval !== undefined && command.state === CommandState.AWAITING_APPROVAL && (
              <span className="tabular">
                {command.awaitedApproval.approvals} of {command.awaitedApproval.requiredApprovals} by {command.awaitedApproval.roles.join(" or ")}
              </span>
            )}
            {ended && command.failure !== undefined && <span className="cut"><Line text={command.failure.message} /></span>}
            {command.session !== "" && (
              <span>
                in <Line text={command.session} />
              </span>
            )}
            <Labels labels={command.labels} />
          </span>
        </span>
        <span className="c-host cut"><Line text={command.host} /></span>
        <span className="c-who cut">
          <Line text={command.createdBy?.principal ?? ""} /> <span className="faint">{originWord(command.createdBy?.origin)}</span>
        </span>
        <span className="c-exit">
          <Exit command={command} />
        </span>
        <span className="c-took tabular">
          {ended ? <Elapsed from={started(command)} to={toDate(command.endTime)} /> : <Elapsed from={started(command)} />}
        </span>
        <span className="c-when">
          <Time at={toDate(command.createTime)} />
        </span>
      </Link>
    </li>
  );
});

function firstLine(text: string): string {
  const lines = text.split("\n");
  const first = (lines[0] ?? "").slice(0, 400);
  return lines.length > 1 ? `${first} … ${count(lines.length)} lines` : first;
}

function Filters() {
  const place = usePlace();
  const value = (name: string): string => place.query.get(name) ?? "";
  const set = (name: string, text: string): void => navigate(withQuery(place, { [name]: text }), { replace: true });
  return (
    <FilterForm of="commands" params={PARAMS}>
      <label>
        State
        <select value={value("state")} data-testid="filter-state" onChange={(event) => set("state", event.target.value)}>
          <option value="">any</option>
          {allStates.map((s) => (
            <option key={s} value={stateKey(s)}>
              {stateWord(s)}
            </option>
          ))}
        </select>
      </label>
      <TextFilter name="Host" param="host" />
      <label>
        Door
        <select value={value("origin")} onChange={(event) => set("origin", event.target.value)}>
          <option value="">any</option>
          {allOrigins.map((o) => (
            <option key={o} value={originWord(o)}>
              {originWord(o)}
            </option>
          ))}
        </select>
      </label>
      <TextFilter name="Who" param="principal" />
      <TextFilter name="Label" param="label" hint="key=value" />
      <TimeFilter name="From" param="from" />
      <TimeFilter name="To" param="to" />
    </FilterForm>
  );
}

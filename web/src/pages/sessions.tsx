// All terminals: what is open, live, and below it what was.

import { memo, useEffect, useRef, useState } from "react";
import { SessionState, type Session } from "@telexec/client";
import { aborted, client } from "../client.ts";
import { originWord, toDate } from "../format.ts";
import { useListKeys } from "../keys.ts";
import { learnSession, listen, useCommand, useSessions } from "../live.ts";
import { OpenSessionDialog } from "../parts/opensession.tsx";
import { Elapsed, Empty, Failed, Labels, Line, Skeleton, TerminalState, Time, useTitle } from "../parts/small.tsx";
import { Link, navigate, usePlace, withQuery } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import "../styles/terminal.css";

export default function SessionsPage() {
  useTitle("Terminals");
  useListKeys("a.session-row");
  const place = usePlace();
  const me = useSession();
  const barred = lacks(me, "operator");
  const opening = place.query.has("open");
  const { open, synced, failed } = useSessions();
  const past = usePast();
  return (
    <section className="page" aria-label="Terminals">
      <div className="heading">
        <h1>Terminals</h1>
        <button type="button" className="primary" data-testid="open-session" disabled={barred !== undefined} title={barred} onClick={() => navigate(withQuery(place, { open: "1" }))}>
          Open a terminal
        </button>
      </div>
      <section aria-labelledby="open-title">
        <h2 id="open-title">
          Open <span className="tabular faint">{open.length}</span>
        </h2>
        {failed !== undefined && <Failed error={failed} retry={() => void listen()} />}
        {open.length > 0 && (
          <ul className="rows" data-testid="open-sessions">
            {open.map((s) => (
              <OpenRow key={s.id} session={s} />
            ))}
          </ul>
        )}
        {open.length === 0 &&
          (synced ? (
            <Empty title="No terminal is open.">
              {barred === undefined ? "Open one: a shell on a host that lasts, which you and agents use together." : "What others open shows here."}
            </Empty>
          ) : (
            <Skeleton rows={2} />
          ))}
      </section>
      <section aria-labelledby="past-title">
        <h2 id="past-title">Ended</h2>
        {past.sessions.length > 0 && (
          <ul className="rows" data-testid="ended-sessions">
            {past.sessions.map((s) => (
              <EndedRow key={s.id} session={s} />
            ))}
          </ul>
        )}
        {past.loading && past.sessions.length === 0 && <Skeleton rows={3} />}
        {past.error !== undefined && <Failed error={past.error} retry={past.more} />}
        {!past.loading && past.error === undefined && past.sessions.length === 0 && !past.rest && <p className="faint quiet-line">None has ended yet.</p>}
        {past.rest && past.error === undefined && (
          <button type="button" className="more-button" disabled={past.loading} onClick={past.more}>
            {past.loading ? "Loading…" : "Load more"}
          </button>
        )}
      </section>
      <OpenSessionDialog open={opening} host={place.query.get("on") ?? ""} onClose={() => opening && navigate(withQuery(place, { open: "", on: "" }), { replace: true })} />
    </section>
  );
}

const OpenRow = memo(function OpenRow({ session }: { session: Session }) {
  const command = useCommand(session.currentCommand);
  const here = session.viewers;
  return (
    <li>
      <Link to={`/sessions/${encodeURIComponent(session.name)}`} className="session-row" data-testid="session-row" data-session={session.name}>
        <span className="c-state">
          <TerminalState session={session} />
        </span>
        <span className="c-line">
          <span>
            <strong><Line text={session.name} /></strong>{" "}
            {session.title !== "" && <span className="faint"><Line text={session.title.slice(0, 200)} /></span>}
          </span>
          <span className="c-more">
            {command !== undefined && session.currentCommand !== "" && (
              <code className="cut"><Line text={command.command.split("\n")[0]?.slice(0, 200) ?? ""} /></code>
            )}
            <Labels labels={session.labels} />
          </span>
        </span>
        <span className="c-host cut"><Line text={session.host} /></span>
        <span className="c-who cut" title={here.map((v) => `${v.actor?.principal ?? ""} (${originWord(v.actor?.origin)})`).join(", ")}>
          {here.length === 0 ? <span className="faint">nobody here</span> : <Line text={[...new Set(here.map((v) => v.actor?.principal ?? "?"))].join(", ")} />}
        </span>
        <span className="c-took tabular">
          <Elapsed from={toDate(session.openTime) ?? toDate(session.createTime)} />
        </span>
        <span className="c-when">
          <Time at={toDate(session.openTime) ?? toDate(session.createTime)} />
        </span>
      </Link>
    </li>
  );
});

const EndedRow = memo(function EndedRow({ session }: { session: Session }) {
  return (
    <li>
      <Link to={`/sessions/${session.id}${session.recorded ? "/replay" : ""}`} className="session-row ended" data-testid="ended-row" data-session={session.name}>
        <span className="c-state">
          <TerminalState session={session} />
        </span>
        <span className="c-line">
          <span>
            <strong><Line text={session.name} /></strong>{" "}
            {session.end !== undefined && <span className="faint"><Line text={session.end.message} /></span>}
          </span>
          <span className="c-more">
            <Labels labels={session.labels} />
          </span>
        </span>
        <span className="c-host cut"><Line text={session.host} /></span>
        <span className="c-who cut">
          <Line text={session.createdBy?.principal ?? ""} /> <span className="faint">{originWord(session.createdBy?.origin)}</span>
        </span>
        <span className="c-took tabular">
          <Elapsed from={toDate(session.openTime) ?? toDate(session.createTime)} to={toDate(session.endTime)} />
        </span>
        <span className="c-when">
          <Time at={toDate(session.endTime)} />
        </span>
      </Link>
    </li>
  );
});

// usePast reads pages of what has ended, and puts in what ends meanwhile.
function usePast() {
  const [pages, setPages] = useState<{ all: Map<string, Session>; next: string; done: boolean }>();
  const [loading, setLoading] = useState(true);
  const [error, setError] = useState<unknown>();
  const stop = useRef<AbortController>(undefined);
  const { ended } = useSessions();
  const load = async (before: typeof pages): Promise<void> => {
    stop.current?.abort();
    const { signal } = (stop.current = new AbortController());
    setLoading(true);
    setError(undefined);
    try {
      const page = await client.sessions({ ended: true, pageSize: 50 }, { signal }).page(before?.next);
      if (signal.aborted) return;
      const all = new Map(before?.all);
      for (const session of page.sessions) {
        const newest = learnSession(session);
        if (newest.state === SessionState.ENDED) all.set(session.id, newest);
      }
      setPages({ all, next: page.nextPageToken, done: page.nextPageToken === "" });
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
  }, []);
  const all = new Map(pages?.all);
  // What is older than the pages comes with its page.
  const oldest = [...all.keys()].at(-1) ?? "";
  for (const session of ended) {
    if (all.has(session.id) || (pages !== undefined && (pages.done || session.id > oldest))) all.set(session.id, session);
  }
  return {
    sessions: [...all.values()].sort((a, b) => (a.id < b.id ? 1 : -1)),
    loading, error,
    rest: pages !== undefined && !pages.done,
    more: () => void load(pages),
  };
}

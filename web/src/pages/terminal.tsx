// The terminals of this page, one tab each: what is on it, who is here, who has the keyboard, and the commands.

import { useEffect, useId, useRef, useState, useSyncExternalStore, type FormEvent, type KeyboardEvent, type RefObject } from "react";
import { CommandState, Connection, IfBusy, Keeper, SessionState, ViewerRole, type Command, type Session, type Viewer } from "@telexec/client";
import { client, prefer, preferred, problemOf, sentence, type Problem } from "../client.ts";
import { useNow } from "../clock.ts";
import { completionWord, hasEnded, keeperWord, originWord, roleWord, toDate } from "../format.ts";
import { useKeys } from "../keys.ts";
import { learn, learnSession, sessionNamed, useCommandsIn, useSessions } from "../live.ts";
import { Dialog } from "../parts/dialog.tsx";
import { Menu } from "../parts/menu.tsx";
import { randomId } from "../parts/run.tsx";
import { Exit, Failed, Labels, Line, Refused, Skeleton, State, TerminalState, Time, Took, useTitle } from "../parts/small.tsx";
import { Link, navigate } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import type { Attachment, View } from "../terminal/attachment.ts";
import { closeTab, openTab, tabOf, useTabs } from "../terminal/tabs.ts";
import "../styles/terminal.css";

/** How long somebody is shown as typing. */
const TYPING_MS = 2_500;

export default function TerminalPage({ name }: { name: string }) {
  const tabs = useTabs();
  const tab = tabOf(name);
  const [gone, setGone] = useState<Session>(); // one that had ended before it was looked at
  const [error, setError] = useState<unknown>();
  const [attempt, setAttempt] = useState(0);

  const begin = (session: Session): void => {
    try {
      openTab(session);
    } catch (failed) {
      setError(failed); // without a WebSocket there is no terminal
    }
  };

  useEffect(() => {
    setGone(undefined);
    setError(undefined);
    const shown = tabOf(name);
    if (shown?.id === name) return undefined;
    // A session that has ended has its name no longer: there may be another one of it.
    const there = sessionNamed(name);
    if (there !== undefined && there.state !== SessionState.ENDED && there.id !== shown?.id) {
      begin(there);
      return undefined;
    }
    if (shown !== undefined && !shown.ended) return undefined;
    const stop = new AbortController();
    client.session(name, { signal: stop.signal }).then(
      (session) => {
        learnSession(session);
        if (stop.signal.aborted) return;
        if (session.state !== SessionState.ENDED) begin(session);
        else if (shown === undefined) setGone(session);
      },
      (failed: unknown) => {
        if (stop.signal.aborted || shown !== undefined) return;
        problemOf(failed);
        setError(failed);
      },
    );
    return () => stop.abort();
  }, [name, attempt]);

  const close = (which: Attachment): void => {
    const next = closeTab(which);
    if (which !== tab) return;
    navigate(next === undefined ? "/sessions" : pathOf(next.view.session), { replace: true });
  };
  const beside = (by: number): void => {
    const at = tab === undefined ? -1 : tabs.indexOf(tab);
    const next = tabs[(at + by + tabs.length) % tabs.length];
    if (next !== undefined && next !== tab) navigate(pathOf(next.view.session));
  };
  useKeys({ "[": () => beside(-1), "]": () => beside(1) });

  return (
    <section className="page terminal-page" aria-label={`Terminal ${name}`}>
      <Tabs
        tabs={tabs}
        shown={tab}
        close={close}
        open={(session) => {
          begin(session); // where we are may have its name already
          navigate(pathOf(session));
        }}
      />
      {tab !== undefined && <Terminal key={tab.id} tab={tab} close={() => close(tab)} />}
      {tab === undefined && gone === undefined && (
        <>
          <h1 className="mono">{name}</h1>
          {error === undefined ? (
            <Skeleton rows={5} />
          ) : (
            <Failed error={error} retry={() => setAttempt(attempt + 1)}>
              <Link className="button" to="/sessions">All terminals</Link>
            </Failed>
          )}
        </>
      )}
      {tab === undefined && gone !== undefined && <Gone session={gone} />}
    </section>
  );
}

function pathOf(session: Session): string {
  // A name is another session's when this one is over.
  return `/sessions/${encodeURIComponent(session.state === SessionState.ENDED ? session.id : session.name)}`;
}

function useView(tab: Attachment): View {
  return useSyncExternalStore(tab.subscribe, () => tab.view);
}

function Tabs({ tabs, shown, close, open }: {
  tabs: readonly Attachment[];
  shown: Attachment | undefined;
  close: (tab: Attachment) => void;
  open: (session: Session) => void;
}) {
  const sessions = useSessions();
  const others = sessions.open.filter((s) => !tabs.some((t) => t.id === s.id));
  // As in any list of tabs: arrows go from one to the next.
  const keys = (event: KeyboardEvent<HTMLElement>): void => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by === 0) return;
    event.preventDefault();
    const all = [...event.currentTarget.querySelectorAll<HTMLElement>("[data-tab]")];
    all[(all.indexOf(document.activeElement as HTMLElement) + by + all.length) % all.length]?.focus();
  };
  return (
    <div className="tabs">
      <nav aria-label="Open terminals" onKeyDown={keys}>
        {tabs.map((tab) => (
          <Tab key={tab.id} tab={tab} shown={tab === shown} close={() => close(tab)} />
        ))}
      </nav>
      <Menu
        className="menu-button tabs-more"
        summary={
          <summary role="button" aria-label="Open another terminal" title="Open another terminal" data-testid="tab-menu">
            +
          </summary>
        }
      >
        {others.slice(0, 20).map((s) => (
          <button key={s.id} type="button" onClick={() => open(s)}>
            <Line text={s.name} /> <span className="faint"><Line text={s.host} /></span>
          </button>
        ))}
        <button type="button" onClick={() => navigate("/sessions?open=1")}>New…</button>
        <button type="button" onClick={() => navigate("/sessions")}>All terminals</button>
      </Menu>
    </div>
  );
}

function Tab({ tab, shown, close }: { tab: Attachment; shown: boolean; close: () => void }) {
  const { session, connection } = useView(tab);
  const lost = connection.state === "reconnecting" || session.connection === Connection.RECONNECTING;
  const tone = session.state === SessionState.ENDED ? "off" : lost ? "wait" : session.currentCommand === "" ? "good" : "run";
  return (
    <span className={shown ? "tab shown" : "tab"} data-testid="tab" data-session={session.name}>
      <Link to={pathOf(session)} aria-current={shown ? "page" : undefined} data-tab="" title={`${session.name} on ${session.host}`}>
        <span className={`dot-only tone-${tone}`}>
          <span className="dot" aria-hidden="true" />
        </span>
        <span className="cut"><Line text={session.name} /></span>
      </Link>
      <button type="button" className="quiet" aria-label={`Close the tab of ${session.name}; the session goes on`} title="Close the tab; the session goes on" data-testid="close-tab" onClick={close}>
        ×
      </button>
    </span>
  );
}

function Terminal({ tab, close }: { tab: Attachment; close: () => void }) {
  const view = useView(tab);
  const { session, problem } = view;
  const me = useSession();
  const barred = lacks(me, "operator");
  const place = useRef<HTMLDivElement>(null);
  const foot = useRef<HTMLParagraphElement>(null);
  const grid = useRef<HTMLDivElement>(null);
  const [beside, setBeside] = useState(() => preferred("telexec.session-commands") !== "off");
  const [searching, setSearching] = useState(false);
  const [asking, setAsking] = useState(false);
  const [said, setSaid] = useState("");
  const ended = session.state === SessionState.ENDED;
  useTitle(`${session.name} on ${session.host}`);

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const hide = tab.show(element);
    const { term } = tab.emulator;
    // The terminal takes all keys; these lead out of it.
    term.attachCustomKeyEventHandler((event) => {
      if (event.type !== "keydown") return true;
      if (event.key === "F6" && event.shiftKey) {
        event.preventDefault();
        foot.current?.focus();
        return false;
      }
      if (event.ctrlKey && event.shiftKey && event.code === "KeyF") {
        event.preventDefault();
        setSearching(true);
        return false;
      }
      // What is selected is copied; without a selection it is an interrupt.
      if (event.ctrlKey && !event.shiftKey && !event.altKey && event.code === "KeyC" && term.hasSelection()) return false;
      // Without the keyboard Tab goes on through the page.
      if (event.key === "Tab" && !tab.mayType) return false;
      return true;
    });
    // Behind what the frame does with a new page.
    const later = setTimeout(() => {
      if (document.querySelector("dialog[open]") === null) term.focus();
    });
    return () => {
      clearTimeout(later);
      hide();
    };
  }, [tab]);

  const toggle = (): void => {
    setBeside(!beside);
    prefer("telexec.session-commands", beside ? "off" : "on");
  };
  const jump = (command: string): void => {
    if (tab.jump(command)) {
      setSaid("");
      return;
    }
    setSaid(view.alternate ? "A program has the whole screen just now" : "Its beginning is not in this terminal's memory any more");
    setTimeout(() => setSaid(""), 4000);
  };

  return (
    <div className={beside ? "terminal-grid" : "terminal-grid alone"} ref={grid}>
      <header className="terminal-head">
        <TerminalState session={session} />
        <h1>
          <Line text={session.name} />
        </h1>
        <span className="faint cut terminal-where">
          on <Link to={`/hosts?host=${encodeURIComponent(session.host)}`}><Line text={session.host} /></Link>
          {session.title !== "" && <> · <Line text={session.title.slice(0, 120)} /></>}
        </span>
        <span className="terminal-acts">
          <Keyboard tab={tab} view={view} />
          <button type="button" aria-pressed={beside} data-testid="commands-toggle" onClick={toggle}>
            Commands
          </button>
          <MoreMenu tab={tab} session={session} barred={barred} onSearch={() => setSearching(true)} onClose={() => setAsking(true)} />
        </span>
      </header>
      <div className="terminal-line">
        <Presence view={view} />
        <Notice tab={tab} view={view} />
      </div>
      <div className="terminal-main">
        {searching && <Search tab={tab} onClose={() => { setSearching(false); tab.emulator.term.focus(); }} />}
        <div className={tab.mayType ? "session-box" : "session-box locked"} data-testid="terminal" data-session={session.id} data-may-type={tab.mayType}>
          <div className="session-place" ref={place} />
        </div>
        {ended && <Over session={session} leave="Close the tab" onClose={close} />}
        {problem !== undefined && !ended && (
          <Refused problem={problem}>
            <button type="button" onClick={() => { closeTab(tab); openTab(session); }}>Attach again</button>
          </Refused>
        )}
        {!ended && <KeyBar tab={tab} />}
        <p
          className="under terminal-foot" ref={foot} tabIndex={-1}
          onKeyDown={(event) => {
            // Back means what stands before the terminal, which would keep the focus.
            const head = grid.current?.querySelector<HTMLElement>(".terminal-head [data-testid=session-menu]");
            if (event.key !== "Tab" || !event.shiftKey || !head) return;
            event.preventDefault();
            head.focus();
          }}
        >
          <span>
            {tab.mayType ? "What you type goes to the session" : "Read only"}; <kbd>Shift</kbd> <kbd>F6</kbd> leaves the terminal<span className="wide">, <kbd>Ctrl</kbd> <kbd>Shift</kbd> <kbd>F</kbd> searches</span>.
          </span>
          <span className="tabular wide" data-testid="session-size">
            {session.columns}×{session.rows}
          </span>
          <span className="bad" role="status">
            {view.refused !== undefined && <><Line text={sentence(view.refused.message)} />. <Line text={view.refused.hint} /></>}
            {view.refused === undefined && said}
          </span>
        </p>
      </div>
      {beside && <Commands tab={tab} session={session} barred={barred} jump={jump} />}
      <CloseDialog session={session} open={asking} onClose={() => setAsking(false)} />
    </div>
  );
}

function nameOf(viewer: Viewer | undefined): string {
  return viewer?.actor?.principal ?? "somebody";
}

/** What is not as it should be, in a line that is always there, so that nothing moves. */
function Notice({ tab, view }: { tab: Attachment; view: View }) {
  const { session, connection, viewer } = view;
  const now = useNow(connection.state === "reconnecting");
  const holder = session.viewers.find((v) => v.id === session.keyboard);
  const own = session.viewers.find((v) => v.id === viewer);
  if (session.state === SessionState.ENDED || view.problem !== undefined) return null;
  if (connection.state === "reconnecting") {
    const next = connection.retryAt === undefined ? 0 : Math.max(0, Math.ceil((connection.retryAt.getTime() - now) / 1000));
    return (
      <div className="terminal-notice bad" data-testid="terminal-notice" data-state="reconnecting">
        <span role="status">The connection to this terminal is lost and is being made again. The session goes on.</span>
        {connection.attempt > 2 && connection.reason !== undefined && <span><Line text={sentence(connection.reason)} />.</span>}
        {next > 0 && <span className="tabular">next attempt in {next} s</span>}
        <button type="button" onClick={() => tab.retryNow()}>
          Retry now
        </button>
      </div>
    );
  }
  if (session.connection === Connection.RECONNECTING) {
    return (
      <div className="terminal-notice" data-testid="terminal-notice" data-state="host-lost">
        <span role="status">
          The service has lost {session.host} and connects again.
          {session.keeper !== Keeper.NONE && ` ${sentence(keeperWord(session.keeper))} keeps the shell.`}
        </span>
      </div>
    );
  }
  if (session.keyboard !== "" && session.keyboard !== viewer && view.role === ViewerRole.WRITER) {
    return (
      <div className="terminal-notice" data-testid="terminal-notice" data-state="taken">
        <span role="status">
          <b><Line text={nameOf(holder)} /></b> has the keyboard.
        </span>
        <button type="button" onClick={() => tab.take()}>
          Take it
        </button>
      </div>
    );
  }
  if (own?.behind === true) {
    return (
      <div className="terminal-notice" data-testid="terminal-notice" data-state="behind">
        <span role="status">This terminal is behind the session, and catches up.</span>
      </div>
    );
  }
  return null;
}

function Keyboard({ tab, view }: { tab: Attachment; view: View }) {
  const { session, viewer, role, connection } = view;
  if (session.state !== SessionState.OPEN || role === ViewerRole.UNSPECIFIED) return null;
  const holder = session.viewers.find((v) => v.id === session.keyboard);
  const mine = session.keyboard !== "" && session.keyboard === viewer;
  const others = session.viewers.filter((v) => v.id !== viewer && v.role === ViewerRole.WRITER);
  if (role === ViewerRole.OBSERVER) {
    return (
      <span className="keyboard faint" data-testid="keyboard" data-owner="observer" title="Your roles do not let you type here">
        you only look
      </span>
    );
  }
  const off = connection.state !== "live";
  return (
    <span className="keyboard" data-testid="keyboard" data-owner={mine ? "me" : session.keyboard === "" ? "nobody" : "other"}>
      <span className={mine ? "keyboard-owner mine" : "keyboard-owner"}>
        <span aria-hidden="true">⌨</span> {mine ? "yours" : session.keyboard === "" ? "free" : <Line text={nameOf(holder)} />}
      </span>
      {!mine && (
        <button type="button" data-testid="take-keyboard" disabled={off} title="Only you can type then, until you give it back" onClick={() => tab.take()}>
          Take
        </button>
      )}
      {mine && (
        <button type="button" data-testid="release-keyboard" disabled={off} title="Anybody may type then" onClick={() => tab.release()}>
          Release
        </button>
      )}
      {mine && others.length > 0 && !off && (
        <Menu className="menu-button" summary={<summary role="button" data-testid="hand-over">Hand over</summary>}>
          {others.map((v) => (
            <button key={v.id} type="button" data-testid="hand-over-to" data-viewer={v.id} onClick={() => tab.handOver(v.id)}>
              <Line text={nameOf(v)} /> <span className="faint"><Line text={v.label || originWord(v.actor?.origin)} /></span>
            </button>
          ))}
        </Menu>
      )}
    </span>
  );
}

function Presence({ view }: { view: View }) {
  const { session, viewer, typist } = view;
  // The clock is asked only as long as that can change what is shown.
  const now = useNow(typist !== undefined && Date.now() - typist.at < TYPING_MS + 1000);
  const typing = typist !== undefined && now - typist.at < TYPING_MS;
  // Agents type without being here.
  const strangers = typing && typist.viewer !== viewer && session.state !== SessionState.ENDED && !session.viewers.some((v) => v.id === typist.viewer);
  if (session.viewers.length === 0 && !strangers) return <div className="presence" />;
  return (
    <ul className="presence" aria-label="Who is here" data-testid="presence" tabIndex={session.viewers.length > 3 ? 0 : undefined}>
      {session.viewers.map((v) => {
        const last = typist?.viewer === v.id;
        const kind = v.label || originWord(v.actor?.origin);
        return (
          <li key={v.id} className={last && typing ? "viewer typing" : "viewer"} data-testid="viewer" data-viewer={v.id} data-me={v.id === viewer} data-last={last} title={`${nameOf(v)}, ${roleWord(v.role)}, through ${originWord(v.actor?.origin)}`}>
            {v.id === session.keyboard && <span role="img" aria-label="has the keyboard">⌨</span>}
            <b><Line text={nameOf(v)} /></b>
            {v.id === viewer && <span className="faint">you</span>}
            {kind !== "" && <span className="faint cut"><Line text={kind} /></span>}
            {v.role === ViewerRole.OBSERVER && <span className="faint">looks</span>}
            {v.behind && <span className="wait">behind</span>}
            {last && <span className={typing ? "types" : "faint"}>{typing ? "types" : "typed last"}</span>}
          </li>
        );
      })}
      {strangers && (
        <li className="viewer typing" data-testid="viewer" data-last="true">
          <b><Line text={typist.actor?.principal ?? "somebody"} /></b> <span className="faint">{originWord(typist.actor?.origin)}</span> <span className="types">types</span>
        </li>
      )}
    </ul>
  );
}

function MoreMenu({ tab, session, barred, onSearch, onClose }: { tab: Attachment; session: Session; barred: string | undefined; onSearch: () => void; onClose: () => void }) {
  const { term } = tab.emulator;
  const [reader, setReader] = useState(term.options.screenReaderMode === true);
  const expires = toDate(session.expireTime);
  const keeper = keeperWord(session.keeper);
  return (
    <Menu className="menu-button" closesOnChoice={false} summary={<summary role="button" data-testid="session-menu">More</summary>}>
      <dl className="facts session-facts">
        <dt>Shell</dt>
        <dd>{session.shell === "" ? "none" : <Line text={session.shell} />}</dd>
        <dt>Ends of commands</dt>
        <dd>by {completionWord(session.completion) || "…"}</dd>
        <dt>Kept by</dt>
        <dd title={session.keeperReason}>{keeper === "" ? "…" : keeper}{session.keeperReason !== "" && <span className="faint"> (<Line text={session.keeperReason} />)</span>}</dd>
        <dt>Opened</dt>
        <dd><Time at={toDate(session.createTime)} /> by <Line text={session.createdBy?.principal ?? ""} /></dd>
        {expires !== undefined && <><dt>Closes</dt><dd><Time at={expires} /></dd></>}
        {Object.keys(session.labels).length > 0 && <><dt>Labels</dt><dd><Labels labels={session.labels} /></dd></>}
        <dt>Id</dt>
        <dd className="mono">{session.id}</dd>
      </dl>
      <label className="check">
        <input
          type="checkbox"
          checked={reader}
          data-testid="screen-reader"
          onChange={(event) => {
            setReader(event.target.checked);
            term.options.screenReaderMode = event.target.checked;
            prefer("telexec.screen-reader", event.target.checked ? "on" : "off");
          }}
        />{" "}
        For a screen reader
      </label>
      <button type="button" data-testid="search-button" onClick={onSearch}>Search…</button>
      <button type="button" onClick={() => term.clearSelection()}>Clear the selection</button>
      {session.recorded && (
        <Link className="button" to={`/sessions/${session.id}/replay`} data-testid="replay-link">
          Replay
        </Link>
      )}
      <button type="button" className="danger" data-testid="close-session" disabled={barred !== undefined || session.state === SessionState.ENDED} title={barred} onClick={onClose}>
        Close the session…
      </button>
    </Menu>
  );
}

/** Keys that a phone does not have. */
function KeyBar({ tab }: { tab: Attachment }) {
  const keys = ["Esc", "Tab", "Ctrl+C", "Ctrl+D", "Up", "Down", "Left", "Right"] as const;
  const shown: Record<string, string> = { Up: "↑", Down: "↓", Left: "←", Right: "→", "Ctrl+C": "^C", "Ctrl+D": "^D" };
  return (
    <div className="key-bar" role="group" aria-label="Keys">
      {keys.map((key) => (
        <button key={key} type="button" aria-label={key} disabled={!tab.mayType} onPointerDown={(event) => event.preventDefault()} onClick={() => tab.key(key)}>
          {shown[key] ?? key}
        </button>
      ))}
    </div>
  );
}

function Search({ tab, onClose }: { tab: Attachment; onClose: () => void }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState<boolean>();
  const find = (back: boolean, what = text): void => {
    const { search } = tab.emulator;
    if (what === "") {
      tab.emulator.term.clearSelection();
      setFound(undefined);
    } else setFound(back ? search.findPrevious(what) : search.findNext(what));
  };
  return (
    <form
      className="terminal-search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        find(true);
      }}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.preventDefault();
        onClose();
      }}
    >
      <input
        aria-label="Search in the terminal" data-testid="terminal-search" value={text} autoFocus spellCheck={false} autoCapitalize="none" autoComplete="off" placeholder="Search"
        onChange={(event) => {
          setText(event.target.value);
          find(true, event.target.value);
        }}
      />
      <span className="faint search-said" role="status">{found === false ? "not found" : ""}</span>
      <button type="submit" aria-label="Further up">↑</button>
      <button type="button" aria-label="Further down" onClick={() => find(false)}>↓</button>
      <button type="button" aria-label="End the search" onClick={onClose}>×</button>
    </form>
  );
}

/** The session is over: why, and what now. */
function Over({ session, leave, onClose }: { session: Session; leave: string; onClose: () => void }) {
  return (
    <div className="notice off terminal-over" role="status" data-testid="session-over">
      <p>
        <b>This session has ended</b> <Time at={toDate(session.endTime)} />
        {session.end !== undefined && <>: <Line text={session.end.message} /> <code className="reason">{session.end.reason}</code></>}
        {session.exitCode !== undefined && session.end?.message.includes("exit code") !== true && ` The shell's exit code was ${session.exitCode}.`}
      </p>
      {session.end !== undefined && session.end.hint !== "" && <p className="hint"><Line text={sentence(session.end.hint)} /></p>}
      <div className="actions">
        {session.recorded && (
          <Link className="button" to={`/sessions/${session.id}/replay`}>
            Replay
          </Link>
        )}
        <Link className="button" to={`/sessions?open=1&on=${encodeURIComponent(session.host)}`}>
          Open another
        </Link>
        <button type="button" onClick={onClose}>
          {leave}
        </button>
      </div>
    </div>
  );
}

/** A session that had ended before it was looked at. */
function Gone({ session }: { session: Session }) {
  useTitle(`${session.name} on ${session.host}`);
  const commands = useSessionCommands(session);
  return (
    <>
      <header className="terminal-head">
        <TerminalState session={session} />
        <h1><Line text={session.name} /></h1>
        <span className="faint terminal-where">on <Line text={session.host} /></span>
      </header>
      <Over session={session} leave="All terminals" onClose={() => navigate("/sessions")} />
      <h2>Commands</h2>
      <ul className="rows session-commands">
        {commands.map((c) => (
          <CommandRow key={c.id} command={c} />
        ))}
      </ul>
      {commands.length === 0 && <p className="faint quiet-line">None was run in it, or retention has removed them.</p>}
    </>
  );
}

/** The commands of a session, newest first: those that were, and what happens. */
function useSessionCommands(session: Session): readonly Command[] {
  const [loaded, setLoaded] = useState<ReadonlyMap<string, Command>>(new Map());
  const known = useCommandsIn(session.id);
  useEffect(() => {
    const stop = new AbortController();
    setLoaded(new Map());
    client
      .list({ session: session.id, pageSize: 200 }, { signal: stop.signal })
      .page()
      .then(
        (page) => setLoaded(new Map(page.commands.filter((c) => c.sessionId === session.id).map((c) => [c.id, learn(c)]))),
        () => undefined, // what happens from now on is told all the same
      );
    return () => stop.abort();
  }, [session.id]);
  const all = new Map(loaded);
  for (const c of known) all.set(c.id, c);
  return [...all.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
}

function Commands({ tab, session, barred, jump }: { tab: Attachment; session: Session; barred: string | undefined; jump: (command: string) => void }) {
  const commands = useSessionCommands(session);
  const list = useRef<HTMLUListElement>(null);
  useNewestInSight(list, commands[0]?.id);
  return (
    <aside className="session-side" aria-label="Commands of this session">
      <ul className="session-commands" ref={list} data-testid="session-commands">
        {commands.map((c) => (
          <CommandRow key={c.id} command={c} barred={barred} jump={() => jump(c.id)} />
        ))}
        {commands.length === 0 && <li className="faint empty-note">What is run here, typed by a person or sent by an agent, is listed as a command.</li>}
      </ul>
      {session.state === SessionState.ENDED ? (
        <p className="run-box faint" data-testid="session-run-over">The session has ended: nothing can be run in it any more.</p>
      ) : (
        <RunBox tab={tab} session={session} barred={barred} />
      )}
    </aside>
  );
}

// The newest stands on top: where the list was there it stays there.
function useNewestInSight(list: RefObject<HTMLElement | null>, newest: string | undefined): void {
  useEffect(() => {
    const element = list.current;
    if (element !== null && element.scrollTop < 80) element.scrollTop = 0;
  }, [newest]);
}

function CommandRow({ command, barred, jump }: { command: Command; barred?: string | undefined; jump?: () => void }) {
  const [failed, setFailed] = useState("");
  const ended = hasEnded(command);
  const line = command.command.split("\n")[0]?.slice(0, 300) ?? "";
  const cancel = (): void => {
    setFailed("");
    client.cancel(command.id).then(
      (answer) => {
        if (answer.command !== undefined) learn(answer.command);
      },
      (error: unknown) => setFailed(problemOf(error).message),
    );
  };
  return (
    <li className={ended ? "session-command" : "session-command active"} data-testid="session-command" data-id={command.id} data-state={CommandState[command.state]}>
      <span className="session-command-top">
        <State command={command} />
        <Exit command={command} />
        <Took command={command} />
      </span>
      {jump === undefined ? (
        <code className="line"><Line text={line} /></code>
      ) : (
        <button type="button" className="line-button" title="Go to it in the terminal" data-testid="jump" onClick={jump}>
          <code className="line"><Line text={line} /></code>
        </button>
      )}
      <span className="session-command-end faint">
        <span className="cut">
          <Line text={command.createdBy?.principal ?? ""} /> {originWord(command.createdBy?.origin)}
        </span>
        <Link to={`/commands/${command.id}`}>Details</Link>
        {!ended && jump !== undefined && (
          <button type="button" className="danger small" data-testid="cancel-in-session" disabled={barred !== undefined || command.cancellation !== undefined} title={barred} onClick={cancel}>
            Cancel
          </button>
        )}
      </span>
      {failed !== "" && <span className="bad" role="alert">{failed}</span>}
    </li>
  );
}

/** Why nothing can be run in a session that is not open. */
const notYet: Partial<Record<SessionState, string>> = {
  [SessionState.OPENING]: "The session is being opened.",
  [SessionState.CLOSING]: "The session is being closed.",
};

/** Runs a command in the session without the keyboard: when it is its turn. */
function RunBox({ tab, session, barred }: { tab: Attachment; session: Session; barred: string | undefined }) {
  const id = useId();
  const [line, setLine] = useState("");
  const [wait, setWait] = useState(true);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  // The same line keeps its id until it is answered: a repeat after a lost answer types nothing twice.
  const request = useRef({ key: "", id: "" });
  // Rules judge what is run: who may not type may run commands all the same.
  const reason = barred ?? notYet[session.state];
  const off = reason !== undefined;
  const run = async (): Promise<void> => {
    if (busy || off || line.trim() === "") return;
    const key = `${wait}\n${line}`;
    if (request.current.key !== key) request.current = { key, id: randomId() };
    setBusy(true);
    setProblem(undefined);
    try {
      const answer = await client.execute({
        requestId: request.current.id, session: tab.id, command: line, wait: { seconds: 0n }, output: { omit: true },
        ifBusy: wait ? IfBusy.WAIT : IfBusy.REFUSE,
      });
      if (answer.command !== undefined) learn(answer.command);
      request.current.key = "";
      setLine("");
    } catch (error) {
      setProblem(problemOf(error));
    } finally {
      setBusy(false);
    }
  };
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    void run();
  };
  return (
    <form className="run-box" onSubmit={submit} data-testid="session-run">
      <label htmlFor={`${id}-line`}>Run in this session</label>
      <textarea
        id={`${id}-line`} className="mono" rows={Math.min(6, Math.max(1, line.split("\n").length))} value={line} disabled={off} aria-describedby={off ? `${id}-reason` : undefined} spellCheck={false}
        autoCapitalize="none" autoComplete="off" data-testid="session-line" placeholder={off ? "" : "make test"}
        onChange={(event) => setLine(event.target.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
          event.preventDefault();
          void run();
        }}
      />
      {off && <p className="faint" id={`${id}-reason`} data-testid="session-run-reason"><Line text={reason} /></p>}
      {problem !== undefined && (
        <p className="bad" role="alert">
          <Line text={problem.message} /> <span className="hint"><Line text={problem.hint} /></span>
        </p>
      )}
      <div className="actions">
        <button type="submit" className="primary" data-testid="session-run-button" disabled={off || busy || line.trim() === ""}>
          {busy ? "Running…" : "Run"}
        </button>
        <label className="check">
          <input type="checkbox" checked={wait} disabled={off} onChange={(event) => setWait(event.target.checked)} /> wait while it is busy
        </label>
      </div>
    </form>
  );
}

function CloseDialog({ session, open, onClose }: { session: Session; open: boolean; onClose: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  const [reason, setReason] = useState("");
  const id = useId();
  const close = (event: FormEvent): void => {
    event.preventDefault();
    setProblem(undefined);
    client.closeSession(session.id, { reason }).then(
      (answer) => {
        if (answer.session !== undefined) learnSession(answer.session);
        onClose();
      },
      (error: unknown) => setProblem(problemOf(error)),
    );
  };
  return (
    <Dialog open={open} onClose={onClose} title={`Close the session ${session.name}?`} testid="close-session-dialog">
      <form onSubmit={close}>
        <p>Its shell on {session.host} and all that runs in it are ended, for everybody. To leave it as it is, close the tab.</p>
        <div className="field">
          <label htmlFor={id}>Reason (shown to whoever is here, and kept)</label>
          <input id={id} value={reason} maxLength={1000} onChange={(event) => setReason(event.target.value)} />
        </div>
        {problem !== undefined && <p className="bad" role="alert">{problem.message} {problem.hint}</p>}
        <div className="actions">
          <button type="submit" className="danger primary" data-testid="close-session-confirm" autoFocus>
            Close the session
          </button>
          <button type="button" onClick={onClose}>
            Let it go on
          </button>
        </div>
      </form>
    </Dialog>
  );
}

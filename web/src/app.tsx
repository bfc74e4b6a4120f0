// The frame of all pages: where one can go, how the connection is, who one is, and which keys there are.

import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { ApprovalState, type GetServerInfoResponse } from "@telexec/client";
import { client, problemOf, useConnection } from "./client.ts";
import { noteServiceTime } from "./clock.ts";
import { toDate, toSeconds } from "./format.ts";
import { useKeys } from "./keys.ts";
import { listen, useActive, useAwaiting, useSessions, useTasks } from "./live.ts";
import { CommandPage } from "./pages/command.tsx";
import { CommandsPage } from "./pages/commands.tsx";
import { NotFoundPage } from "./pages/notfound.tsx";
import { ConnectionBanner } from "./parts/banner.tsx";
import { Boundary } from "./parts/boundary.tsx";
import { Dialog } from "./parts/dialog.tsx";
import { Menu } from "./parts/menu.tsx";
import { Time } from "./parts/small.tsx";
import { Link, navigate, placeNow, usePlace, withQuery } from "./router.ts";
import { hasRole, Session } from "./session.ts";
import { chosenTheme, chooseTheme, type Theme } from "./theme.ts";

const ApprovalsPage = lazy(() => import("./pages/approvals.tsx"));
const HostsPage = lazy(() => import("./pages/hosts.tsx"));
const AuditPage = lazy(() => import("./pages/audit.tsx"));
const TasksPage = lazy(() => import("./pages/tasks.tsx"));
const TaskPage = lazy(() => import("./pages/task.tsx"));
const SessionsPage = lazy(() => import("./pages/sessions.tsx"));
const TerminalPage = lazy(() => import("./pages/terminal.tsx"));
const ReplayPage = lazy(() => import("./pages/replay.tsx"));

export function App() {
  const [session, setSession] = useState<GetServerInfoResponse>();
  const [failed, setFailed] = useState("");
  const [help, setHelp] = useState(false);
  const place = usePlace();

  useEffect(() => {
    let gone = false;
    const ask = (): void => {
      const sent = Date.now();
      client.serverInfo().then(
        (info) => {
          if (gone) return;
          const began = toDate(info.startTime)?.getTime();
          if (began !== undefined) noteServiceTime(began + (toSeconds(info.uptime) ?? 0) * 1000, sent, Date.now());
          setSession(info);
          setFailed("");
        },
        (error: unknown) => {
          if (!gone) setFailed(problemOf(error).message);
        },
      );
    };
    ask();
    void listen();
    // Roles and the end of the credentials may change while the page is open.
    const again = setInterval(ask, 60_000);
    return () => {
      gone = true;
      clearInterval(again);
    };
  }, []);

  useKeys({
    "?": () => setHelp(true),
    "g c": () => navigate("/"),
    "g k": () => navigate("/tasks"),
    "g a": () => navigate("/approvals"),
    "g t": () => navigate("/sessions"),
    "g h": () => navigate("/hosts"),
    "g l": () => navigate("/audit"),
    t: () => navigate("/tasks?new=1"),
    r: () => {
      const here = placeNow();
      // The filters stay. Where the form is open already, it is gone to.
      if (here.path !== "/") navigate("/?run=1");
      else if (!here.query.has("run")) navigate(withQuery(here, { run: "1" }));
      else document.querySelector<HTMLElement>("[data-testid=command-input]")?.focus();
    },
  });

  // A new page begins at its heading, for eyes and for screen readers.
  const main = useRef<HTMLElement>(null);
  const shown = useRef(place.path);
  useEffect(() => {
    if (shown.current === place.path) return;
    shown.current = place.path;
    window.scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [place.path]);

  return (
    <Session value={session}>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <Header session={session} failed={failed} path={place.path} onHelp={() => setHelp(true)} />
      <ConnectionBanner />
      <main id="main" ref={main} tabIndex={-1}>
        <Boundary key={partOf(place.path)}>
          <Suspense fallback={<div className="loading-page" aria-busy="true" />}>
            <Page path={place.path} />
          </Suspense>
        </Boundary>
      </main>
      <Shortcuts open={help} onClose={() => setHelp(false)} />
    </Session>
  );
}

// Terminals are one page: a tab is changed without making it anew.
function partOf(path: string): string {
  return /^\/sessions\/[^/]+$/.test(path) ? "terminals" : path;
}

function Page({ path }: { path: string }) {
  const command = /^\/commands\/([0-9A-Z]{26})$/.exec(path)?.[1];
  if (command !== undefined) return <CommandPage key={command} id={command} />;
  const task = /^\/tasks\/([0-9A-Z]{26})$/.exec(path)?.[1];
  if (task !== undefined) return <TaskPage key={task} id={task} />;
  const session = /^\/sessions\/([^/]+)(\/replay)?$/.exec(path);
  if (session !== null) {
    const name = decoded(session[1] ?? "");
    return session[2] === undefined ? <TerminalPage name={name} /> : <ReplayPage key={name} name={name} />;
  }
  switch (path) {
    case "/":
      return <CommandsPage />;
    case "/tasks":
      return <TasksPage />;
    case "/approvals":
      return <ApprovalsPage />;
    case "/sessions":
      return <SessionsPage />;
    case "/hosts":
      return <HostsPage />;
    case "/audit":
      return <AuditPage />;
    default:
      return <NotFoundPage />;
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function Header({ session, failed, path, onHelp }: {
  session: GetServerInfoResponse | undefined;
  failed: string;
  path: string;
  onHelp: () => void;
}) {
  const { commands } = useActive();
  const { active: tasks } = useTasks();
  const { open } = useSessions();
  const waiting = useWaiting();
  const item = (to: string, name: string, badge?: number, title?: string) => (
    <Link to={to} aria-current={path === to || (to === "/" && path.startsWith("/commands/")) || (to !== "/" && path.startsWith(`${to}/`)) ? "page" : undefined} title={title}>
      {name}
      {badge !== undefined && <span className={badge > 0 ? "badge" : "badge none"}>{badge}</span>}
    </Link>
  );
  return (
    <header className="top">
      <Link to="/" className="brand" aria-label="telexec, commands">
        telexec
      </Link>
      <nav aria-label="Pages">
        {item("/", "Commands", commands.length, commands.length > 0 ? `${commands.length} have not ended` : undefined)}
        {item("/tasks", "Tasks", tasks.length, tasks.length > 0 ? `${tasks.length} have not ended` : undefined)}
        {item("/sessions", "Terminals", open.length, open.length > 0 ? `${open.length} are open` : undefined)}
        {item("/approvals", "Approvals", waiting, waiting > 0 ? `${waiting} wait for your decision` : undefined)}
        {item("/hosts", "Hosts")}
        {hasRole(session) && item("/audit", "Audit")}
        <a href="/docs" className="wide">
          API
        </a>
      </nav>
      <ConnectionMark />
      <button type="button" className="quiet wide" onClick={onHelp} aria-label="Keyboard shortcuts">
        <kbd>?</kbd>
      </button>
      <Account session={session} failed={failed} />
    </header>
  );
}

// How many approvals wait for this principal: asked again when something awaits one, or does no longer.
function useWaiting(): number {
  const ids = useAwaiting();
  const [waiting, setWaiting] = useState(0);
  useEffect(() => {
    if (ids === "") {
      setWaiting(0);
      return;
    }
    let gone = false;
    const soon = setTimeout(() => {
      (async () => {
        let found = 0;
        for await (const _ of client.approvals({ mineToDecide: true, states: [ApprovalState.PENDING], pageSize: 100 })) {
          if (++found >= 100 || gone) break;
        }
        if (!gone) setWaiting(found);
      })().catch(() => undefined); // the page itself tells what is wrong
    }, 150);
    return () => {
      gone = true;
      clearTimeout(soon);
    };
  }, [ids]);
  return waiting;
}

function ConnectionMark() {
  const { state } = useConnection();
  const words = { idle: "connecting", connecting: "connecting", live: "live", polling: "polling", reconnecting: "reconnecting" }[state];
  return (
    <span className={`mark mark-${state}`} title={`Connection to the service: ${words}`}>
      <span className="dot" aria-hidden="true" />
      <span className="wide">{words}</span>
    </span>
  );
}

function Account({ session, failed }: { session: GetServerInfoResponse | undefined; failed: string }) {
  const [theme, setTheme] = useState<Theme>(chosenTheme);
  const end = toDate(session?.credentialsExpireTime);
  return (
    <Menu
      className="account"
      closesOnChoice={false}
      summary={
        <summary aria-label={session === undefined ? "Account" : `Account of ${session.principal}`} data-testid="account">
          <span className="who">{session?.principal ?? (failed === "" ? "…" : "offline")}</span>
        </summary>
      }
    >
      {session === undefined ? (
        <p>{failed === "" ? "Asking the service who you are…" : failed}</p>
      ) : (
        <dl className="facts">
          <dt>Signed in as</dt>
          <dd data-testid="whoami">{session.principal}</dd>
          <dt>Roles</dt>
          <dd data-testid="roles">{session.roles.join(", ") || "none"}</dd>
          <dt>Until</dt>
          <dd>{end === undefined ? "no end" : <Time at={end} />}</dd>
          <dt>Service</dt>
          <dd>
            {session.node} · telexec {session.version}
            {session.commit !== "" && <span className="faint"> ({session.commit.slice(0, 7)})</span>}
          </dd>
          <dt>Now</dt>
          <dd>
            {session.runningCommands} running, {session.queuedCommands} queued
            {session.draining && ", shutting down"}
          </dd>
        </dl>
      )}
      <label className="row">
        Colours
        <select
          data-testid="theme-switch"
          value={theme}
          onChange={(event) => {
            const chosen = event.target.value as Theme;
            setTheme(chosen);
            chooseTheme(chosen);
          }}
        >
          <option value="system">as the system</option>
          <option value="light">light</option>
          <option value="dark">dark</option>
        </select>
      </label>
      <form method="post" action="/logout">
        <button type="submit" data-testid="sign-out">Sign out</button>
      </form>
    </Menu>
  );
}

const shortcuts: [string, string][] = [
  ["?", "this list"],
  ["g c", "commands"],
  ["g k", "tasks"],
  ["g t", "terminals"],
  ["g a", "approvals"],
  ["g h", "hosts"],
  ["g l", "audit"],
  ["r", "run a command"],
  ["t", "write a task"],
  ["j  k", "next and previous in a list; Enter opens"],
  ["x", "cancel the command, or the task"],
  ["u", "undo the task"],
  ["f", "follow the output, or pause"],
  ["/", "search in the output"],
  ["n  N", "next and previous match"],
  ["e", "first error"],
  ["w", "wrap long lines"],
  ["l", "link to the line at the top, or to the match"],
  ["Home  End", "beginning and end of the output"],
  ["[  ]", "terminals: tab before, tab behind"],
  ["Shift+F6", "leave a terminal"],
  ["Esc", "close what is open"],
];

function Shortcuts({ open, onClose }: { open: boolean; onClose: () => void }) {
  return (
    <Dialog open={open} onClose={onClose} title="Keyboard shortcuts" testid="shortcuts">
      <dl className="shortcuts">
        {shortcuts.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys.split("  ").map((key) => (
                <span key={key}>
                  {key.split(" ").map((k) => (
                    <kbd key={k}>{k}</kbd>
                  ))}
                </span>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <div className="actions">
        <button type="button" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

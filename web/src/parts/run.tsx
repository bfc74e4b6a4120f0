// Running a command: host, command line, and what else can be said; what the rules would say shows while one types.

import { useEffect, useId, useRef, useState, type FormEvent, type KeyboardEvent } from "react";
import { PolicyEffect, type ExplainPolicyResponse } from "@telexec/client";
import { aborted, client, prefer, problemOf, type Problem } from "../client.ts";
import { parseDuration, parsePairs, spoken, toSeconds } from "../format.ts";
import { learn } from "../live.ts";
import { navigate } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import { HostField, useHosts, usual } from "./host.tsx";
import { Refused } from "./small.tsx";

// What was typed and not run: the form may be closed by a key, or left for another page.
let draft = "";

export function RunForm({ host: wanted, onClose }: { host: string; onClose: () => void }) {
  const session = useSession();
  const barred = lacks(session, "operator");
  const { hosts, failed } = useHosts();
  const [picked, pick] = useState(wanted);
  const [command, setCommand] = useState(draft);
  const [more, setMore] = useState({
    directory: "", timeout: "", sudo: "", env: "", labels: "", action: "", pty: false, stdin: false, login: false,
  });
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const input = useRef<HTMLTextAreaElement>(null);
  const id = useId();

  useEffect(() => input.current?.focus(), []);

  const host = picked === "" ? usual(hosts) : picked;
  const timeout = more.timeout.trim() === "" ? undefined : parseDuration(more.timeout);
  const env = parsePairs(more.env, /\n/);
  const labels = parsePairs(more.labels, /[,\n]/);
  const mistakes = {
    timeout: more.timeout.trim() !== "" && timeout === undefined ? "Write it like 90s, 10m or 2h" : "",
    env: env === undefined ? "One NAME=value per line" : "",
    labels: labels === undefined ? "key=value, with commas between them" : "",
  };
  const wrong = Object.values(mistakes).find((text) => text !== "");
  const set = (change: Partial<typeof more>): void => setMore({ ...more, ...change });

  // The same request keeps its id until it is changed: a repeat after a lost answer starts nothing twice.
  const request = useRef({ key: "", id: "" });

  const run = async (): Promise<void> => {
    if (busy || barred !== undefined || command.trim() === "" || host === "" || wrong !== undefined) return;
    setBusy(true);
    setProblem(undefined);
    const key = JSON.stringify([host, command, more]);
    if (request.current.key !== key) request.current = { key, id: randomId() };
    try {
      const answer = await client.execute({
        requestId: request.current.id,
        host,
        command,
        wait: { seconds: 0n },
        output: { omit: true },
        workingDirectory: more.directory.trim(),
        ...(timeout === undefined ? {} : { timeout: { seconds: BigInt(Math.floor(timeout)), nanos: Math.round((timeout % 1) * 1e9) } }),
        ...(more.sudo.trim() === "" ? {} : { sudo: { user: more.sudo.trim() } }),
        ...(more.pty ? { pty: { term: "xterm-256color", columns: 120, rows: 32 } } : {}),
        stdinOpen: more.stdin,
        loginShell: more.login,
        env: env ?? {},
        labels: labels ?? {},
        actionType: more.action.trim(),
      });
      if (answer.command === undefined) return;
      draft = "";
      learn(answer.command);
      prefer("telexec.host", host);
      navigate(`/commands/${answer.command.id}`);
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
  const keys = (event: KeyboardEvent): void => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void run();
    }
    if (event.key === "Escape") {
      event.preventDefault();
      onClose();
    }
  };

  return (
    <form className="run panel" data-testid="run-form" aria-labelledby={`${id}-title`} onSubmit={submit} onKeyDown={keys}>
      <h2 id={`${id}-title`}>Run a command</h2>
      {barred !== undefined && (
        <p className="note" data-testid="run-barred">
          {barred}
        </p>
      )}
      <div className="run-main">
        <HostField testid="host-select" hosts={hosts} failed={failed} value={host} disabled={barred !== undefined} pick={pick} />
        <div className="field grow">
          <label htmlFor={`${id}-command`}>Command line</label>
          <textarea
            id={`${id}-command`}
            ref={input}
            data-testid="command-input"
            className="mono"
            rows={Math.min(12, Math.max(2, command.split("\n").length))}
            value={command}
            disabled={barred !== undefined}
            spellCheck={false}
            autoCapitalize="none"
            autoComplete="off"
            placeholder="uname -a; uptime"
            aria-describedby={`${id}-policy`}
            onChange={(event) => setCommand((draft = event.target.value))}
          />
          <PolicyHint
            id={`${id}-policy`}
            host={host}
            command={command}
            directory={more.directory.trim()}
            sudo={more.sudo.trim()}
            action={more.action.trim()}
            login={more.login}
            env={Object.keys(env ?? {}).join()}
          />
        </div>
      </div>
      <details className="more">
        <summary>More: directory, timeout, user, terminal, environment, labels</summary>
        <div className="grid">
          <Field id={`${id}-dir`} name="Working directory" value={more.directory} set={(directory) => set({ directory })} hint="absolute, or from the login directory" mono />
          <Field id={`${id}-time`} name="Timeout" value={more.timeout} set={(t) => set({ timeout: t })} hint={mistakes.timeout || "90s, 10m, 2h; empty: none"} bad={mistakes.timeout !== ""} />
          <Field id={`${id}-sudo`} name="As user (sudo)" value={more.sudo} set={(sudo) => set({ sudo })} hint="empty: as the login user" mono />
          <Field id={`${id}-action`} name="Action type" value={more.action} set={(action) => set({ action })} hint="for rules that go by kind" mono />
          <Field id={`${id}-labels`} name="Labels" value={more.labels} set={(l) => set({ labels: l })} hint={mistakes.labels || "team=db, ticket=17"} bad={mistakes.labels !== ""} />
          <div className="field">
            <label htmlFor={`${id}-env`}>Environment</label>
            <textarea id={`${id}-env`} className="mono" rows={2} value={more.env} spellCheck={false} autoCapitalize="none" onChange={(event) => set({ env: event.target.value })} />
            <p className={mistakes.env === "" ? "under" : "under bad"}>{mistakes.env || "NAME=value, one per line"}</p>
          </div>
        </div>
        <div className="checks">
          <label>
            <input type="checkbox" checked={more.pty} data-testid="pty-check" onChange={(event) => set({ pty: event.target.checked, stdin: event.target.checked || more.stdin })} /> On a terminal (PTY)
          </label>
          <label>
            <input type="checkbox" checked={more.stdin} data-testid="stdin-check" onChange={(event) => set({ stdin: event.target.checked })} /> Keep input open
          </label>
          <label>
            <input type="checkbox" checked={more.login} onChange={(event) => set({ login: event.target.checked })} /> In the login shell
          </label>
        </div>
      </details>
      {problem !== undefined && <Refused problem={problem} />}
      <div className="actions">
        <button type="submit" className="primary" data-testid="run-button" disabled={barred !== undefined || busy || command.trim() === "" || host === "" || wrong !== undefined}>
          {busy ? "Starting…" : "Run"}
        </button>
        <button type="button" onClick={onClose}>
          Close
        </button>
        <span className="faint wide">
          <kbd>Ctrl</kbd> <kbd>Enter</kbd> runs
        </span>
      </div>
    </form>
  );
}

export function Field({ id, name, value, set, hint, bad = false, mono = false, testid }: {
  id: string; name: string; value: string; set: (value: string) => void; hint: string; bad?: boolean; mono?: boolean; testid?: string;
}) {
  return (
    <div className="field">
      <label htmlFor={id}>{name}</label>
      <input id={id} className={mono ? "mono" : undefined} value={value} spellCheck={false} autoCapitalize="none" autoComplete="off" aria-invalid={bad} aria-describedby={`${id}-hint`} data-testid={testid} onChange={(event) => set(event.target.value)} />
      <p className={bad ? "under bad" : "under"} id={`${id}-hint`}>
        {hint}
      </p>
    </div>
  );
}

export function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** What the rules say about a command line: asked when the typing pauses. */
export function PolicyHint({ id, host, command, directory = "", sudo = "", action = "", login = false, env = "" }: {
  id?: string; host: string; command: string; directory?: string; sudo?: string; action?: string; login?: boolean; env?: string;
}) {
  const [said, setSaid] = useState<{ for: string; answer: ExplainPolicyResponse }>();
  const [problem, setProblem] = useState("");
  const question = JSON.stringify([host, command, directory, sudo, action, login, env]);
  useEffect(() => {
    if (host === "" || command.trim() === "") {
      setSaid(undefined);
      setProblem("");
      return undefined;
    }
    const stop = new AbortController();
    const later = setTimeout(() => {
      client
        .explainPolicy(
          {
            host, command, workingDirectory: directory, actionType: action, loginShell: login,
            envNames: env === "" ? [] : env.split(","),
            ...(sudo === "" ? {} : { sudo: { user: sudo } }),
          },
          { signal: stop.signal },
        )
        .then(
          (answer) => {
            setSaid({ for: question, answer });
            setProblem("");
          },
          (error: unknown) => {
            if (!aborted(error) && !stop.signal.aborted) setProblem(problemOf(error).message);
          },
        );
    }, 300);
    return () => {
      clearTimeout(later);
      stop.abort();
    };
  }, [question]);

  const answer = said?.answer;
  const stale = said !== undefined && said.for !== question;
  const wait = toSeconds(answer?.approvalTimeout);
  return (
    <p id={id} className={stale ? "policy stale" : "policy"} data-testid="policy-hint" data-effect={answer === undefined ? "" : PolicyEffect[answer.effect]} aria-live="polite">
      {problem !== "" && <span className="faint">{problem}</span>}
      {problem === "" && answer?.effect === PolicyEffect.ALLOW && (
        <>
          <b className="good">Allowed</b> <span className="faint">by rule {answer.rule}</span>
        </>
      )}
      {problem === "" && answer?.effect === PolicyEffect.REQUIRE_APPROVAL && (
        <>
          <b className="wait">Needs approval</b>{" "}
          {answer.requiredApprovals > 1 && `by ${answer.requiredApprovals} `}
          {answer.approverRoles.length > 0 && `of ${answer.approverRoles.join(" or ")} `}
          <span className="faint">
            (rule {answer.rule}
            {wait !== undefined && `, waits ${spoken(wait)}`}) {answer.reason}
          </span>
        </>
      )}
      {problem === "" && answer?.effect === PolicyEffect.DENY && (
        <>
          <b className="bad">Denied</b> by rule {answer.rule}: {answer.reason}
        </>
      )}
    </p>
  );
}

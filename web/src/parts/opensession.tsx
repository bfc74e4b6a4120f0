// Opening a terminal on a host.

import { useId, useRef, useState, type FormEvent } from "react";
import { client, prefer, problemOf, type Problem } from "../client.ts";
import { learnSession } from "../live.ts";
import { navigate } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import { Dialog } from "./dialog.tsx";
import { HostField, useHosts, usual } from "./host.tsx";
import { Refused } from "./small.tsx";

/** Letters of a terminal are about so wide and high, in pixels; the terminal itself tells exactly. */
const LETTER = { width: 7.83, height: 15 };
/** What is around a terminal. */
const AROUND = { width: 400, height: 240 };

export function OpenSessionDialog({ open, host, onClose }: { open: boolean; host: string; onClose: () => void }) {
  return (
    <Dialog open={open} onClose={onClose} title="Open a terminal" testid="open-session-dialog">
      <OpenForm wanted={host} onClose={onClose} />
    </Dialog>
  );
}

function OpenForm({ wanted, onClose }: { wanted: string; onClose: () => void }) {
  const session = useSession();
  const barred = lacks(session, "operator");
  const { hosts, failed } = useHosts();
  const [picked, pick] = useState(wanted);
  const [name, setName] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const stop = useRef<AbortController>(undefined);
  const id = useId();
  const host = picked === "" ? usual(hosts) : picked;
  const wrong = name !== "" && (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name) || /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/.test(name));

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (busy || barred !== undefined || host === "" || wrong) return;
    setBusy(true);
    setProblem(undefined);
    const { signal } = (stop.current = new AbortController());
    client
      .openSession(
        {
          host,
          name,
          columns: clamp((innerWidth - (innerWidth > 1024 ? AROUND.width : 40)) / LETTER.width, 20, 300),
          rows: clamp((innerHeight - AROUND.height) / LETTER.height, 8, 100),
        },
        { signal },
      )
      .then((answer) => {
        if (answer.session === undefined || signal.aborted) return;
        learnSession(answer.session);
        prefer("telexec.host", host);
        onClose();
        navigate(`/sessions/${encodeURIComponent(answer.session.name)}`);
      })
      .catch((error: unknown) => {
        if (!signal.aborted) setProblem(problemOf(error));
      })
      .finally(() => {
        if (!signal.aborted) setBusy(false);
      });
  };

  return (
    <form onSubmit={submit} data-testid="open-session-form">
      {barred !== undefined && <p className="note">{barred}</p>}
      <HostField testid="session-host" hosts={hosts} failed={failed} value={host} disabled={barred !== undefined || busy} pick={pick} />
      <div className="field">
        <label htmlFor={`${id}-name`}>Name</label>
        <input
          id={`${id}-name`} data-testid="session-name" className="mono" value={name} maxLength={64} disabled={barred !== undefined || busy} spellCheck={false}
          autoCapitalize="none" autoComplete="off" placeholder={host === "" ? "" : "made of the host's name"} aria-invalid={wrong} aria-describedby={`${id}-name-note`}
          onChange={(event) => setName(event.target.value.trim())}
        />
        <p className={wrong ? "under bad" : "under"} id={`${id}-name-note`}>
          {wrong ? "Letters, digits and . _ - only, beginning with a letter or a digit" : "What people and agents call it; its size is that of this window"}
        </p>
      </div>
      {problem !== undefined && <Refused problem={problem} />}
      <div className="actions">
        <button type="submit" className="primary" data-testid="session-open-button" disabled={busy || barred !== undefined || host === "" || wrong}>
          {busy ? "Connecting…" : "Open"}
        </button>
        <button
          type="button"
          onClick={() => {
            stop.current?.abort();
            onClose();
          }}
        >
          {busy ? "Do not wait" : "Close"}
        </button>
      </div>
    </form>
  );
}

function clamp(n: number, least: number, most: number): number {
  return Math.round(Math.min(most, Math.max(least, n)));
}

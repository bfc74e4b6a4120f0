// A session as it was recorded, played on a terminal.

import { useEffect, useRef, useState } from "react";
import type { Session } from "@telexec/client";
import { client, problemOf } from "../client.ts";
import { bytes, count, toDate } from "../format.ts";
import { useKeys } from "../keys.ts";
import { learnSession } from "../live.ts";
import { Empty, Failed, Line, Skeleton, TerminalState, Time, useTitle } from "../parts/small.tsx";
import { Link } from "../router.ts";
import { CastReader } from "../terminal/cast.ts";
import { Emulator } from "../terminal/emulator.ts";
import { Player } from "../terminal/player.ts";
import "../styles/terminal.css";

const SPEEDS = [0.5, 1, 2, 4, 8, 16];
/** How often time passes, in milliseconds. */
const TICK = 40;
const SCROLLBACK = 10_000;

export default function ReplayPage({ name }: { name: string }) {
  const [session, setSession] = useState<Session>();
  const [cast, setCast] = useState<CastReader>();
  const [read, setRead] = useState(0);
  const [error, setError] = useState<unknown>();
  const [attempt, setAttempt] = useState(0);
  useTitle(session === undefined ? `Replay of ${name}` : `Replay of ${session.name} on ${session.host}`);

  useEffect(() => {
    const stop = new AbortController();
    setError(undefined);
    setCast(undefined);
    setRead(0);
    (async () => {
      const found = await client.session(name, { signal: stop.signal });
      learnSession(found);
      setSession(found);
      const reader = new CastReader();
      let size = 0;
      let told = 0;
      for await (const piece of client.recording(found.id, {}, { signal: stop.signal })) {
        reader.push(piece);
        size += piece.length;
        if (performance.now() - told < 200) continue;
        told = performance.now();
        setRead(size);
      }
      reader.end();
      setRead(size);
      setCast(reader);
    })().catch((failed: unknown) => {
      if (stop.signal.aborted) return;
      problemOf(failed);
      setError(failed);
    });
    return () => stop.abort();
  }, [name, attempt]);

  return (
    <section className="page terminal-page" aria-label={`Replay of ${name}`}>
      <header className="terminal-head">
        {session !== undefined && <TerminalState session={session} />}
        <h1>
          Replay of <Line text={session?.name ?? name} />
        </h1>
        <span className="faint cut terminal-where">
          {session !== undefined && (
            <>
              on <Line text={session.host} />, <Time at={cast?.header?.time ?? toDate(session.openTime)} />
            </>
          )}
        </span>
        <span className="terminal-acts">
          {session !== undefined && session.end === undefined && (
            <Link className="button" to={`/sessions/${encodeURIComponent(session.name)}`}>
              Its terminal
            </Link>
          )}
          {session !== undefined && session.end !== undefined && (
            <Link className="button" to={`/sessions/${session.id}`}>
              Its commands
            </Link>
          )}
        </span>
      </header>
      {error !== undefined && (
        <Failed error={error} retry={() => setAttempt(attempt + 1)}>
          <Link className="button" to="/sessions">All terminals</Link>
        </Failed>
      )}
      {error === undefined && cast === undefined && (
        <>
          <p className="faint" role="status">{read > 0 ? `Reading the recording: ${bytes(read)}` : "Asking for the recording…"}</p>
          <Skeleton rows={4} />
        </>
      )}
      {cast !== undefined && (cast.header === undefined ? <Empty title="The recording is empty.">The session has shown nothing.</Empty> : <Stage cast={cast} header={cast.header} cut={session?.recordingTruncatedOffset !== undefined} />)}
    </section>
  );
}

function Stage({ cast, header, cut }: { cast: CastReader; header: NonNullable<CastReader["header"]>; cut: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const player = useRef<Player>(undefined);
  const [now, setNow] = useState({ position: 0, playing: false });
  const [speed, setSpeed] = useState(1);
  const [skip, setSkip] = useState(true);

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const emulator = new Emulator({ columns: header.columns, rows: header.rows, scrollback: SCROLLBACK });
    const { term } = emulator;
    term.options.disableStdin = true;
    term.options.cursorBlink = false;
    // It takes no keys at all: the page's own are for the player.
    term.attachCustomKeyEventHandler(() => false);
    const hide = emulator.show(element);
    if (term.textarea !== undefined) term.textarea.tabIndex = -1;
    const made = new Player(
      { frames: cast.frames, duration: cast.duration, columns: header.columns, rows: header.rows },
      {
        reset(columns, rows) {
          term.reset();
          term.resize(columns, rows);
          emulator.fitLetters();
        },
        resize(columns, rows) {
          term.resize(columns, rows);
          emulator.fitLetters();
        },
        write: (data) => new Promise((resolve) => term.write(data, resolve)),
      },
      () => setNow({ position: made.position, playing: made.playing }),
    );
    player.current = made;
    const observer = new ResizeObserver(() => emulator.fitLetters());
    observer.observe(element);
    let last = performance.now();
    const ticking = setInterval(() => {
      const at = performance.now();
      // A window that was hidden has not been watched.
      void made.advance(Math.min(at - last, 500));
      last = at;
    }, TICK);
    made.play();
    return () => {
      clearInterval(ticking);
      observer.disconnect();
      made.dispose();
      hide();
      emulator.dispose();
      player.current = undefined;
    };
  }, [cast, header]);

  const toggle = (): void => (player.current?.playing === true ? player.current.pause() : player.current?.play());
  const seek = (to: number): void => void player.current?.seek(to);
  const by = (seconds: number): void => seek(now.position + seconds);
  const nextMark = (): void => {
    const mark = cast.marks.find((m) => m.at > now.position + 0.05);
    if (mark !== undefined) seek(mark.at);
  };
  useKeys({ " ": toggle, ArrowLeft: () => by(-5), ArrowRight: () => by(5), "]": nextMark, Home: () => seek(0), End: () => seek(cast.duration) });
  const current = cast.marks.findLastIndex((m) => m.at <= now.position + 0.01);

  return (
    <div className={cast.marks.length > 0 ? "terminal-grid" : "terminal-grid alone"}>
      <div className="terminal-main">
        <div className="session-box locked" role="region" aria-label="Recording" tabIndex={0} data-testid="terminal" data-duration={cast.duration} data-position={now.position}>
          <div className="session-place" data-keyless="" ref={place} />
        </div>
        <div className="player" role="group" aria-label="Player">
          <button type="button" className="primary player-play" data-testid="play-button" aria-label={now.playing ? "Pause" : "Play"} onClick={toggle}>
            {now.playing ? "❚❚" : "►"}
          </button>
          <span className="tabular player-time">{clock(now.position)}</span>
          <input
            type="range" min={0} max={Math.max(0.001, cast.duration)} step={0.01} value={now.position} data-testid="seek-bar" aria-label="Position" aria-valuetext={`${clock(now.position)} of ${clock(cast.duration)}`}
            list="replay-marks" onChange={(event) => seek(Number(event.target.value))}
          />
          <datalist id="replay-marks">
            {cast.marks.slice(0, 500).map((m, i) => (
              <option key={i} value={m.at} />
            ))}
          </datalist>
          <span className="tabular player-time">{clock(cast.duration)}</span>
          <label className="check">
            <span className="wide">Speed</span>
            <select
              value={speed} aria-label="Speed" data-testid="speed-select"
              onChange={(event) => {
                setSpeed(Number(event.target.value));
                if (player.current !== undefined) player.current.speed = Number(event.target.value);
              }}
            >
              {SPEEDS.map((s) => (
                <option key={s} value={s}>
                  {s}×
                </option>
              ))}
            </select>
          </label>
          <label className="check">
            <input
              type="checkbox" checked={skip} data-testid="skip-idle"
              onChange={(event) => {
                setSkip(event.target.checked);
                if (player.current !== undefined) player.current.skipIdle = event.target.checked;
              }}
            />{" "}
            skip pauses
          </label>
        </div>
        <p className="under terminal-foot">
          <span><kbd>Space</kbd> plays and pauses, <kbd>←</kbd> <kbd>→</kbd> 5 s, <kbd>]</kbd> next command.</span>
          {cut && <span className="wait">The session went on after the end of this recording.</span>}
          {cast.bad > 0 && <span className="wait">{count(cast.bad)} lines of it could not be read.</span>}
        </p>
      </div>
      {cast.marks.length > 0 && (
        <aside className="session-side" aria-label="Commands in the recording">
          <ol className="session-commands marks" data-testid="marks">
            {cast.marks.map((m, i) => (
              <li key={i} className={i === current ? "session-command current" : "session-command"}>
                <button type="button" className="line-button" data-testid="mark" aria-current={i === current ? "step" : undefined} onClick={() => seek(m.at)}>
                  <span className="tabular faint">{clock(m.at)}</span> <code className="line"><Line text={m.label.split("\n")[0]?.slice(0, 300) ?? ""} /></code>
                </button>
              </li>
            ))}
          </ol>
        </aside>
      )}
    </div>
  );
}

/** "0:07", "12:30", "1:02:03". */
function clock(seconds: number): string {
  const whole = Math.floor(seconds);
  const two = (n: number): string => String(n).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  return whole < 3600 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(whole / 3600)}:${two(minutes)}:${two(whole % 60)}`;
}

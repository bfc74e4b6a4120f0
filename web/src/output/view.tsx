// The output of a command on the page: the rows around what is looked at, and what one can do with them.

import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState, useSyncExternalStore, type ReactNode, type RefObject } from "react";
import type { Command } from "@telexec/client";
import { aborted, client, prefer, preferred } from "../client.ts";
import { bytes, count, hasEnded, spoken } from "../format.ts";
import { useKeys } from "../keys.ts";
import { Failed } from "../parts/small.tsx";
import { usePlace, navigate, withQuery } from "../router.ts";
import { Downloads, copyText } from "./download.tsx";
import { Heights } from "./heights.ts";
import { OutputLog, WINDOW, type Source } from "./log.ts";
import { Row } from "./row.tsx";
import { CONTINUED } from "./rows.ts";
import { findTrouble, findText } from "./search.ts";
import { Searching } from "./searching.ts";

/** Height of a line in pixels, as in output.css. */
const LINE = 20;
/** Rows that are drawn beyond what is seen, on each side. */
const SPARE = 12;
/** How near an edge of the window one comes before more is fetched. */
const NEAR = 1200;

export function OutputView({ command, source, ending }: { command: Command; source: Source; ending: string }) {
  const place = usePlace();
  const at = positionOf(place.query.get("at"));
  const log = useMemo(() => new OutputLog(source), [source]);
  const version = useSyncExternalStore(log.subscribe, log.snapshot);
  const began = useRef(performance.now());
  const [took, setTook] = useState<number>();

  useEffect(() => {
    const total = Number(command.stdoutBytes + command.stderrBytes);
    log.open(total, at);
    return () => log.close();
  }, [log]);

  // The address bar may be changed while the page stays.
  const seen = useRef(at);
  useEffect(() => {
    if (seen.current === at) return;
    seen.current = at;
    if (at === undefined) log.marked = undefined;
    else if (log.marked !== at) void log.jump(at);
  }, [at, log]);

  useEffect(() => {
    if (log.loading === undefined && took === undefined) setTook((performance.now() - began.current) / 1000);
  }, [version]);

  const [wrap, setWrap] = useState(() => preferred("telexec.wrap") === "on");
  const scroller = useRef<HTMLDivElement>(null);
  const [box, setBox] = useState({ height: 400, columns: 80 });
  const [top, setTop] = useState(0);
  const ruler = useRef<HTMLSpanElement>(null);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return undefined;
    const measure = (): void => {
      const character = (ruler.current?.getBoundingClientRect().width ?? 0) / 100 || 8;
      const gutter = parseFloat(getComputedStyle(element).getPropertyValue("--gutter")) || 64;
      setBox({ height: element.clientHeight, columns: Math.max(10, Math.floor((element.clientWidth - gutter - 24) / character)) });
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const { rows } = log;
  const heights = useMemo(() => new Heights(rows, wrap ? box.columns : 0), [rows, version, wrap, wrap ? box.columns : 0]);

  // What is read stays where it is, whatever comes or goes around it: the row at the top is held by its position.
  const anchor = useRef({ position: 0, offset: 0 });
  const expected = useRef(0);
  const short = useRef(false); // the rows do not reach as far as one reads: those of a window that is read again
  const hold = (): void => {
    const element = scroller.current;
    if (element === null || rows.count === 0) return;
    const row = heights.at(element.scrollTop / LINE);
    anchor.current = { position: rows.start(row), offset: element.scrollTop - heights.above(row) * LINE };
  };

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    let target = element.scrollTop;
    if (log.following) {
      target = element.scrollHeight;
    } else if (log.wanted !== undefined && rows.count > 0 && log.wanted >= rows.base && (log.wanted < rows.end || log.complete)) {
      const row = rows.rowAt(log.wanted);
      const line = heights.above(row) * LINE;
      target = Math.max(0, line - box.height / 3);
      // Until somebody scrolls: what is fetched around it moves it.
      anchor.current = { position: rows.start(row), offset: target - line };
    } else if (rows.count > 0) {
      const row = rows.rowAt(anchor.current.position);
      if (rows.start(row) === anchor.current.position) target = heights.above(row) * LINE + anchor.current.offset;
      else if (log.attached && anchor.current.position >= rows.end) target = element.scrollHeight;
    }
    if (Math.abs(target - element.scrollTop) >= 1) element.scrollTop = target;
    expected.current = element.scrollTop;
    short.current = target - element.scrollTop >= 1;
    setTop(element.scrollTop);
    if (log.following) hold();
    fetchNear(element);
  }, [version, heights, box.height]);

  const fetchNear = (element: HTMLElement): void => {
    if (log.loading !== undefined || log.error !== undefined) return;
    if (log.wanted !== undefined && (log.wanted < rows.base || log.wanted > rows.end)) return;
    if (!log.following && element.scrollTop < NEAR && rows.base > 0) void log.before();
    else if (!log.attached && element.scrollHeight - element.scrollTop - element.clientHeight < NEAR) void log.behind();
  };

  const onScroll = (): void => {
    const element = scroller.current;
    if (element === null) return;
    const ownMove = Math.abs(element.scrollTop - expected.current) < 2;
    const left = element.scrollHeight - element.scrollTop - element.clientHeight;
    if (!ownMove) {
      log.wanted = undefined;
      if (log.following && element.scrollTop < expected.current && left > LINE) log.pause();
      else if (!log.following && left < 4 && log.attached) log.follow();
    }
    expected.current = element.scrollTop;
    if (!ownMove || !short.current) hold();
    setTop(element.scrollTop);
    fetchNear(element);
  };

  const mark = (position: number): void => {
    log.marked = at === position ? undefined : position; // what a search has marked is not in the address yet
    log.pause();
    seen.current = log.marked;
    navigate(withQuery(place, { at: log.marked === undefined ? "" : String(position) }), { replace: true });
  };

  const search = useSearch(log, source);
  const current = search.current;
  const first = useFirstError(log, source, command);
  const setWrapped = (on: boolean): void => {
    setWrap(on);
    prefer("telexec.wrap", on ? "on" : "off");
  };
  const toggle = (): void => (log.following ? log.pause() : log.follow());

  useKeys({
    f: toggle,
    "/": () => {
      search.input.current?.focus();
      search.input.current?.select();
    },
    n: search.next,
    N: search.previous,
    e: first.go,
    w: () => setWrapped(!wrap),
    l: () => {
      // The match that is gone through, or what stands at the top.
      const row = current !== undefined ? rows.rowAt(current.position) : heights.at((scroller.current?.scrollTop ?? 0) / LINE);
      if (rows.count > 0) mark(rows.start(row));
    },
    Home: () => void log.jump(0, false),
    End: () => log.follow(),
  });

  const firstRow = Math.max(0, heights.at(top / LINE) - SPARE);
  const lastRow = Math.min(rows.count, heights.at((top + box.height) / LINE) + 1 + SPARE);
  const shown: ReactNode[] = [];
  let line = rows.lineOf(firstRow);
  const widest = useRef(0);
  for (let row = firstRow; row < lastRow; row++) {
    const start = rows.start(row);
    const end = rows.start(row + 1);
    const continued = (rows.flags(row) & CONTINUED) !== 0;
    if (row > firstRow && !continued && line !== undefined) line++;
    widest.current = Math.max(widest.current, rows.width(row));
    shown.push(
      <Row
        key={start}
        rows={rows}
        row={row}
        start={start}
        end={end}
        line={continued ? undefined : line}
        query={search.query}
        current={current !== undefined && current.position >= start && current.position < end ? current.nth : -1}
        marked={log.marked !== undefined && log.marked >= start && log.marked < end}
        href={withQuery(place, { at: String(start) })}
        onMark={mark}
      />,
    );
  }

  const sizes = Number(command.stdoutBytes + command.stderrBytes);
  const large = log.total > WINDOW || rows.base > 0;
  const shownAt = Math.min(log.total, rows.count === 0 ? rows.base : rows.start(heights.at(top / LINE)));
  const thumb = log.wanted ?? shownAt;
  const slider = useId();
  return (
    <section className="output-part" aria-label="Output">
      <div className="output-bar">
        <button type="button" data-testid="follow-button" aria-pressed={log.following} onClick={toggle} title="f">
          {log.following ? (hasEnded(command) ? "At the end" : "Following") : hasEnded(command) ? "To the end" : "Follow"}
          {!log.following && log.missed > 0 && <span className="badge">{count(log.missed)} new</span>}
        </button>
        <div className="searching" role="search" aria-label="Search in the output">
          <input
            ref={search.input}
            type="search"
            aria-label="Search in the output"
            placeholder="Search  /"
            data-testid="search-input"
            value={search.text}
            spellCheck={false}
            onChange={(event) => search.set(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") {
                event.preventDefault();
                if (event.shiftKey) search.previous();
                else search.next();
              } else if (event.key === "Escape") {
                event.preventDefault();
                search.set("");
                scroller.current?.focus();
              }
            }}
          />
          <span className="tabular search-count" data-testid="search-count" role="status">
            {search.words}
          </span>
          <button type="button" className="quiet" aria-label="Previous match" disabled={search.total === 0} onClick={search.previous} title="N">
            ↑
          </button>
          <button type="button" className="quiet" aria-label="Next match" disabled={search.total === 0} onClick={search.next} title="n">
            ↓
          </button>
          {search.running && (
            <button type="button" className="quiet" onClick={search.halt}>
              Stop
            </button>
          )}
        </div>
        <button
          type="button"
          data-testid="first-error"
          onClick={first.go}
          disabled={first.busy}
          title="e: goes to the first byte of stderr; where there is none, to the first line with a word like error, failed or panic"
        >
          {first.busy ? "Looking…" : first.none ? "No error found" : "First error"}
        </button>
        <button type="button" aria-pressed={wrap} data-testid="wrap-button" onClick={() => setWrapped(!wrap)} title="w">
          Wrap
        </button>
        <CopyButton log={log} source={source} scroller={scroller} />
        <Downloads id={command.id} source={source} size={log.total} />
      </div>
      <div
        className={wrap ? "output wrap" : "output"}
        ref={scroller}
        data-testid="output"
        data-base={rows.base}
        data-end={rows.end}
        data-total={log.total}
        data-complete={log.complete}
        tabIndex={0}
        role="region"
        aria-label="Output of the command"
        onScroll={onScroll}
      >
        <span className="ruler" ref={ruler} aria-hidden="true">
          {"0".repeat(100)}
        </span>
        <div className="out-all" style={{ height: `${heights.total * LINE}px` }}>
          <div
            className="out-slice"
            style={{ transform: `translateY(${heights.above(firstRow) * LINE}px)`, minWidth: wrap ? undefined : `max(100%, calc(var(--gutter) + ${widest.current + 2}ch))` }}
          >
            {shown}
          </div>
        </div>
        {rows.count === 0 && log.error === undefined && (
          <p className="out-empty faint">{log.loading !== undefined && log.total > 0 ? "Loading…" : hasEnded(command) && log.complete && log.total === 0 ? "It printed nothing." : "No output yet."}</p>
        )}
      </div>
      {ending !== "" && (
        <div className="out-ending" data-testid="cancelled-line" role="status">
          {ending}
        </div>
      )}
      {log.error !== undefined && <Failed error={log.error} retry={() => log.retry()} />}
      <div className="under tabular output-foot">
        <span>
          {bytes(Math.max(log.total, sizes))}
          {sizes >= log.total && command.stderrBytes > 0n && `, of it stderr ${bytes(command.stderrBytes)}`}
        </span>
        {command.truncation !== undefined && <span className="bad">Not all was kept: {command.truncation.reason}</span>}
        <span>{log.loading === "before" || log.loading === "behind" ? "loading…" : took === undefined ? "" : `loaded in ${spoken(took)}`}</span>
        {large && (
          <div className="overview">
            <label htmlFor={slider} className="faint tabular">
              {bytes(rows.base)} – {bytes(rows.end)} of {bytes(log.total)}
            </label>
            <input
              id={slider}
              type="range"
              min={0}
              max={Math.max(1, log.total)}
              step={1024}
              data-testid="overview"
              value={thumb}
              aria-label="Place in the output"
              aria-valuetext={`${bytes(rows.base)} of ${bytes(log.total)}`}
              onChange={(event) => {
                // Let go of, it tells once more where it is.
                const to = Number(event.target.value);
                if (Math.abs(to - thumb) >= 1024) void log.jump(to, false);
              }}
            />
          </div>
        )}
      </div>
    </section>
  );
}

// Addresses come from outside.
function positionOf(text: string | null): number | undefined {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function CopyButton({ log, source, scroller }: { log: OutputLog; source: Source; scroller: RefObject<HTMLDivElement | null> }) {
  const [said, setSaid] = useState("");
  const copy = async (): Promise<void> => {
    try {
      const selection = getSelection();
      const inside = selection !== null && !selection.isCollapsed && scroller.current?.contains(selection.anchorNode) === true;
      const result = inside ? { text: selection.toString(), whole: true } : await copyText(log, source);
      await navigator.clipboard.writeText(result.text);
      setSaid(result.whole ? "Copied" : `Copied the first ${bytes(result.text.length)}`);
    } catch {
      setSaid("Not copied");
    }
    setTimeout(() => setSaid(""), 2500);
  };
  return (
    <button type="button" data-testid="copy-button" onClick={() => void copy()} title="The selection, or all of it up to 8 MiB">
      <span aria-live="polite">{said === "" ? "Copy" : said}</span>
    </button>
  );
}

function useSearch(log: OutputLog, source: Source) {
  const [text, setText] = useState("");
  const [query, setQuery] = useState("");
  const [, redraw] = useState(0);
  const [index, setIndex] = useState(-1);
  const input = useRef<HTMLInputElement>(null);
  const searching = useRef<Searching>(undefined);
  const went = useRef(false);

  useEffect(() => {
    const later = setTimeout(() => setQuery(text), 150);
    return () => clearTimeout(later);
  }, [text]);

  useEffect(() => {
    searching.current?.close();
    searching.current = undefined;
    setIndex(-1);
    went.current = false;
    if (query === "") return undefined;
    const own = new Searching(log, source, findText(query), () => redraw((n) => n + 1));
    searching.current = own;
    return () => own.close();
  }, [query, log, source]);

  const matches = searching.current?.matches ?? [];
  const go = (to: number): void => {
    const match = matches[to];
    if (match === undefined) return;
    setIndex(to);
    void log.jump(match.position, false);
  };
  // The first match is gone to by itself.
  useEffect(() => {
    if (went.current || matches.length === 0) return;
    went.current = true;
    go(0);
  });
  const own = searching.current;
  const total = matches.length;
  const percent = own === undefined || log.total === 0 ? 100 : Math.floor((own.scanner.scanned / log.total) * 100);
  let words = "";
  if (query !== "") {
    const of = own?.scanner.full === true ? `${count(total)}+` : count(total);
    words = total === 0 ? (own?.running ? "…" : "none") : `${count(Math.max(0, index) + 1)} of ${of}`;
    if (own?.running === true && percent < 100) words += ` · ${percent} %`;
    else if (own?.stopped === true) words += " · stopped";
  }
  return {
    text, query, input, total, words,
    set: setText,
    current: index >= 0 ? matches[index] : undefined,
    running: own?.running === true,
    halt: () => own?.halt(),
    next: () => go(total === 0 ? -1 : (index + 1) % total),
    previous: () => go(total === 0 ? -1 : (index <= 0 ? total : index) - 1),
  };
}

// The first byte of stderr, or else the first line that looks like trouble.
function useFirstError(log: OutputLog, source: Source, command: Command) {
  const [busy, setBusy] = useState(false);
  const [none, setNone] = useState(false);
  const stop = useRef<AbortController>(undefined);
  useEffect(() => () => stop.current?.abort(), []);
  const find = async (signal: AbortSignal): Promise<number | undefined> => {
    // The sizes of a command that runs are only now and then told by themselves.
    const { command: now } = await client.get(command.id, { output: { omit: true } }, { signal });
    if (now !== undefined && now.stderrBytes > 0n) {
      for await (const event of client.stream(command.id, { streams: ["stderr"], signal })) {
        if (event.type === "chunk") return event.position;
        if (event.type === "complete") break;
      }
    }
    return new Promise((resolve, reject) => {
      let searching: Searching | undefined;
      const look = (): void => {
        if (searching === undefined || searching.running) return;
        searching.close();
        if (searching.error !== undefined) reject(searching.error);
        else resolve(searching.matches[0]?.position);
      };
      searching = new Searching(log, source, findTrouble, look, 1);
      signal.addEventListener("abort", () => searching?.close());
      look();
    });
  };
  const go = (): void => {
    if (busy) return;
    setBusy(true);
    setNone(false);
    const { signal } = (stop.current = new AbortController());
    find(signal)
      .then(
        (position) => {
          if (position === undefined) setNone(true);
          else void log.jump(position);
        },
        (error: unknown) => {
          if (!aborted(error)) setNone(true);
        },
      )
      .finally(() => {
        stop.current?.abort();
        setBusy(false);
      });
  };
  return { busy, none, go };
}

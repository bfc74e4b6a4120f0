// One row of output. What a command printed is text and nothing else: it goes into text nodes.

import { memo, type CSSProperties, type ReactNode } from "react";
import { CONTINUED, GAP, STDERR, type Rows } from "./rows.ts";
import { BOLD, cssColour, DIM, INVERSE, isBright, ITALIC, NONE, STRIKE, UNDERLINE, type Look } from "./sgr.ts";
import { findText } from "./search.ts";
import { runsOf, type Run } from "./text.ts";

interface RowProps {
  rows: Rows;
  row: number;
  /** These two say all about the content: a row that has not moved or grown is not drawn again. */
  start: number;
  end: number;
  line: number | undefined;
  query: string;
  /** Which of the finds in this row is the current one; -1 for none. */
  current: number;
  marked: boolean;
  href: string;
  onMark: (position: number) => void;
}

export const Row = memo(
  function Row({ rows, row, start, end, line, query, current, marked, href, onMark }: RowProps) {
    const flags = rows.flags(row);
    if (flags & GAP) {
      return (
        <div className="out-row out-gap" data-testid="output-gap">
          {end - start} bytes are not stored any more
        </div>
      );
    }
    const stderr = (flags & STDERR) !== 0;
    const continued = (flags & CONTINUED) !== 0;
    const runs = runsOf(rows.rowBytes(row), rows.look(row));
    const number = continued ? "" : line === undefined ? "·" : String(line);
    return (
      <div className={`out-row${stderr ? " out-err" : ""}${marked ? " out-marked" : ""}`}>
        <a
          className="out-gutter"
          href={href}
          tabIndex={-1}
          data-testid="permalink"
          data-line={number}
          aria-label={line === undefined ? `Link to byte ${start}` : `Link to line ${line}`}
          onClick={(event) => {
            if (event.metaKey || event.ctrlKey || event.shiftKey) return;
            event.preventDefault();
            onMark(start);
          }}
        />
        {stderr && <span className="out-label">stderr</span>}
        <span className="out-text" data-testid="output-line" data-stream={stderr ? "stderr" : "stdout"} data-position={start}>
          {query === "" ? runs.map((run, i) => <Piece key={i} run={run} />) : <Found runs={runs} query={query} current={current} />}
        </span>
      </div>
    );
  },
  // What a click does to a row depends on none of them.
  (a, b) =>
    a.rows === b.rows && a.start === b.start && a.end === b.end && a.line === b.line && a.query === b.query && a.current === b.current && a.marked === b.marked,
);

function Piece({ run }: { run: Run }) {
  const { look } = run;
  if (look.fg === NONE && look.bg === NONE && look.flags === 0) return run.text;
  const { className, style } = dress(look);
  return (
    <span className={className} style={style}>
      {run.text}
    </span>
  );
}

function dress(look: Look): { className: string; style: CSSProperties | undefined } {
  const names: string[] = [];
  const style: CSSProperties = {};
  let { fg, bg } = look;
  if (look.flags & INVERSE) {
    [fg, bg] = [bg, fg];
    if (fg === NONE) names.push("f-paper");
    if (bg === NONE) names.push("b-ink");
  }
  // On a ground of its own a text has the colours of terminals: those of the page are made for the page's ground.
  if (bg >= 0 && !names.includes("f-paper")) names.push("on-ground");
  if (fg >= 16) style.color = cssColour(fg);
  else if (fg >= 0) names.push(`f${fg}`);
  else if (bg >= 16 && !names.includes("f-paper")) style.color = isBright(bg) ? "#000" : "#fff";
  if (bg >= 16) style.backgroundColor = cssColour(bg);
  else if (bg >= 0) names.push(`b${bg}`);
  if (look.flags & BOLD) names.push("s-bold");
  if (look.flags & DIM) names.push("s-dim");
  if (look.flags & ITALIC) names.push("s-italic");
  if (look.flags & UNDERLINE) names.push("s-under");
  if (look.flags & STRIKE) names.push("s-strike");
  return { className: names.join(" "), style };
}

function Found({ runs, query, current }: { runs: Run[]; query: string; current: number }) {
  const found = findText(query)(runs.map((run) => run.text).join(""));
  const parts: ReactNode[] = [];
  let at = 0; // of the run, in the row
  let next = 0; // of found
  for (const [i, run] of runs.entries()) {
    const end = at + run.text.length;
    let from = at;
    while (from < end) {
      while (next < found.length && (found[next] as number) + query.length <= from) next++;
      const begin = found[next] ?? Infinity;
      if (begin > from) {
        const to = Math.min(end, begin);
        parts.push(<Piece key={`${i}.${from}`} run={{ text: run.text.slice(from - at, to - at), look: run.look }} />);
        from = to;
      } else {
        const to = Math.min(end, begin + query.length);
        parts.push(
          <mark key={`${i}.${from}`} className={next === current ? "current" : undefined}>
            <Piece run={{ text: run.text.slice(from - at, to - at), look: run.look }} />
          </mark>,
        );
        from = to;
      }
    }
    at = end;
  }
  return parts;
}

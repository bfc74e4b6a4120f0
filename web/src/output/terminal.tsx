// The output of a command on a terminal: xterm.js, in a chunk of its own.

import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { useEffect, useRef, useState } from "react";
import { CommandState, type Command } from "@telexec/client";
import { client, problemOf } from "../client.ts";
import { bytes } from "../format.ts";
import { onColours, themeOf } from "../terminal/theme.ts";
import type { Source } from "./log.ts";
import { withoutStyleElements } from "./terminaldocument.ts";

/** A longer output is shown from here on before its end. */
const SHOWN = 1 << 20;
/** What the terminal has not drawn yet; with more, the stream waits. */
const MAX_PENDING = 512 << 10;

export default function TerminalView({ command, source, mayType, ending }: { command: Command; source: Source; mayType: boolean; ending: string }) {
  const place = useRef<HTMLDivElement>(null);
  const terminal = useRef<Terminal>(undefined);
  const foot = useRef<HTMLParagraphElement>(null);
  const [problem, setProblem] = useState("");
  const [skipped, setSkipped] = useState(0);
  const typing = mayType && command.stdinOpen && command.state === CommandState.RUNNING;
  const open = useRef(typing);
  open.current = typing;

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const restore = withoutStyleElements();
    const columns = command.pty?.columns || 80;
    const lines = command.pty?.rows || 24;
    const term = new Terminal({
      cols: columns,
      rows: lines,
      scrollback: 10_000,
      convertEol: false,
      screenReaderMode: true,
      fontFamily: getComputedStyle(element).fontFamily,
      fontSize: 13,
      theme: themeOf(element),
      allowProposedApi: true,
      // Links in output are text like all of it.
      linkHandler: { activate: () => undefined },
    });
    terminal.current = term;
    term.open(element);
    // The command has the size that it was started with: the letters get smaller where that does not fit.
    const fit = new FitAddon();
    term.loadAddon(fit);
    const resize = (): void => {
      for (let size = 13; size >= 10; size--) {
        term.options.fontSize = size;
        if ((fit.proposeDimensions()?.cols ?? columns) >= columns) break;
      }
    };
    resize();
    const observer = new ResizeObserver(resize);
    observer.observe(element.parentElement ?? element);
    const stopColours = onColours(() => {
      term.options.theme = themeOf(element);
    });

    // Keys in the order in which they were typed, one call at a time.
    let queue = "";
    let sending = false;
    const send = async (): Promise<void> => {
      if (sending) return;
      sending = true;
      try {
        while (queue !== "") {
          const data = queue;
          queue = "";
          await client.sendInput(command.id, data);
          setProblem("");
        }
      } catch (error) {
        queue = "";
        setProblem(problemOf(error).message);
      } finally {
        sending = false;
      }
    };
    const onData = term.onData((data) => {
      if (!open.current) return;
      queue += data;
      void send();
    });

    // The terminal takes all keys while one types to the command, and no longer: there must be a way out by keyboard.
    term.attachCustomKeyEventHandler((event) => {
      if (!open.current) return event.key !== "Tab";
      if (event.key !== "F6" || !event.shiftKey) return true;
      if (event.type === "keydown") {
        event.preventDefault();
        foot.current?.focus();
      }
      return false;
    });

    const stop = new AbortController();
    (async () => {
      const total = Number(command.stdoutBytes + command.stderrBytes);
      const from = Math.max(0, total - SHOWN);
      setSkipped(from);
      let pending = 0;
      let drained: (() => void) | undefined;
      for await (const piece of source.stream(from, stop.signal)) {
        if (piece.type !== "chunk") continue;
        pending += piece.data.length;
        const size = piece.data.length;
        term.write(piece.data, () => {
          pending -= size;
          if (pending <= MAX_PENDING) drained?.();
        });
        if (pending > MAX_PENDING) await new Promise<void>((resolve) => (drained = resolve));
      }
    })().catch((error: unknown) => {
      if (!stop.signal.aborted) setProblem(problemOf(error).message);
    });

    return () => {
      stop.abort();
      observer.disconnect();
      stopColours();
      onData.dispose();
      term.dispose();
      restore();
    };
  }, [source]);

  useEffect(() => {
    if (terminal.current === undefined) return;
    terminal.current.options.disableStdin = !typing;
    terminal.current.options.cursorBlink = typing;
    // Not out of a dialog, or of another field.
    if (typing && (document.activeElement === document.body || document.activeElement?.id === "main")) terminal.current.focus();
  }, [typing]);

  return (
    <section className="output-part" aria-label="Terminal">
      <div className="terminal-box" data-testid="terminal">
        <div className="terminal" ref={place} />
      </div>
      {ending !== "" && (
        <div className="out-ending" data-testid="cancelled-line" role="status">
          {ending}
        </div>
      )}
      <p className="under output-foot" ref={foot} tabIndex={-1}>
        <span>
          {typing ? (
            <>
              What you type goes to the command; <kbd>Shift</kbd> <kbd>F6</kbd> leaves the terminal.
            </>
          ) : (
            "Read only."
          )}
        </span>
        {skipped > 0 && <span>The first {bytes(skipped)} are left out.</span>}
        <span className="bad" role="status">
          {problem}
        </span>
      </p>
    </section>
  );
}

// xterm.js as all pages with the terminal of a session have it.

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { preferred } from "../client.ts";
import { withoutStyleElements } from "../output/terminaldocument.ts";
import { silence } from "./input.ts";
import { onColours, themeOf } from "./theme.ts";

/** The size of the letters that is wished for, and the least that can be read, in pixels. */
export const LETTERS = { wished: 13, least: 9 };
/** What cannot be whole can as well be read. */
const READABLE = Math.max(LETTERS.least, LETTERS.wished - 2);

/** A terminal and its place, which may be put into another part of the page and keeps all that it shows. */
export class Emulator {
  readonly element: HTMLDivElement;
  readonly term: Terminal;
  readonly search = new SearchAddon();
  readonly #fit = new FitAddon();
  readonly #undo: (() => void)[] = [];
  #opened = false;
  #letters: number | undefined; // their size when the session was over

  constructor(o: { columns: number; rows: number; scrollback: number }) {
    this.element = document.createElement("div");
    this.element.className = "terminal";
    this.#undo.push(withoutStyleElements());
    this.term = new Terminal({
      cols: o.columns,
      rows: o.rows,
      scrollback: o.scrollback,
      fontSize: LETTERS.wished,
      screenReaderMode: preferred("telexec.screen-reader") === "on",
      // Programs choose grounds for their letters that this page's themes do not know.
      minimumContrastRatio: 4.5,
      allowProposedApi: true,
      macOptionIsMeta: true,
      rightClickSelectsWord: false,
      // What is printed may say of a link what it likes: such ones are text. See WebLinksAddon below for those that show where they go.
      linkHandler: { activate: () => undefined },
    });
    silence(this.term.parser);
    this.term.loadAddon(this.#fit);
    this.term.loadAddon(this.search);
    this.term.loadAddon(new Unicode11Addon());
    this.term.unicode.activeVersion = "11";
    this.term.loadAddon(
      new WebLinksAddon(
        (event, uri) => {
          // A plain click is for the terminal.
          if ((event.ctrlKey || event.metaKey) && /^https?:\/\//i.test(uri)) window.open(uri, "_blank", "noopener,noreferrer");
        },
        {
          hover: () => (this.element.title = "Ctrl and a click open it"),
          leave: () => this.element.removeAttribute("title"),
        },
      ),
    );
    // For those who look from outside: tests, and the console of a browser.
    Object.assign(this.element, { terminal: this.term });
  }

  /** Puts it into the page; undone by what it gives. */
  show(place: Element): () => void {
    place.append(this.element);
    if (!this.#opened) {
      this.#opened = true;
      this.term.options.fontFamily = getComputedStyle(this.element).fontFamily;
      this.term.open(this.element);
      this.#draw();
    }
    const recolour = (): void => {
      this.term.options.theme = themeOf(this.element);
    };
    recolour();
    const stop = onColours(recolour);
    return () => {
      stop();
      this.element.remove();
    };
  }

  /** As many characters as fit where it stands, with letters of the wished size. */
  get room(): { columns: number; rows: number } | undefined {
    const before = this.term.options.fontSize;
    this.term.options.fontSize = LETTERS.wished;
    const room = this.#fit.proposeDimensions();
    this.term.options.fontSize = before;
    if (room === undefined || !Number.isFinite(room.cols) || !Number.isFinite(room.rows)) return undefined;
    return { columns: Math.min(1000, Math.max(2, room.cols)), rows: Math.min(500, Math.max(2, room.rows)) };
  }

  /**
   * Fits a session that is over into its place, which has less room than before: the letters stay as they are, as far as the
   * columns fit, and of so many rows what has no room is above.
   */
  fitEnded(columns: number, rows: number): void {
    this.#letters ??= this.term.options.fontSize ?? LETTERS.wished;
    let size = this.#letters;
    const room = (): { cols: number; rows: number } | undefined => {
      this.term.options.fontSize = size;
      return this.#fit.proposeDimensions();
    };
    let found = room();
    while (size > LETTERS.least && found !== undefined && found.cols < columns) {
      size--;
      found = room();
    }
    if (found !== undefined && found.cols < columns) {
      size = Math.min(this.#letters, READABLE);
      found = room();
    }
    if (found === undefined || !Number.isFinite(found.rows)) return;
    // A program's own screen has nothing above: it scrolls in its place.
    this.term.resize(columns, this.term.buffer.active.type === "alternate" ? rows : Math.max(2, Math.min(rows, found.rows)));
    // It stands where the cursor was, perhaps below the last row, and would make the place scroll.
    if (this.term.textarea !== undefined) this.term.textarea.style.top = "0";
  }

  /** Makes the letters as large as they may be for its own size to fit; where even small ones do not, its place scrolls. */
  fitLetters(): void {
    for (let size = LETTERS.wished; size >= LETTERS.least; size--) {
      this.term.options.fontSize = size;
      const room = this.#fit.proposeDimensions();
      if (room === undefined || (room.cols >= this.term.cols && room.rows >= this.term.rows)) return;
    }
    this.term.options.fontSize = READABLE;
  }

  dispose(): void {
    this.term.dispose();
    this.element.remove();
    for (const undo of this.#undo) undo();
  }

  // By the graphics processor, where there is one; else xterm.js makes elements, which costs less than to do its work without it.
  #draw(): void {
    try {
      if (!hasGraphicsProcessor()) throw new Error("there is no graphics processor");
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => webgl.dispose());
      this.term.loadAddon(webgl);
      this.element.dataset["renderer"] = "webgl";
    } catch {
      this.element.dataset["renderer"] = "dom";
    }
  }
}

let processor: boolean | undefined;

/** Whether WebGL is done by a graphics processor, as far as the browser tells. */
function hasGraphicsProcessor(): boolean {
  if (processor !== undefined) return processor;
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (gl === null) return (processor = false);
  const named = gl.getExtension("WEBGL_debug_renderer_info");
  const name = named === null ? "" : String(gl.getParameter(named.UNMASKED_RENDERER_WEBGL));
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // a page may have few of them
  return (processor = !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name));
}

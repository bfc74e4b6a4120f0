// What a terminal sends, and who has asked for it.

/** The part of xterm.js's parser that is needed. */
export interface Parser {
  registerCsiHandler(id: { prefix?: string; intermediates?: string; final: string }, callback: () => boolean): unknown;
  registerDcsHandler(id: { intermediates?: string; final: string }, callback: () => boolean): unknown;
  registerOscHandler(ident: number, callback: (data: string) => boolean): unknown;
}

/**
 * Has a terminal answer no queries: the service does so for all that look at it, who would otherwise answer once each, and
 * late. What sets something goes on to the terminal.
 */
export function silence(parser: Parser): void {
  const never = (): boolean => true;
  for (const id of [
    { final: "c" }, // device attributes: primary, secondary, tertiary
    { prefix: ">", final: "c" },
    { prefix: "=", final: "c" },
    { final: "n" }, // status, cursor position
    { prefix: "?", final: "n" },
    { intermediates: "$", final: "p" }, // modes
    { prefix: "?", intermediates: "$", final: "p" },
    { final: "t" }, // sizes of the window, and moving it
    { final: "x" }, // terminal parameters
    { prefix: ">", final: "q" }, // name and version
    { prefix: "?", final: "u" }, // the keyboard's protocol
  ]) {
    parser.registerCsiHandler(id, never);
  }
  parser.registerDcsHandler({ intermediates: "$", final: "q" }, never); // settings
  parser.registerDcsHandler({ intermediates: "+", final: "q" }, never); // terminfo
  // Colours: a question mark in place of one asks for it.
  for (const ident of [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
    parser.registerOscHandler(ident, (data) => data.split(";").includes("?"));
  }
  parser.registerOscHandler(52, never); // the clipboard is the visitor's own
}

/**
 * Whether somebody meant it, by a key, a click or a paste. What a terminal reports of the pointer that merely passes over it,
 * and of the focus, goes to the session only from who has the keyboard: it takes it from nobody.
 */
export function meant(data: string): boolean {
  if (data === "\x1b[I" || data === "\x1b[O") return false;
  // Motion without a button: the button is 3, and motion adds 32.
  const sgr = /^\x1b\[<(\d+);\d+;\d+M$/.exec(data);
  if (sgr !== null) return (Number(sgr[1]) & 0b1100_0011) !== 3 || (Number(sgr[1]) & 32) === 0;
  if (data.startsWith("\x1b[M") && data.length === 6) {
    const button = data.charCodeAt(3) - 32;
    return (button & 0b1100_0011) !== 3 || (button & 32) === 0;
  }
  return true;
}

/** Keys that a phone does not have, as a terminal sends them. */
export function keyBytes(key: "Esc" | "Tab" | "Ctrl+C" | "Ctrl+D" | "Up" | "Down" | "Left" | "Right", application: boolean): string {
  const arrows = { Up: "A", Down: "B", Right: "C", Left: "D" } as const;
  switch (key) {
    case "Esc":
      return "\x1b";
    case "Tab":
      return "\t";
    case "Ctrl+C":
      return "\x03";
    case "Ctrl+D":
      return "\x04";
    default:
      return `\x1b${application ? "O" : "["}${arrows[key]}`;
  }
}

// The looks of text that SGR sequences ask for (ECMA-48 §8.3.117, and xterm's 256 and true colours). A look is
// interned: rows of a log keep a number for the look that they begin with, and most have 0.

export interface Look {
  /** Foreground: NONE, 0–255 of the palette, or RGB | 0xrrggbb. */
  readonly fg: number;
  readonly bg: number;
  readonly flags: number;
}

export const NONE = -1;
export const RGB = 1 << 24;

export const BOLD = 1;
export const DIM = 2;
export const ITALIC = 4;
export const UNDERLINE = 8;
export const INVERSE = 16;
export const STRIKE = 32;

export const PLAIN: Look = { fg: NONE, bg: NONE, flags: 0 };

// A rainbow in true colour must not fill the memory: beyond this many looks, new ones are plain.
const MAX_LOOKS = 60_000;

const looks: Look[] = [PLAIN];
const numbers = new Map<string, number>([[key(PLAIN), 0]]);

function key(look: Look): string {
  return `${look.fg},${look.bg},${look.flags}`;
}

export function lookNumber(look: Look): number {
  const k = key(look);
  const known = numbers.get(k);
  if (known !== undefined) return known;
  if (looks.length >= MAX_LOOKS) return 0;
  numbers.set(k, looks.length);
  return looks.push(look) - 1;
}

export function lookOf(number: number): Look {
  return looks[number] ?? PLAIN;
}

const SET: Record<number, number> = { 1: BOLD, 2: DIM, 3: ITALIC, 4: UNDERLINE, 7: INVERSE, 9: STRIKE };
const CLEAR: Record<number, number> = { 22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 27: INVERSE, 29: STRIKE };

/** Applies the parameters of one SGR sequence, "1;38;5;208", to a look. What is not understood changes nothing. */
export function applySGR(look: Look, params: string): Look {
  let { fg, bg, flags } = look;
  const fields = params.split(";");
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i] ?? "";
    if (field.includes(":")) {
      // ITU T.416 form: 38:2::r:g:b, 38:5:n, 4:3 (a curly underline), 4:0 (none).
      const sub = field.split(":");
      if (sub[0] === "4") {
        flags = sub[1] === "0" ? flags & ~UNDERLINE : flags | UNDERLINE;
      } else if (sub[0] === "38" || sub[0] === "48") {
        const colour = sub[1] === "5" ? palette(sub[2]) : sub[1] === "2" ? rgb(sub.slice(-3)) : NONE;
        if (sub[0] === "38") fg = colour;
        else bg = colour;
      }
      continue;
    }
    const n = field === "" ? 0 : Number(field);
    if (n === 0) {
      fg = NONE;
      bg = NONE;
      flags = 0;
    } else if (SET[n] !== undefined) flags |= SET[n];
    else if (n === 21) flags |= UNDERLINE;
    else if (CLEAR[n] !== undefined) flags &= ~CLEAR[n];
    else if (n >= 30 && n <= 37) fg = n - 30;
    else if (n >= 90 && n <= 97) fg = n - 90 + 8;
    else if (n === 39) fg = NONE;
    else if (n >= 40 && n <= 47) bg = n - 40;
    else if (n >= 100 && n <= 107) bg = n - 100 + 8;
    else if (n === 49) bg = NONE;
    else if (n === 38 || n === 48) {
      let colour = NONE;
      if (fields[i + 1] === "5") {
        colour = palette(fields[i + 2]);
        i += 2;
      } else if (fields[i + 1] === "2") {
        colour = rgb(fields.slice(i + 2, i + 5));
        i += 4;
      }
      if (n === 38) fg = colour;
      else bg = colour;
    }
  }
  return { fg, bg, flags };
}

function palette(field: string | undefined): number {
  const n = Number(field);
  return Number.isInteger(n) && n >= 0 && n <= 255 ? n : NONE;
}

function rgb(fields: (string | undefined)[]): number {
  const parts = fields.map(palette);
  const [r, g, b] = parts;
  if (r === undefined || g === undefined || b === undefined || Math.min(r, g, b) < 0) return NONE;
  return RGB | (r << 16) | (g << 8) | b;
}

const CUBE = [0, 95, 135, 175, 215, 255];

/** The CSS colour of a palette entry above 15 or of a true colour. The first 16 are the theme's. */
export function cssColour(colour: number): string {
  return `rgb(${partsOf(colour).join(" ")})`;
}

/** Whether black is easier to read on a colour than white: by their contrasts (WCAG 2.2, relative luminance). */
export function isBright(colour: number): boolean {
  const [r, g, b] = partsOf(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179;
}

function partsOf(colour: number): [number, number, number] {
  if (colour >= RGB) return [(colour >> 16) & 0xff, (colour >> 8) & 0xff, colour & 0xff];
  if (colour >= 232) {
    const grey = 8 + (colour - 232) * 10;
    return [grey, grey, grey];
  }
  const n = colour - 16;
  return [CUBE[Math.floor(n / 36)] as number, CUBE[Math.floor(n / 6) % 6] as number, CUBE[n % 6] as number];
}

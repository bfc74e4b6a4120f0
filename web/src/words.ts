// Spans of time and pairs, as people read and write them.

/** "4.2 s", "3:07", "2:41:09", "3 d 4 h". */
export function spoken(seconds: number): string {
  if (seconds < 0) seconds = 0;
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (n: number): string => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor(whole / 3600) % 24} h`;
}

/** The same in words: "4.2 s", "3 min 7 s", "2 h 41 min", "3 d 4 h". */
export function spelled(seconds: number): string {
  const whole = Math.floor(seconds);
  if (whole < 60 || whole >= 86_400) return spoken(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
}

/** "1 min", "90s", "2h" → seconds; undefined where it is none of these. */
export function parseDuration(text: string): number | undefined {
  const parts = [...text.trim().toLowerCase().matchAll(/(\d+(?:\.\d+)?)\s*(ms|min|sec|s|m|h|d)?\s*/gy)];
  if (parts.length === 0 || parts.map((p) => p[0]).join("") !== text.trim().toLowerCase()) return undefined;
  const units: Record<string, number> = { ms: 0.001, s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86_400 };
  const sum = parts.reduce((total, p) => total + Number(p[1]) * (units[p[2] ?? "s"] as number), 0);
  return sum > 0 ? sum : undefined;
}

/** "a=1, b=2" or one per line → pairs; undefined where one has no "=". */
export function parsePairs(text: string, separator: RegExp): Record<string, string> | undefined {
  const pairs: Record<string, string> = {};
  for (const part of text.split(separator)) {
    if (part.trim() === "") continue;
    const at = part.indexOf("=");
    if (at <= 0) return undefined;
    pairs[part.slice(0, at).trim()] = part.slice(at + 1);
  }
  return pairs;
}

/** A date as addresses have it; undefined for what is none, or lies where no command can. */
export function dateOf(text: string): Date | undefined {
  const date = new Date(text);
  const year = date.getFullYear(); // NaN for no date
  return year >= 1971 && year <= 9998 ? date : undefined;
}

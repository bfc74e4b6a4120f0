// Characters that show nothing, or make others show elsewhere: in a command line that somebody is to approve they would
// let it look like another one.

const ODD =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;

export interface Part {
  text: string;
  /** It stands for a character that cannot be seen. */
  odd: boolean;
}

/** Gives a text with what cannot be seen spelled out: "\u{202e}". */
export function spellOut(text: string): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const found of text.matchAll(ODD)) {
    if (found.index > at) parts.push({ text: text.slice(at, found.index), odd: false });
    parts.push({ text: `\\u{${(found[0].codePointAt(0) as number).toString(16)}}`, odd: true });
    at = found.index + found[0].length;
  }
  if (at < text.length) parts.push({ text: text.slice(at), odd: false });
  return parts;
}

// What an edit of a command line changes, word by word.

import { diffArrays } from "diff";

export interface Change {
  kind: "same" | "gone" | "new";
  text: string;
}

/** For so long the words are compared; then all of it counts as changed. */
const PATIENCE_MS = 100;

/** Gives the parts that stay, go and come, in their order; what goes stands before what comes in its place. */
export function changesOf(before: string, after: string): Change[] {
  const parts = diffArrays(words(before), words(after), { timeout: PATIENCE_MS });
  if (parts === undefined) return [{ kind: "gone", text: before }, { kind: "new", text: after }];
  return parts.map((part) => ({ kind: part.removed ? "gone" : part.added ? "new" : "same", text: part.value.join("") }));
}

function words(text: string): string[] {
  return text.split(/(\s+|[;|&()<>"'`$={},])/).filter((word) => word !== "");
}

// Keys. One listener; the innermost part that knows a key gets it.

import { useEffect, useRef } from "react";

export type Keys = Record<string, () => void>;

const stack: { current: Keys }[] = [];
let prefix = "";
let prefixTimer: ReturnType<typeof setTimeout> | undefined;

function typing(target: EventTarget | null): boolean {
  // A terminal that only shows has no use for keys.
  if (target instanceof Element && target.closest("[data-keyless]") !== null) return false;
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.closest("input:not([type=checkbox], [type=range]), textarea, select, .xterm") !== null)
  );
}

window.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (typing(event.target) || document.querySelector("dialog[open]") !== null) return;
  // What these do to a button is the button's.
  if ((event.key === " " || event.key === "Enter") && event.target instanceof Element && event.target.closest("button, summary, a, input") !== null) return;
  const key = prefix === "" ? event.key : `${prefix} ${event.key}`;
  prefix = "";
  clearTimeout(prefixTimer);
  for (let i = stack.length - 1; i >= 0; i--) {
    const act = stack[i]?.current[key];
    if (act === undefined) continue;
    event.preventDefault();
    act();
    return;
  }
  if (stack.some((keys) => Object.keys(keys.current).some((k) => k.startsWith(`${key} `)))) {
    prefix = key;
    prefixTimer = setTimeout(() => (prefix = ""), 1500);
  }
});

/** Binds keys while the part is there: "f", "?", "g c". */
export function useKeys(keys: Keys): void {
  const held = useRef(keys);
  held.current = keys;
  useEffect(() => {
    stack.push(held);
    return () => {
      stack.splice(stack.indexOf(held), 1);
    };
  }, []);
}

/** j and k go through what matches in the document, Enter is the link's own. */
export function useListKeys(selector: string): void {
  const move = (by: number): void => {
    const rows = [...document.querySelectorAll<HTMLElement>(selector)];
    const at = rows.findIndex((row) => row === document.activeElement || row.contains(document.activeElement));
    const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  };
  useKeys({ j: () => move(1), k: () => move(-1) });
}

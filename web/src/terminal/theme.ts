// The colours of a terminal: those of the page.

import type { ITheme } from "@xterm/xterm";

export function themeOf(element: Element): ITheme {
  const style = getComputedStyle(element);
  const get = (name: string): string => style.getPropertyValue(name).trim();
  const names = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"] as const;
  const theme: Record<string, string> = {
    background: get("--out-paper"),
    foreground: get("--out-ink"),
    cursor: get("--deed"),
    cursorAccent: get("--out-paper"),
    selectionBackground: get("--out-selection"),
  };
  names.forEach((name, i) => {
    theme[name] = get(`--ansi-${i}`);
    theme[`bright${name.charAt(0).toUpperCase()}${name.slice(1)}`] = get(`--ansi-${i + 8}`);
  });
  return theme;
}

/** Calls back whenever the page has other colours, until the function that it gives is called. */
export function onColours(changed: () => void): () => void {
  window.addEventListener("telexec-theme", changed);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", changed);
  return () => {
    window.removeEventListener("telexec-theme", changed);
    dark.removeEventListener("change", changed);
  };
}

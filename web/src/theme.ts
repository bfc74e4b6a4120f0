// Dark or light: the system's, or what was chosen here.

import { prefer, preferred } from "./client.ts";

export type Theme = "system" | "light" | "dark";

export function chosenTheme(): Theme {
  const chosen = preferred("telexec.theme");
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

export function applyTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}

export function chooseTheme(theme: Theme): void {
  prefer("telexec.theme", theme);
  applyTheme(theme);
  window.dispatchEvent(new Event("telexec-theme"));
}

// The one connection to the service, and what goes wrong with it.

import { useSyncExternalStore } from "react";
import { Telexec, TelexecError, type ConnectionState } from "@telexec/client";

export const client = new Telexec({ transport: preferred("telexec.transport") === "polling" ? "polling" : "auto" });

/** What this browser remembers; where it may not, there is nothing. */
export function preferred(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function prefer(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Private windows may have no storage: the choice holds for this page.
  }
}

export function useConnection(): ConnectionState {
  return useSyncExternalStore(
    (changed) => client.onConnection(changed),
    () => client.connection,
  );
}

export interface Problem {
  message: string;
  hint: string;
  reason: string;
}

/** What to tell of a failure. Without credentials it goes to the login, and comes back here. */
export function problemOf(error: unknown): Problem {
  if (error instanceof TelexecError) {
    if (error.code === "UNAUTHENTICATED") {
      location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    }
    return { message: sentence(error.message), hint: error.hint, reason: error.reason };
  }
  return { message: error instanceof Error ? sentence(error.message) : "Something went wrong", hint: "Try again; reload the page if it stays", reason: "" };
}

export function reasonOf(error: unknown): string {
  return error instanceof TelexecError ? error.reason || error.code : "";
}

export function aborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export function sentence(text: string): string {
  return text === "" ? "" : text.charAt(0).toUpperCase() + text.slice(1);
}

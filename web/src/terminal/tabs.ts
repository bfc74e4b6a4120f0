// The terminals that are open on this page, in the order of their tabs. Each goes on while another one is looked at.

import { useSyncExternalStore } from "react";
import type { Session } from "@telexec/client";
import { Attachment } from "./attachment.ts";

let open: readonly Attachment[] = [];
const listeners = new Set<() => void>();

function set(attachments: readonly Attachment[]): void {
  open = attachments;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useTabs(): readonly Attachment[] {
  return useSyncExternalStore(subscribe, () => open);
}

/** The tab of a session that has that id, or is named so: the one that has not ended, else the last one that was opened. */
export function tabOf(ref: string): Attachment | undefined {
  const named = open.filter((a) => a.view.session.name === ref);
  return open.find((a) => a.id === ref) ?? named.findLast((a) => !a.ended) ?? named.at(-1);
}

/** Opens a tab, unless the session has one. */
export function openTab(session: Session): Attachment {
  const there = open.find((a) => a.id === session.id);
  if (there !== undefined) return there;
  const made = new Attachment(session);
  set([...open, made]);
  return made;
}

/** Closes a tab, and gives the one that is to be shown instead. The session goes on. */
export function closeTab(tab: Attachment): Attachment | undefined {
  const at = open.indexOf(tab);
  if (at < 0) return open[0];
  set(open.filter((a) => a !== tab));
  tab.dispose();
  return open[at] ?? open[at - 1];
}

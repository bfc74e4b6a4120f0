// Who looks at this page, and what the service is: asked once, and again now and then.

import { createContext, useContext } from "react";
import type { GetServerInfoResponse } from "@telexec/client";

export const Session = createContext<GetServerInfoResponse | undefined>(undefined);

export function useSession(): GetServerInfoResponse | undefined {
  return useContext(Session);
}

export function hasRole(session: GetServerInfoResponse | undefined, ...roles: string[]): boolean {
  return session !== undefined && (session.roles.includes("admin") || roles.some((role) => session.roles.includes(role)));
}

/** Why this principal cannot do what needs a role; undefined where it can, or that is not known yet. */
export function lacks(session: GetServerInfoResponse | undefined, role: string): string | undefined {
  if (session === undefined || hasRole(session, role)) return undefined;
  const has = session.roles.length === 0 ? "no role" : session.roles.join(" and ");
  return `You are ${session.principal} with ${has}: only ${role === "admin" ? "an admin" : `an ${role} or an admin`} can do this. Ask an admin for a token with the role ${role}.`;
}

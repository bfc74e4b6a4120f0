// A plan as it is typed: what is wrong with it, and what is sent of it.

import { parseDuration, parsePairs } from "./words.ts";

/** A step as it is typed. */
export interface StepDraft {
  name: string;
  hosts: string;
  hostLabels: string;
  session: string;
  command: string;
  undo: string;
  needsApproval: boolean;
  onFailure: string;
  timeout: string;
  directory: string;
  sudo: string;
  action: string;
  retries: string;
  backoff: string;
  parallel: string;
  canary: string;
  goOn: boolean;
}

/** A plan as it is typed. */
export interface PlanDraft {
  task: string;
  priority: string;
  conversation: string;
  labels: string;
  steps: StepDraft[];
}

export const emptyStep = (hosts = ""): StepDraft => ({
  name: "", hosts, hostLabels: "", session: "", command: "", undo: "", needsApproval: false, onFailure: "stop", timeout: "",
  directory: "", sudo: "", action: "", retries: "", backoff: "", parallel: "", canary: "", goOn: false,
});

/** The names in "web1, web2 web3", each once. */
export function hostsOf(text: string): string[] {
  return [...new Set(text.split(/[\s,]+/).filter((name) => name !== ""))];
}

/** The pairs in "group=web, zone=a"; undefined where it is no list of these. */
export function labelsOf(text: string): Record<string, string> | undefined {
  const pairs = parsePairs(text, /[,\n]/);
  return pairs && Object.fromEntries(Object.entries(pairs).map(([key, value]) => [key, value.trim()]));
}

/** The number in a field; undefined where it is none from -100 to 100. */
export function priorityOf(text: string): number | undefined {
  return numberOf(text, -100, 100);
}

// An empty field is 0.
function numberOf(text: string, least: number, most: number): number | undefined {
  const n = text.trim() === "" ? 0 : Number(text);
  return Number.isInteger(n) && n >= least && n <= most ? n : undefined;
}

function given(text: string): boolean {
  return text.trim() !== "";
}

/** Reports whether a step says where it runs. */
export function placed(step: StepDraft): boolean {
  return hostsOf(step.hosts).length > 0 || given(step.hostLabels) || given(step.session);
}

/** Reports whether something is typed that stands under More. */
export function saysMore(step: StepDraft): boolean {
  return step.goOn || [step.hostLabels, step.session, step.directory, step.sudo, step.action, step.retries, step.backoff, step.parallel, step.canary].some(given);
}

/** So long a timeout is at most, in seconds, and so long the first wait of a retry. */
const MAX_TIMEOUT = 31_536_000;
const MAX_BACKOFF = 3600;

/** What is wrong with a step, by its field, as the service would see it; empty where nothing is. names are those of all steps. */
export function mistakesOf(step: StepDraft, names: readonly string[]): Record<string, string> {
  const wrong: Record<string, string> = {};
  const check = (field: keyof StepDraft, right: boolean, words: string): void => {
    if (!right) wrong[field] ??= words;
  };
  const name = step.name.trim();
  check("name", name === "" || /^[A-Za-z0-9]([A-Za-z0-9 ._-]*[A-Za-z0-9])?$/.test(name), "Letters, digits, spaces and . _ - only, a letter or a digit at both ends");
  check("name", name.length <= 64, "At most 64 letters");
  check("name", name === "" || names.filter((other) => other.trim() === name).length <= 1, "Another step has this name");

  const hosts = hostsOf(step.hosts);
  const labels = labelsOf(step.hostLabels);
  const session = step.session.trim();
  const places = [hosts.length > 0, given(step.hostLabels), session !== ""];
  const one = places.filter(Boolean).length <= 1;
  (["hosts", "hostLabels", "session"] as const).forEach((field, i) => check(field, one || places[i] !== true, "Either hosts, or host labels, or a session"));
  check("hosts", hosts.every((host) => !host.startsWith("-")), "The name of a host does not begin with a hyphen");
  check("hostLabels", labels !== undefined && Object.keys(labels).length <= 8, "key=value, with commas between them, at most 8");
  check("session", /^[A-Za-z0-9._-]{0,64}$/.test(session), "Letters, digits and . _ - only");

  const timeout = parseDuration(step.timeout);
  check("timeout", !given(step.timeout) || (timeout !== undefined && timeout <= MAX_TIMEOUT), "Write it like 90s, 10m or 2h, a year at most");
  check("directory", session === "" || !given(step.directory), "Not in a session: its shell's own counts");
  check("sudo", session === "" || !given(step.sudo), "Not in a session: its shell's own counts");
  check("sudo", /^([A-Za-z0-9._][A-Za-z0-9._-]*[$]?)?$/.test(step.sudo.trim()), "The name of a user: letters, digits and . _ - $ only");
  check("action", /^[a-z0-9_.-]{0,64}$/.test(step.action.trim()), "Small letters, digits and . _ - only");

  check("retries", !given(step.retries) || (numberOf(step.retries, 1, 20) ?? 0) > 0, "1 to 20; empty: never");
  const backoff = parseDuration(step.backoff);
  check("backoff", !given(step.backoff) || (backoff !== undefined && backoff <= MAX_BACKOFF), "Write it like 5s or 2m, an hour at most");
  check("backoff", !given(step.backoff) || given(step.retries), "Say how often it is tried again");

  const several = given(step.hostLabels) || hosts.length > 1;
  for (const field of ["parallel", "canary"] as const) check(field, several || !given(step[field]), "It is for several hosts");
  check("goOn", several || !step.goOn, "It is for several hosts");
  check("parallel", !given(step.parallel) || (numberOf(step.parallel, 1, 100) ?? 0) > 0, "1 to 100; empty: 10");
  const canary = numberOf(step.canary, 0, 1000);
  check("canary", canary !== undefined, "0 to 1000");
  check("canary", hosts.length === 0 || (canary ?? 0) < hosts.length, "Fewer than there are hosts");
  return wrong;
}

/** What is sent of a step in which nothing is wrong. */
export function specOf(step: StepDraft) {
  const hosts = hostsOf(step.hosts);
  const timeout = parseDuration(step.timeout);
  const backoff = parseDuration(step.backoff);
  const rollout = { parallel: numberOf(step.parallel, 1, 100) ?? 0, canary: numberOf(step.canary, 0, 1000) ?? 0, goOn: step.goOn };
  return {
    name: step.name.trim(), command: step.command, undo: step.undo, needsApproval: step.needsApproval, onFailure: step.onFailure,
    ...(given(step.session) ? { session: step.session.trim() } : given(step.hostLabels) ? { hostLabels: labelsOf(step.hostLabels) ?? {} } : hosts.length > 1 ? { hosts } : { host: hosts[0] ?? "" }),
    ...(timeout === undefined ? {} : { timeout: span(timeout) }),
    ...(given(step.directory) ? { workingDirectory: step.directory.trim() } : {}),
    ...(given(step.sudo) ? { sudoUser: step.sudo.trim() } : {}),
    ...(given(step.action) ? { actionType: step.action.trim() } : {}),
    ...(given(step.retries) ? { retry: { times: Number(step.retries), ...(backoff === undefined ? {} : { backoff: span(backoff) }) } } : {}),
    ...(rollout.parallel > 0 || rollout.canary > 0 || rollout.goOn ? { rollout } : {}),
  };
}

function span(seconds: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(seconds)), nanos: Math.round((seconds % 1) * 1e9) };
}

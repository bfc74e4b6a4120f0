// Values as people read them.

import { CancelOutcome, CommandState, Completion, Connection, Durability, Keeper, Origin, SessionState, ViewerRole, type Command, type Session } from "@telexec/client";

export { dateOf, parseDuration, parsePairs, spelled, spoken } from "./words.ts";

interface Stamp {
  seconds: bigint;
  nanos: number;
}

export function toDate(t: Stamp | undefined): Date | undefined {
  return t === undefined ? undefined : new Date(Number(t.seconds) * 1000 + t.nanos / 1e6);
}

export function toSeconds(d: Stamp | undefined): number | undefined {
  return d === undefined ? undefined : Number(d.seconds) + d.nanos / 1e9;
}

export function toStamp(d: Date): { seconds: bigint; nanos: number } {
  const ms = d.getTime();
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: Math.round((((ms % 1000) + 1000) % 1000) * 1e6) };
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const full = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

/** Today the time of day, else with the day, and beyond a year with the year. */
export function when(d: Date, now = new Date()): string {
  if (d.toDateString() === now.toDateString()) return clock.format(d);
  return now.getTime() - d.getTime() < 300 * 86_400_000 ? dayAndClock.format(d) : full.format(d);
}

export function bytes(n: number | bigint): string {
  let value = Number(n);
  if (value < 1024) return `${value} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    value /= 1024;
    if (value < 1024 || unit === "GiB") return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`;
  }
  return "";
}

const decimal = new Intl.NumberFormat("en");

export function count(n: number | bigint): string {
  return decimal.format(n);
}

const states: Record<CommandState, string> = {
  [CommandState.UNSPECIFIED]: "unknown",
  [CommandState.AWAITING_APPROVAL]: "awaiting approval",
  [CommandState.QUEUED]: "queued",
  [CommandState.STARTING]: "starting",
  [CommandState.RUNNING]: "running",
  [CommandState.COMPLETED]: "completed",
  [CommandState.FAILED]: "failed",
  [CommandState.CANCELLED]: "cancelled",
  [CommandState.TIMED_OUT]: "timed out",
  [CommandState.REJECTED]: "rejected",
  [CommandState.EXPIRED]: "expired",
  [CommandState.LOST]: "lost",
};

export function stateWord(state: CommandState): string {
  return states[state] ?? "unknown";
}

/** Enum names as in the API, small, for URLs. */
export function stateKey(state: CommandState): string {
  return CommandState[state].toLowerCase();
}

export function stateOf(key: string): CommandState | undefined {
  const value = CommandState[key.toUpperCase() as keyof typeof CommandState];
  return typeof value === "number" ? value : undefined;
}

export const allStates: CommandState[] = Object.values(CommandState).filter((s): s is CommandState => typeof s === "number" && s !== 0);

export function hasEnded(command: Command): boolean {
  return command.state >= CommandState.COMPLETED;
}

export function originWord(origin: Origin | undefined): string {
  return origin === undefined || origin === Origin.UNSPECIFIED ? "" : Origin[origin].toLowerCase();
}

export const allOrigins: Origin[] = [Origin.WEB, Origin.CLI, Origin.MCP, Origin.GRPC, Origin.REST, Origin.WEBSOCKET];

export function originOf(key: string): Origin | undefined {
  const value = Origin[key.toUpperCase() as keyof typeof Origin];
  return typeof value === "number" ? value : undefined;
}

/** What colour a state has: of five. */
export function tone(command: Command): "wait" | "run" | "good" | "bad" | "off" {
  switch (command.state) {
    case CommandState.AWAITING_APPROVAL:
    case CommandState.QUEUED:
      return "wait";
    case CommandState.STARTING:
    case CommandState.RUNNING:
      return "run";
    case CommandState.COMPLETED:
      // Where a prompt or silence told its end, nobody knows how it went.
      return command.exitCode === undefined ? "off" : command.exitCode === 0 ? "good" : "bad";
    case CommandState.CANCELLED:
    case CommandState.EXPIRED:
      return "off";
    default:
      return "bad";
  }
}

export function durabilityWord(d: Durability): string {
  return d === Durability.DURABLE ? "durable" : d === Durability.ATTACHED ? "attached" : "";
}

export function reconnecting(command: Command): boolean {
  return command.connection === Connection.RECONNECTING;
}

const outcomes: Record<CancelOutcome, string> = {
  [CancelOutcome.UNSPECIFIED]: "under way",
  [CancelOutcome.GONE]: "no process of it is left",
  [CancelOutcome.ALREADY_ENDED]: "it had ended before",
  [CancelOutcome.NEVER_STARTED]: "it had not started, and never will",
  [CancelOutcome.PENDING]: "under way",
  [CancelOutcome.LEFT]: "processes are left that could not be ended",
  [CancelOutcome.UNPROVEN]: "the host cannot show what is left",
};

export function outcomeWords(outcome: CancelOutcome): string {
  return outcomes[outcome] ?? "";
}

export function pairsText(pairs: Record<string, string>): string {
  return Object.entries(pairs).map(([k, v]) => (v === "" ? k : `${k}=${v}`)).join(", ");
}

const sessionStates: Record<SessionState, string> = {
  [SessionState.UNSPECIFIED]: "unknown",
  [SessionState.OPENING]: "opening",
  [SessionState.OPEN]: "open",
  [SessionState.CLOSING]: "closing",
  [SessionState.ENDED]: "ended",
};

/** How a session is, and what colour that has. */
export function sessionState(session: Session): { word: string; tone: "wait" | "run" | "good" | "bad" | "off" } {
  const word = sessionStates[session.state] ?? "unknown";
  if (session.state === SessionState.ENDED) return { word, tone: "off" };
  if (session.state !== SessionState.OPEN) return { word, tone: "wait" };
  if (session.connection === Connection.RECONNECTING) return { word: "reconnecting", tone: "wait" };
  return session.currentCommand === "" ? { word, tone: "good" } : { word: "busy", tone: "run" };
}

export function keeperWord(keeper: Keeper): string {
  return { [Keeper.UNSPECIFIED]: "", [Keeper.NONE]: "nothing", [Keeper.TMUX]: "tmux", [Keeper.SCREEN]: "screen", [Keeper.DTACH]: "dtach" }[keeper] ?? "";
}

export function completionWord(completion: Completion): string {
  return {
    [Completion.UNSPECIFIED]: "", [Completion.EXIT_STATUS]: "exit status", [Completion.MARK]: "marks of the shell",
    [Completion.PROMPT]: "its prompt", [Completion.SILENCE]: "silence",
  }[completion] ?? "";
}

export function roleWord(role: ViewerRole): string {
  return role === ViewerRole.WRITER ? "writer" : role === ViewerRole.OBSERVER ? "observer" : "";
}

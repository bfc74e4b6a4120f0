import type { Case } from "../surroundings.js";
import { calls } from "./calls.js";
import { events } from "./events.js";
import { output } from "./output.js";
import { sessions } from "./sessions.js";
import { tasks } from "./tasks.js";

export const cases: readonly Case[] = [...calls, ...output, ...events, ...sessions, ...tasks];

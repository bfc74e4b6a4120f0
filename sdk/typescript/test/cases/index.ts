import type { Case } from "../surroundings.js";
import { calls } from "./calls.js";
import { events } from "./events.js";
import { output } from "./output.js";

export const cases: readonly Case[] = [...calls, ...output, ...events];

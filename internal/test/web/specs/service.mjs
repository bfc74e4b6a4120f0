// The service as a spec sees it: the control server of the test (see doc.go), REST,
// and what they tell.
import assert from "node:assert/strict";

/**
 * @typedef {"admin" | "viewer" | "operator" | "asker" | "approver" | "second" | "odd"} Person  whose token is used
 * @typedef {{ url: string, direct: string, host: string, tokens: Record<Person, string>, oddName: string }} Facts
 * @typedef {{ stream: "stdout" | "stderr", offset: number, position: number, data: Buffer }} Chunk
 * @typedef {{ position: number, stream: Chunk["stream"], text: string }} Row
 * @typedef {Record<string, any>} Json
 */

/** Whether the measured times are asserted, and not only printed. */
export const strict = process.env.TELEXEC_WEB_STRICT === "true";
/** How many bytes a big output has. */
export const bigBytes = Number(process.env.TELEXEC_WEB_BIG);
/** The directory for screenshots. */
export const shots = String(process.env.TELEXEC_WEB_SHOTS);

/** @param {string} path @param {Json} [body] @returns {Promise<any>} */
async function control(path, body) {
  const answer = await fetch(process.env.TELEXEC_WEB_CONTROL + path, {
    method: body ? "POST" : "GET",
    headers: { authorization: `Bearer ${process.env.TELEXEC_WEB_TOKEN}` },
    ...(body && { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
  return answer.json();
}

/** @type {Facts} */
export const facts = await control("/facts");

/** Ends telexecd (stop; or kill, as kill -9 does), or has it run (start; or restart). */
export const service = (/** @type {"stop" | "kill" | "start" | "restart"} */ what) => control("/service", { do: what });

/** How the wire between browser and service is from now on: see wire_test.go. */
export const network = (/** @type {"open" | "cut" | "silent" | "no-websockets"} */ mode, delayMs = 0) => control("/network", { mode, delayMs });

/**
 * Starts a command by gRPC, and does not wait for its end.
 * @param {Json} request @param {Person} [as] @returns {Promise<Json>}
 */
export async function execute(request, as = "admin") {
  const { command } = await control("/execute", { as, request: { host: facts.host, wait: "0s", ...request } });
  return command;
}

/** @param {Person} as @param {string[]} args @returns {Promise<{ Stdout: string, Stderr: string, Code: number }>} */
export const cli = (as, ...args) => control("/cli", { as, args });

/**
 * Calls a tool of telexec-mcp, as an MCP client, and gives its structured answer.
 * @param {Person} as @param {string} tool @param {Json} args @returns {Promise<Json>}
 */
export const agent = (as, tool, args) => control("/agent", { as, tool, arguments: args });

/** How many processes of this machine have the text in their command line. @param {string} text @returns {Promise<number>} */
export const processes = async (text) => (await control(`/processes?with=${encodeURIComponent(text)}`)).count;

/** @param {string} path @param {{ as?: Person, method?: string, body?: Json }} [o] */
export async function rest(path, { as = "admin", method, body } = {}) {
  const answer = await fetch(facts.direct + path, {
    method: method ?? (body ? "POST" : "GET"),
    headers: { authorization: `Bearer ${facts.tokens[as]}`, "content-type": "application/json" },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${path}: ${answer.status} ${text}`);
  return text;
}

/** The command as it is now. @param {string} id @returns {Promise<Json>} */
export const get = async (id) => JSON.parse(await rest(`/v1/commands/${id}`)).command;

/** The command as it has ended. @param {string} id @returns {Promise<Json>} */
export async function ended(id) {
  for (;;) {
    const { command } = JSON.parse(await rest(`/v1/commands/${id}?wait=60s`));
    if (command.endTime) return command;
  }
}

/** Submits a task by REST. @param {Json} plan @param {Person} [as] @returns {Promise<Json>} */
export async function submit(plan, as = "admin") {
  const steps = plan.steps.map((/** @type {Json} */ s) => (s.hosts || s.hostLabels ? s : { host: facts.host, ...s }));
  return JSON.parse(await rest("/v1/tasks", { as, body: { task: "a task", ...plan, steps } })).task;
}

/** The task as it is now. @param {string} id @returns {Promise<Json>} */
export const getTask = async (id) => JSON.parse(await rest(`/v1/tasks/${id}`)).task;

/** The task when that has come: its end, or an approval. @param {string} id @param {"ENDED" | "APPROVAL"} [what] @returns {Promise<{ task: Json, approvals: Json[] }>} */
export async function taskUntil(id, what = "ENDED") {
  const answer = JSON.parse(await rest(`/v1/tasks/${id}?wait=120s&until=TASK_WAIT_${what}`));
  assert.ok(!answer.stillWaiting, `the task ${id} is ${answer.task.state}`);
  return { approvals: [], ...answer };
}

/** All output, in order of arrival; with follow, up to the end. @param {string} id @returns {Promise<Chunk[]>} */
export async function output(id, { follow = true } = {}) {
  const text = await rest(`/v1/commands/${id}/output?follow=${follow}`);
  return text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line).chunk)
    .filter(Boolean)
    .map(({ stream, offset, position, data }) => ({
      stream: stream === "STREAM_STDERR" ? "stderr" : "stdout",
      offset: Number(offset ?? 0),
      position: Number(position ?? 0),
      data: Buffer.from(data, "base64"),
    }));
}

/** A command that prints on both streams until it is sent USR1. @param {number} pause between two lines, in seconds */
export const ticking = (pause) =>
  `trap 'echo done; exit 0' USR1; i=0; while :; do i=$((i+1)); echo "tick $i"; [ $((i%7)) = 0 ] && echo "tock $i" >&2; sleep ${pause}; done`;

/**
 * Sees to it that this is all that such a command has printed: whatever the service has
 * been through, it has each byte once.
 * @param {Chunk[]} chunks
 */
export function allTicks(chunks) {
  const out = text(chunks, "stdout");
  // The signal is for all of its processes, and the shell tells what became of its sleep.
  const err = text(chunks, "stderr").replace(/User defined signal 1\n$/, "");
  const count = (out.match(/tick/g) ?? []).length;
  const lines = Array.from({ length: count }, (_, i) => i + 1);
  assert.equal(out, lines.map((i) => `tick ${i}\n`).join("") + "done\n");
  const tocks = lines.filter((i) => i % 7 === 0).map((i) => `tock ${i}\n`);
  // It may be told to stop between the last two lines.
  if (err !== tocks.slice(0, -1).join("") || count % 7 !== 0) assert.equal(err, tocks.join(""));
}

/** The text of one stream, or of both in order of arrival. @param {Chunk[]} chunks @param {Chunk["stream"]} [stream] */
export const text = (chunks, stream) => Buffer.concat(chunks.filter((c) => !stream || c.stream === stream).map((c) => c.data)).toString();

/**
 * The rows in which a page shows an output: one begins behind a line feed, and where
 * the other stream has its say. For lines of less than 4096 bytes that write nothing
 * over, and have no escape sequences but colours.
 * @param {Chunk[]} chunks @returns {Row[]}
 */
export function rows(chunks) {
  /** @type {{ position: number, stream: Chunk["stream"], bytes: Buffer[] }[]} */
  const found = [];
  let ended = true;
  for (const { stream, position, data } of chunks) {
    for (let at = 0; at < data.length; ) {
      const feed = data.indexOf(10, at);
      const next = feed < 0 ? data.length : feed + 1;
      const last = found.at(-1);
      const part = data.subarray(at, feed < 0 ? next : feed);
      if (last && !ended && last.stream === stream) last.bytes.push(part);
      else found.push({ position: position + at, stream, bytes: [part] });
      ended = feed >= 0;
      at = next;
    }
  }
  return found.map(({ position, stream, bytes }) => ({ position, stream, text: Buffer.concat(bytes).toString().replace(/\x1b\[[0-9;]*m/g, "") }));
}

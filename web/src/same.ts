// Which hosts of a step have printed the same: their outputs are fetched and compared, byte for byte, of long ones the
// beginning, the end and the size. Of each different one a single copy is kept, while the step is shown.

import { useEffect, useRef, useState } from "react";
import type { StepRun } from "@telexec/client";
import { client } from "./client.ts";
import { stepEnded } from "./taskstate.ts";

/** So much of each stream is compared. */
const COMPARED = 16 << 10;
/** Of so many hosts by itself, of others when somebody asks. */
const BY_ITSELF = 50;
/** So many are fetched at once. */
const AT_ONCE = 4;

export function useSame(runs: readonly StepRun[]) {
  const known = useRef(new Map<string, string>()); // by the command: the number of its output
  const outputs = useRef(new Map<string, number>());
  const busy = useRef(false);
  const stop = useRef<AbortController>(undefined);
  const [all, setAll] = useState(false);
  const [, redraw] = useState(0);
  const wanted = runs.filter((r) => r.commandId !== "" && stepEnded(r.state)).map((r) => r.commandId);
  const missing = wanted.filter((id) => !known.current.has(id));
  const allowed = all || runs.length <= BY_ITSELF;
  const key = missing.join();

  useEffect(() => {
    if (!allowed || missing.length === 0 || busy.current) return;
    busy.current = true;
    const { signal } = (stop.current ??= new AbortController());
    const todo = [...missing];
    const fetchOne = async (): Promise<void> => {
      for (let id = todo.shift(); id !== undefined && !signal.aborted; id = todo.shift()) {
        let output: string;
        try {
          const { stdout, stderr } = await client.get(id, { output: { limitBytes: COMPARED } }, { signal });
          const text = [stdout, stderr].map((s) => `${s?.size ?? 0n} ${latin(s?.data)}${latin(s?.tail)}`).join("\n");
          const number = outputs.current.get(text) ?? outputs.current.size;
          outputs.current.set(text, number);
          output = String(number);
        } catch {
          output = `? ${id}`; // like no other
        }
        known.current.set(id, output);
      }
    };
    void Promise.all(Array.from({ length: AT_ONCE }, fetchOne)).then(() => {
      busy.current = false;
      if (!signal.aborted) redraw((n) => n + 1); // what has ended meanwhile comes next
    });
  }, [key, allowed]);
  useEffect(
    () => () => {
      stop.current?.abort();
      stop.current = undefined;
      busy.current = false;
    },
    [],
  );

  return {
    /** What a run has printed, as a number that only those have that printed the same; undefined: not known. */
    outputOf: (run: StepRun): string | undefined => {
      const output = known.current.get(run.commandId);
      return output === undefined || output.startsWith("?") ? undefined : output;
    },
    comparing: allowed && missing.length > 0,
    /** Of so many it is not known, and not being found out. */
    left: allowed ? 0 : missing.length,
    compareAll: () => setAll(true),
  };
}

function latin(data: Uint8Array | undefined): string {
  let text = "";
  for (let at = 0; data !== undefined && at < data.length; at += 4096) text += String.fromCharCode(...data.subarray(at, at + 4096));
  return text;
}

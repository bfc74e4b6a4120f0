// Deciding what waits for approval.

import { useState } from "react";
import type { Approval, DecisionInit } from "@telexec/client";
import { client, reasonOf } from "./client.ts";

/** put takes each approval as it is after a decision; retry has them asked for again. */
export function useDecide(put: (approval: Approval) => void, retry: () => void) {
  const [busy, setBusy] = useState(false);
  const [refused, setRefused] = useState<unknown>();
  const [said, setSaid] = useState("");
  const decide = async (decisions: DecisionInit[], words: string): Promise<boolean> => {
    setBusy(true);
    setRefused(undefined);
    setSaid("");
    try {
      for (const approval of await client.decide(decisions)) put(approval);
      setSaid(words);
      return true;
    } catch (failed) {
      setRefused(failed);
      // It is another request by now, or somebody was faster: what is shown must be what is.
      if (["REQUEST_CHANGED", "ALREADY_DECIDED"].includes(reasonOf(failed))) retry();
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { busy, refused, said, decide };
}

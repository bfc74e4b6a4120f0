// The output as a file, byte by byte as the command printed it; and as text for the clipboard.

import { useEffect, useRef, useState } from "react";
import { problemOf } from "../client.ts";
import { bytes } from "../format.ts";
import { Menu } from "../parts/menu.tsx";
import type { OutputLog, Source } from "./log.ts";
import { PAGE } from "./log.ts";
import { Rows } from "./rows.ts";
import { textOfRows } from "./text.ts";

/** A clipboard is not a file. */
const MAX_COPY = 8 << 20;

export async function copyText(log: OutputLog, source: Source): Promise<{ text: string; whole: boolean }> {
  const rows = new Rows(0);
  const end = Math.min(log.total, MAX_COPY);
  const { signal } = new AbortController();
  while (rows.end < end) {
    if (log.rows.base <= rows.end && log.rows.end > rows.end) {
      for (const chunk of log.rows.between(rows.end, end)) rows.append(chunk);
      continue;
    }
    const { chunks, next } = await source.page(rows.end, PAGE, signal);
    for (const chunk of chunks) rows.append(chunk);
    if (next <= rows.end && chunks.length === 0) break;
  }
  return { text: textOfRows(rows), whole: end === log.total };
}

type Which = "stdout" | "stderr" | "both";

interface Sink {
  write(data: Uint8Array<ArrayBuffer>): Promise<void>;
  close(): Promise<void>;
  abort(): Promise<void>;
}

// A file where the browser lets us write one, so that a large output needs no memory; else it is kept and handed over.
async function sinkFor(name: string): Promise<Sink> {
  const picker = (window as { showSaveFilePicker?: (o: { suggestedName: string }) => Promise<FileSystemFileHandle> }).showSaveFilePicker;
  if (picker !== undefined && window.isSecureContext) {
    const file = await (await picker({ suggestedName: name })).createWritable();
    return { write: (data) => file.write(data), close: () => file.close(), abort: () => file.abort() };
  }
  let parts: BlobPart[] = [];
  return {
    async write(data) {
      // A blob of its own now and then: the browser may put those on disk.
      parts.push(data);
      if (parts.length >= 64) parts = [new Blob(parts)];
    },
    async close() {
      const url = URL.createObjectURL(new Blob(parts, { type: "application/octet-stream" }));
      const link = document.createElement("a");
      link.href = url;
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    },
    async abort() {
      parts = [];
    },
  };
}

export function Downloads({ id, source, size }: { id: string; source: Source; size: number }) {
  const [done, setDone] = useState<number>();
  const [problem, setProblem] = useState("");
  const stop = useRef<AbortController>(undefined);
  useEffect(() => () => stop.current?.abort(), []);

  const save = async (which: Which): Promise<void> => {
    const { signal } = (stop.current = new AbortController());
    setProblem("");
    let sink: Sink | undefined;
    try {
      sink = await sinkFor(`${id}.${which === "both" ? "log" : which}`);
      setDone(0);
      for (let at = 0; at < size; ) {
        const { chunks, next } = await source.page(at, 4 * PAGE, signal);
        for (const chunk of chunks) {
          if (which === "both" || (which === "stderr") === (chunk.stream === 1)) await sink.write(new Uint8Array(chunk.data));
        }
        if (next <= at) break;
        at = next;
        setDone(at);
      }
      await sink.close();
    } catch (error) {
      await sink?.abort().catch(() => undefined);
      const refused = error instanceof DOMException && (error.name === "AbortError" || error.name === "NotAllowedError");
      if (!refused) setProblem(problemOf(error).message);
    }
    setDone(undefined);
  };

  if (done !== undefined) {
    return (
      <button type="button" onClick={() => stop.current?.abort()} title="Stop the download">
        <span className="tabular">{bytes(done)}</span> · stop
      </button>
    );
  }
  return (
    <Menu
      className="menu-button"
      summary={
        <summary role="button" data-testid="download-menu">
          {problem === "" ? "Download" : "Download failed"}
        </summary>
      }
    >
      {problem !== "" && <p className="bad" role="alert">{problem}</p>}
      {(["both", "stdout", "stderr"] as const).map((which) => (
        <button key={which} type="button" data-testid={`download-${which}`} onClick={() => void save(which)}>
          {which === "both" ? "As it came, both" : which}
        </button>
      ))}
    </Menu>
  );
}

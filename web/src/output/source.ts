// The output of a command, from the service.

import type { Command, OutputChunkEvent } from "@telexec/client";
import { client } from "../client.ts";
import type { Piece, Source } from "./log.ts";
import type { Chunk } from "./rows.ts";

function chunkOf(event: OutputChunkEvent): Chunk {
  return { stream: event.stream === "stderr" ? 1 : 0, position: event.position, data: event.data };
}

/** Commands that the stream brings are handed on: it tells of a change before anybody else does. */
export function sourceOf(id: string, changed: (command: Command) => void): Source {
  return {
    async page(position, limit, signal) {
      const page = await client.page(id, { position, limitBytes: limit, signal });
      return { chunks: page.chunks.map(chunkOf), next: page.next };
    },
    async *stream(position, signal): AsyncGenerator<Piece> {
      for await (const event of client.stream(id, { position, signal })) {
        switch (event.type) {
          case "chunk":
            yield { type: "chunk", ...chunkOf(event) };
            break;
          case "command":
          case "ended":
            changed(event.command);
            yield { type: "other" };
            break;
          case "complete":
            yield { type: "complete" };
            break;
        }
      }
    },
    async size(signal) {
      const { command } = await client.get(id, { output: { omit: true } }, { signal });
      if (command === undefined) return 0;
      changed(command);
      return Number(command.stdoutBytes + command.stderrBytes);
    },
  };
}

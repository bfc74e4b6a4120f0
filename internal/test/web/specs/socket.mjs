// As much of the WebSocket's messages as specs look at: proto/telexec/v1/socket.proto.

/** Values of CommandState. */
const states = ["UNSPECIFIED", "AWAITING_APPROVAL", "QUEUED", "STARTING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT", "REJECTED", "EXPIRED", "LOST"];

/**
 * The fields of a message of protobuf's wire format: numbers, and bytes of whatever
 * is inside.
 * @param {Buffer} bytes @returns {Map<number, bigint | Buffer>}
 */
function fields(bytes) {
  const found = new Map();
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const b = bytes[at++] ?? 0;
      value |= BigInt(b & 0x7f) << shift;
      if (b < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    switch (tag & 7) {
      case 0:
        found.set(tag >> 3, varint());
        break;
      case 1:
        at += 8;
        break;
      case 2: {
        const length = Number(varint());
        found.set(tag >> 3, bytes.subarray(at, at + length));
        at += length;
        break;
      }
      default:
        at += 4;
    }
  }
  return found;
}

/**
 * The type of a message, and the state of the command that it tells of, if it does.
 * @param {string | { base64: string }} data @returns {{ type: string, state?: string }}
 */
export function decode(data) {
  if (typeof data === "string") {
    const { type, data: said } = JSON.parse(data);
    const command = said?.command ?? said?.event ?? said?.ended;
    return command?.state ? { type, state: command.state } : { type };
  }
  const message = fields(Buffer.from(data.base64, "base64"));
  const type = String(message.get(1) ?? "");
  const said = fields(Buffer.from(/** @type {Buffer} */ (message.get(7) ?? Buffer.alloc(0))));
  const command = said.get(2) ?? said.get(5) ?? said.get(6);
  if (!(command instanceof Buffer)) return { type };
  return { type, state: `COMMAND_STATE_${states[Number(fields(command).get(4) ?? 0n)]}` };
}

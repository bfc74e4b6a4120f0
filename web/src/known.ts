// Commands as they are known here, each in its latest version: every one that has not ended, those that a page shows,
// and the last ones that have ended.

interface Told {
  id: string;
  version: bigint;
}

export class Known<C extends Told> {
  /** What has not ended, newest first; another array whenever one of them has changed. */
  active: readonly C[] = [];
  /** What has ended, newest first. */
  ended: readonly C[] = [];

  private readonly commands = new Map<string, C>();
  private readonly held = new Map<string, number>(); // by how many
  private readonly hasEnded: (command: C) => boolean;
  private readonly maxEnded: number;

  constructor(hasEnded: (command: C) => boolean, maxEnded: number) {
    this.hasEnded = hasEnded;
    this.maxEnded = maxEnded;
  }

  get(id: string): C | undefined {
    return this.commands.get(id);
  }

  /** Takes a command as an answer has it, unless a newer one is known. Gives the newer one. */
  learn(command: C): C {
    const known = this.commands.get(command.id);
    if (known !== undefined && known.version > command.version) return known;
    // Of the same version too: the number of watchers changes without a new one. Put behind all others, which are
    // forgotten first.
    this.commands.delete(command.id);
    this.commands.set(command.id, command);
    return command;
  }

  /** Keeps a command while it is shown, until the function that it gives is called. */
  hold(id: string): () => void {
    this.held.set(id, (this.held.get(id) ?? 0) + 1);
    let done = false;
    return () => {
      if (done) return;
      done = true;
      const left = (this.held.get(id) ?? 1) - 1;
      if (left > 0) this.held.set(id, left);
      else this.held.delete(id);
    };
  }

  /** Puts what was learned since into the lists, and forgets what is too much. */
  settle(): void {
    const active: C[] = [];
    let ended: C[] = [];
    for (const command of this.commands.values()) (this.hasEnded(command) ? ended : active).push(command);
    let spare = ended.length - this.maxEnded;
    if (spare > 0) {
      ended = ended.filter((command) => {
        if (spare <= 0 || this.held.has(command.id)) return true;
        spare--;
        this.commands.delete(command.id);
        return false;
      });
    }
    this.active = active.sort(newestFirst);
    this.ended = ended.sort(newestFirst);
  }
}

function newestFirst(a: Told, b: Told): number {
  return a.id < b.id ? 1 : -1;
}

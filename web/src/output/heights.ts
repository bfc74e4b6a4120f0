// Where rows are: all are one line high, unless long ones wrap.

import type { Rows } from "./rows.ts";

export class Heights {
  private readonly rows: Rows;
  private readonly sums: Uint32Array | undefined; // lines up to and with a row

  /** columns: where long rows wrap; 0: they do not. */
  constructor(rows: Rows, columns: number) {
    this.rows = rows;
    if (columns <= 0) return;
    const count = rows.count;
    this.sums = new Uint32Array(count);
    let sum = 0;
    for (let row = 0; row < count; row++) {
      sum += Math.max(1, Math.ceil(rows.width(row) / columns));
      this.sums[row] = sum;
    }
  }

  /** How many lines lie above a row. */
  above(row: number): number {
    if (this.sums === undefined) return Math.min(row, this.rows.count);
    return row === 0 ? 0 : (this.sums[Math.min(row, this.sums.length) - 1] ?? 0);
  }

  get total(): number {
    return this.above(this.rows.count);
  }

  /** The row that a line is in. */
  at(line: number): number {
    const last = Math.max(0, this.rows.count - 1);
    if (this.sums === undefined) return Math.max(0, Math.min(last, Math.floor(line)));
    let low = 0;
    let high = last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.sums[middle] as number) > line) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

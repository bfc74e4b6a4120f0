// What the screen is compared with: xterm.js without a window. Reads cases from stdin, a
// JSON object in each line, and answers each with what differs.
//
//   {"columns", "rows", "scrollback", "steps": [{"write": base64} | {"resize": [c, r]}],
//    "snapshot": base64, "after": [steps]}
//
// One terminal is given the steps, another one, newly made, the snapshot. They must be the
// same then, and still after both were given what comes after. The answer has the state of
// the first one too, as it was then: text, cursor and title, and what it sent back.
//
//   {"widths": true}
//
// asks for the widths of all code points.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.argv[2] + "/");
const { Terminal } = require("@xterm/headless");
const { Unicode11Addon } = require("@xterm/addon-unicode11");

function terminal({ columns, rows, scrollback }) {
  const t = new Terminal({ cols: columns, rows, scrollback, allowProposedApi: true, logLevel: "off" });
  t.loadAddon(new Unicode11Addon());
  t.unicode.activeVersion = "11";
  t.sent = "";
  t.onData((d) => (t.sent += d));
  t.colors = {};
  t._core._inputHandler.onColor((event) => {
    for (const e of event) {
      if (e.type === 1) t.colors[e.index] = e.color.join();
      else if (e.type === 2 && e.index === undefined) {
        for (const i of Object.keys(t.colors)) if (i < 256) delete t.colors[i];
      } else if (e.type === 2) delete t.colors[e.index];
    }
  });
  t.windowTitle = "";
  t.onTitleChange((title) => (t.windowTitle = title));
  return t;
}

// Where rows are taken away while the alternate screen is not shown, xterm.js gives that a
// scrollback of as many: what is saved there is counted from its beginning, which no snapshot
// can have, and it comes back when there are more rows. Such a terminal is called loose, and
// not looked at while the alternate screen is shown.
function run(t, steps) {
  for (const step of steps ?? []) {
    if (step.resize) {
      t.loose ||= step.resize[1] < t.rows && t.buffer.active.type === "normal";
      t.resize(step.resize[0], step.resize[1]);
    }
    else t._core.writeSync(Buffer.from(step.write ?? "", "base64"));
  }
}

const color = (mode, value) => (mode === 0 ? "" : `${mode >> 24}:${value.toString(16)}`);

// Of a color of the palette other bits may be left of what it was before.
const underlineColor = ({ underlineColor: c }) => color(c & 0x3000000, (c & 0x3000000) === 0x3000000 ? c & 0xffffff : c & 0xff);

// cells describes a line: one string for each of its cells, and its text.
function cells(t, line) {
  const out = [];
  let text = "";
  const n = t.cols;
  const cell = new (t._core.buffers.normal.getNullCell().constructor)(); // that one is shared
  const full = (i) => line.getWidth(i) === 2 && i + 1 < n && line.getWidth(i + 1) === 0 && !line.hasContent(i + 1);
  for (let i = 0; i < n; i++) {
    line.loadCell(i, cell);
    let chars = cell.getChars();
    let width = cell.getWidth();
    // Half of a wide character without the other is a blank.
    if ((width === 2 && !full(i)) || (width === 0 && !chars && !(i > 0 && full(i - 1)))) [chars, width] = ["", 1];
    if (width === 0 && !chars) {
      out.push("second half");
      continue;
    }
    text += chars || " ";
    const has = cell.hasExtendedAttrs();
    const link = has ? t._core._oscLinkService.getLinkData(cell.extended.urlId) : undefined;
    out.push(
      [
        chars.length > 0 && [...chars].length >= 16 ? chars.slice(0, 16) : chars,
        width,
        color(cell.getFgColorMode(), cell.getFgColor()),
        color(cell.getBgColorMode(), cell.getBgColor()),
        cell.fg >>> 26,
        (cell.bg >>> 26) & ~4,
        cell.getUnderlineStyle(),
        cell.isUnderline() && has ? color(cell.getUnderlineColorMode(), cell.getUnderlineColor()) : "",
        has && cell.extended.urlId ? (link ? `${link.id ?? ""};${link.uri}` : "?") : "",
      ].join("|"),
    );
  }
  return { cells: out, text };
}

function buffer(t, b, first) {
  const lines = [];
  for (let i = first; i < b.lines.length; i++) {
    const line = b.lines.get(i);
    lines.push({ ...cells(t, line), wrapped: line.isWrapped });
  }
  return lines;
}

function state(t, scrollback, loose = t.loose) {
  const core = t._core;
  const { normal, alt, active } = core.buffers;
  const service = core.coreService;
  const charset = core._charsetService;
  const attr = core._inputHandler._curAttrData;
  const shown = (a) =>
    [color(a.getFgColorMode(), a.getFgColor()), color(a.getBgColorMode(), a.getBgColor()), a.fg >>> 26, a.bg >>> 26].join("|");
  const saved = (b) => {
    const a = b.savedCurAttrData;
    return [Math.min(b.savedX, t.cols - 1), b === alt && loose ? "" : Math.min(Math.max(b.savedY - b.ybase, 0), t.rows - 1), shown(a), JSON.stringify(b.savedCharset)].join("|");
  };
  const tabs = (b) => Array.from({ length: t.cols }, (_, i) => (b.tabs[i] ? 1 : 0)).join("");
  const first = Math.max(0, normal.ybase - scrollback);
  const s = {
    normal: buffer(t, normal, first),
    scrolled: normal.ybase - first,
    active: active === alt ? "alt" : "normal",
    cursor: [active.x, active.y],
    region: [normal.scrollTop, normal.scrollBottom, alt.scrollTop, alt.scrollBottom],
    tabs: [tabs(normal), active === alt ? tabs(alt) : ""],
    saved: [saved(normal), saved(alt)],
    attr: shown(attr),
    underline: [attr.extended.underlineStyle, underlineColor(attr.extended)].join(),
    odd: !attr.hasExtendedAttrs() === !attr.extended.isEmpty() || !(attr.fg & 0x10000000) === (attr.extended._ext & 0x1c000000) > 0,
    link: JSON.stringify(core._oscLinkService.getLinkData(attr.extended.urlId) ?? (attr.extended.urlId ? "?" : "")),
    charset: [charset.glevel, JSON.stringify(charset.charset), ...[0, 1, 2, 3].map((g) => JSON.stringify(charset._charsets[g]))].join("|"),
    modes: JSON.stringify({ ...service.modes, ...service.decPrivateModes, hidden: service.isCursorHidden, newline: t.options.convertEol, blink: t.options.cursorBlink }),
    rows: t.rows,
    mouse: [core.coreMouseService.activeProtocol, core.coreMouseService.activeEncoding],
    title: t.windowTitle,
    colors: JSON.stringify(Object.entries(t.colors).sort()),
    parser: core._inputHandler._parser.currentState,
    join: core._inputHandler._parser.precedingJoinState >> 1,
  };
  if (active === alt) s.alt = buffer(t, alt, 0);
  return s;
}

// A link may be forgotten by xterm.js while cells still have it.
const forgotten = (p, q) => p?.endsWith("|?") && p.slice(0, -1) === q?.slice(0, q.lastIndexOf("|") + 1);

function differences(a, b) {
  const out = [];
  const lines = (name) => {
    const [x, y] = [a[name], b[name]];
    if (!x !== !y) return out.push(`${name}: ${!!x} ${!!y}`);
    if (!x) return;
    if (x.length !== y.length) out.push(`${name}: ${x.length} lines, the snapshot has ${y.length}`);
    for (let i = 0; i < Math.min(x.length, y.length); i++) {
      if ((i > 0 || a.rows > 1) && x[i].wrapped !== y[i].wrapped) out.push(`${name} line ${i}: wrapped ${x[i].wrapped}, the snapshot has ${y[i].wrapped}`);
      for (let k = 0; k < Math.max(x[i].cells.length, y[i].cells.length); k++) {
        const [p, q] = [x[i].cells[k], y[i].cells[k]];
        if (p !== q && !forgotten(p, q) && !forgotten(q, p)) out.push(`${name} line ${i} cell ${k}: ${p}, the snapshot has ${q}`);
      }
    }
  };
  lines("normal");
  lines("alt");
  for (const key of Object.keys(a)) {
    if (key === "normal" || key === "alt" || (key === "link" && (a.link === '"?"' || b.link === '"?"'))) continue;
    // What DECRC leads to, and then SGR: a snapshot has what can be seen of it.
    if (key === "odd" || (a.odd && ["underline", "attr", "link"].includes(key))) continue;
    const [x, y] = [JSON.stringify(a[key]), JSON.stringify(b[key])];
    if (x !== y) out.push(`${key}: ${x}, the snapshot has ${y}`);
  }
  return out;
}

for await (const line of createInterface({ input: process.stdin })) {
  const c = JSON.parse(line);
  let answer;
  if (c.widths) {
    // Of all code points, as pairs of a first one and the width from there on.
    const t = terminal({ columns: 2, rows: 1, scrollback: 0 });
    const widths = [];
    for (let r = 0, last; r <= 0x10ffff; r++) {
      const w = t._core.unicodeService.wcwidth(r);
      if (w !== last) widths.push([r, (last = w)]);
    }
    process.stdout.write(JSON.stringify({ widths }) + "\n");
    continue;
  }
  try {
    const a = terminal(c);
    run(a, c.steps);
    const b = terminal({ columns: a.cols, rows: a.rows, scrollback: c.scrollback });
    b._core.writeSync(Buffer.from(c.snapshot, "base64"));
    if (a.loose && a.buffer.active.type === "alternate") {
      process.stdout.write(JSON.stringify({ skipped: true }) + "\n");
      continue;
    }
    const kept = c.kept ?? c.scrollback;
    const x = state(a, kept);
    const differs = differences(x, state(b, kept, a.loose));
    const text = [...x.normal.slice(0, x.active === "alt" ? 0 : undefined), ...(x.alt ?? [])].map((l) => l.text.replace(/ +$/, ""));
    answer = { differs, text, cursor: x.cursor, title: x.title, sent: a.sent };
    if (c.after && !differs.length && !x.odd) {
      run(a, c.after);
      run(b, c.after);
      answer.after = differences(state(a, kept), state(b, kept, a.loose));
    }
  } catch (e) {
    answer = { failed: String(e.stack ?? e) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}

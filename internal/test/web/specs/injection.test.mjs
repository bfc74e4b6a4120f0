// Whatever commands, callers and hosts say is text. Nothing of it runs, goes
// anywhere, or hides what stands beside it; visit() looks at all of that.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ended, execute, facts, rest, submit, taskUntil } from "./service.mjs";
import { leave, open, settled, visit } from "./visitor.mjs";

after(leave);

/** What tries to be more than text. All but the last set the global canary. */
const tricks = [
  `<script>canary="script"</script>`,
  `<img src=x onerror=canary="img">`,
  `<svg/onload=canary="svg">`,
  `</title></style></textarea></script><script>canary="closed"</script>`,
  `<iframe srcdoc="<script>parent.canary=1</script>"></iframe>`,
  `<a href="javascript:canary=1">click</a> javascript:canary=1 data:text/html,<script>canary=1</script>`,
  "`${canary=1}` {{canary=1}} {{constructor.constructor('canary=1')()}} <%= canary=1 %>",
  `"onmouseover="canary=1 'onfocus='canary=1' autofocus='`,
  `<meta http-equiv="refresh" content="0;url=http://elsewhere.example/"><base href="http://elsewhere.example/"><link rel=stylesheet href=//elsewhere.example/x>`,
  `&lt;b&gt; &#60;script&#62; \\u003cscript\\u003e`,
  `__proto__ constructor toString`,
  "left \u202etfel\u202c \u2066isolated\u2069 zero\u200b\u200d\ufeffwidth \u0000 e\u0301\u0301\u0301\u0301",
];
const all = tricks.join("\n").replaceAll("\u0000", "");
/** One that fits where 255 bytes are taken. */
const short = `<img src=x onerror=canary=1>\u202e</style><script>canary=1</script>`;

/** Characters that nobody sees, and that change what is read: order, joins, nothing at all. */
const unseen = /[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]/;

/** Puts a text into a shell's single quotes. @param {string} s */
const quote = (s) => `'${s.replaceAll("'", `'\\''`)}'`;

/** Commands in all states, that have tricks wherever they take text. */
async function prepare() {
  const escapes = "\\033]8;;javascript:canary=1\\033\\\\link\\033]8;;\\033\\\\ \\033]0;title\\007\\033[31mred\\033[0m \\033[999;999H\\033[2J\\033]52;c;Y2FuYXJ5\\007 \\302\\233 \\377\\376 \\000 bell\\007 back\\010\\010\\015over";
  const print = `printf '%s\\n' ${quote(all)}; printf '${escapes}\\n'; printf '%s\\n' ${quote(all)} >&2; : ${quote(short)}`;
  const labels = { note: short, trick: tricks[0] };
  const by = /** @type {const} */ ("odd");
  const made = await Promise.all([
    execute({ command: print, labels }, by),
    execute({ command: `echo ${quote(short)}; exec sleep 600`, labels }, by),
    execute({ command: "true", workingDirectory: `/nowhere/${short}`, labels }, by),
    execute({ command: `factor 42; : ${quote(all)}`, labels, env: { A: short } }, by),
    execute({ command: `factor 43; : ${quote(short)}`, labels }, by),
    execute({ argv: ["printf", "%s", all], labels }, by),
    execute({ command: `printf '%s\\r\\n' ${quote(all)}; printf '${escapes}'`, pty: {}, labels }, by),
    execute({ host: "closed:+@port", command: "true", labels }, by),
    execute({ command: `echo '50% ${short.replaceAll("'", "")}'; echo '[##########          ] 50% ${short}'; exec sleep 601` }, by),
  ]);
  const ids = made.map((c) => c.id);
  const [printed, cancelled, , , refused] = ids;
  await rest(`/v1/approvals:decide`, {
    as: "approver",
    body: { decisions: [{ commandId: refused, verdict: "VERDICT_REJECT", reason: all.slice(0, 500) }] },
  });
  await rest(`/v1/commands/${cancelled}:cancel`, { body: { reason: short } });
  await ended(String(printed));
  return ids;
}

test("nothing runs that should be shown", async (t) => {
  const { page } = await visit(t, { excused: /status of 404/ });
  const ids = await prepare();
  const paths = ["/", ...ids.map((id) => `/commands/${id}`), "/approvals", "/hosts", "/audit", `/?host=${encodeURIComponent(short)}&label=${encodeURIComponent(short)}`, `/commands/${encodeURIComponent(short)}`, `/${encodeURIComponent(short)}`];
  for (const path of paths) {
    await page.goto(path);
    await settled(page);
    const found = await page.evaluate(() => ({
      canary: /** @type {any} */ (window).canary,
      made: document.querySelectorAll("main img, main iframe, main script, main svg[onload], main base, main meta, [onerror], [onload], [onmouseover], [onfocus]").length,
      links: [...document.querySelectorAll("a[href]")].map((a) => /** @type {HTMLAnchorElement} */ (a).href).filter((href) => !href.startsWith(location.origin + "/")),
    }));
    assert.deepEqual(found, { canary: undefined, made: 0, links: [] }, path);
    // What is approved and run must be what is read.
    const text = await page.locator("main").innerText();
    assert.equal(text.match(unseen)?.[0].codePointAt(0)?.toString(16), undefined, `${path} has a character that nobody sees`);
  }
  // It was shown, after all.
  await open(page, String(ids[0]));
  for (const trick of tricks.slice(0, 3)) await page.getByTestId("output").getByText(trick).first().waitFor();
  await page.goto("/hosts");
  for (const label of ["label", "user"]) await page.getByText(`canary="${label}"`).first().waitFor();
  await page.goto("/audit");
  await page.getByTestId("audit-row").filter({ hasText: facts.oddName }).first().waitFor();
});

test("nothing of a task runs that should be shown", async (t) => {
  const { page } = await visit(t, { excused: /status of 404/ });
  const plan = { task: all.slice(0, 4000), conversationId: short, labels: { note: short, trick: tricks[0] }, context: { [String(tricks[1])]: all.slice(0, 4000) } };
  const print = `printf '%s\\n' ${quote(all)}; : ${quote(short)}`;
  const [done, asks, held] = await Promise.all([
    submit({ ...plan, steps: [{ command: print, undo: `${print}; exit 3` }, { hosts: ["twin1", "twin2", "closed:+@port"], command: print, workingDirectory: "/tmp", onFailure: "continue", rollout: { goOn: true } }] }, "odd"),
    submit({ ...plan, steps: [{ command: `: ${quote(all)}`, needsApproval: true, undo: `: ${quote(short)}` }] }, "odd"),
    submit({ ...plan, steps: [{ command: "exec sleep 600" }] }, "odd"),
  ]);
  await taskUntil(done.id);
  await taskUntil(asks.id, "APPROVAL");
  await rest(`/v1/tasks/${done.id}:undo`, { as: "odd", body: { reason: all.slice(0, 500) } });
  await rest(`/v1/tasks/${held.id}:cancel`, { as: "odd", body: { reason: short } });
  await taskUntil(done.id);
  await taskUntil(held.id);
  for (const path of ["/tasks", `/tasks?label=${encodeURIComponent(short)}&conversation=${encodeURIComponent(short)}`, `/tasks/${done.id}`, `/tasks/${done.id}?step=${encodeURIComponent(short)}&run=${encodeURIComponent(short)}`, `/tasks/${asks.id}`, `/tasks/${held.id}`, `/tasks/${encodeURIComponent(short)}`, "/approvals"]) {
    await page.goto(path);
    await settled(page);
    if (path === `/tasks/${done.id}`) {
      // Handles: what opens has such of its own.
      for (const summary of await page.locator("main details > summary").elementHandles()) await summary.click();
      await page.getByTestId("task-event").first().waitFor();
    }
    const found = await page.evaluate(() => ({
      canary: /** @type {any} */ (window).canary,
      made: document.querySelectorAll("main img, main iframe, main script, main svg[onload], main base, main meta, [onerror], [onload], [onmouseover], [onfocus]").length,
      links: [...document.querySelectorAll("a[href]")].map((a) => /** @type {HTMLAnchorElement} */ (a).href).filter((href) => !href.startsWith(location.origin + "/")),
    }));
    assert.deepEqual(found, { canary: undefined, made: 0, links: [] }, path);
    const text = await page.locator("main").innerText();
    assert.equal(text.match(unseen)?.[0].codePointAt(0)?.toString(16), undefined, `${path} has a character that nobody sees`);
  }
  // It was shown, after all.
  await page.goto(`/tasks/${done.id}`);
  for (const trick of tricks.slice(0, 3)) await page.getByTestId("task-title").getByText(trick).first().waitFor();
});

test("the pages of who is named oddly", async (t) => {
  const { page } = await visit(t, { as: "odd" });
  for (const path of ["/", "/tasks", "/approvals", "/hosts", "/audit"]) {
    await page.goto(path);
    await settled(page);
    await page.getByTestId("account").getByText(facts.oddName).first().waitFor();
    assert.equal(await page.evaluate(() => /** @type {any} */ (window).canary), undefined, path);
  }
});

test("the login page and the reference", async (t) => {
  const { page } = await visit(t, { as: null, excused: /status of 401/ });
  await page.goto(`/login?next=${encodeURIComponent('//elsewhere.example/"><script>canary=1</script>')}`);
  await page.getByLabel("Token").fill(short);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await page.getByLabel("Token").fill(facts.tokens.odd);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL((url) => url.pathname !== "/login");
  assert.equal(new URL(page.url()).origin, facts.url, "next leads elsewhere");
  await page.goto("/docs");
  await page.getByRole("heading").first().waitFor();
  assert.equal(await page.evaluate(() => /** @type {any} */ (window).canary), undefined);
});

test("an approval's reason and target are text, also in its dialogs", async (t) => {
  const { page } = await visit(t, { as: "approver" });
  await execute({ command: `factor 44; : ${quote(short)}`, host: "closed:+@port" }, "odd");
  await page.goto("/approvals");
  const row = page.getByTestId("approvals-row").filter({ hasText: "factor 44" });
  await row.waitFor();
  await row.getByText(facts.oddName).first().waitFor();
  assert.equal(await page.evaluate(() => /** @type {any} */ (window).canary), undefined);
});

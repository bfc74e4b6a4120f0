// Writing a plan: what it is about, and its steps. What the rules would say to each, and to what takes it back, shows while one
// types: on its first host.

import { useEffect, useId, useRef, useState, type FormEvent, type KeyboardEvent } from "react";
import { TelexecError, type Host } from "@telexec/client";
import { client, prefer, preferred, problemOf, type Problem } from "../client.ts";
import { emptyStep, hostsOf, labelsOf, mistakesOf, placed, priorityOf, saysMore, specOf, type PlanDraft, type StepDraft } from "../draft.ts";
import { parsePairs } from "../format.ts";
import { learnTask, sessionNamed, useSessions } from "../live.ts";
import { navigate } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import { useHosts } from "./host.tsx";
import { Field, PolicyHint, randomId } from "./run.tsx";
import { Line, Refused } from "./small.tsx";

// It begins with the host that was used last.
const nothing = (): PlanDraft => ({ task: "", priority: "", conversation: "", labels: "", steps: [emptyStep(preferred("telexec.host") ?? "")] });

// What was typed and not submitted: the form may be closed by a key, or left for another page.
let draft: PlanDraft | undefined;

const MAX_STEPS = 100;

export function NewTask({ onClose }: { onClose: () => void }) {
  const session = useSession();
  const barred = lacks(session, "operator");
  const { hosts, failed } = useHosts();
  const [plan, setPlan] = useState(() => draft ?? nothing());
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<{ told: Problem; fields: readonly { field: string; message: string }[] }>();
  const [said, setSaid] = useState("");
  const first = useRef<HTMLTextAreaElement>(null);
  const id = useId();
  useEffect(() => first.current?.focus(), []);

  const change = (now: PlanDraft): void => {
    setPlan((draft = now));
    setSaid("");
  };
  const set = (part: Partial<PlanDraft>): void => change({ ...plan, ...part });
  const setStep = (at: number, part: Partial<StepDraft>): void => set({ steps: plan.steps.map((s, i) => (i === at ? { ...s, ...part } : s)) });
  const move = (at: number, by: number): void => {
    const steps = [...plan.steps];
    const [step] = steps.splice(at, 1);
    if (step !== undefined) steps.splice(at + by, 0, step);
    set({ steps });
  };

  const names = plan.steps.map((s) => s.name);
  const mistakes = plan.steps.map((s) => mistakesOf(s, names));
  const labels = parsePairs(plan.labels, /[,\n]/);
  const priority = priorityOf(plan.priority);
  const ready =
    barred === undefined && plan.task.trim() !== "" && labels !== undefined && priority !== undefined && plan.steps.length > 0 &&
    plan.steps.every((s) => s.command.trim() !== "" && placed(s)) && mistakes.every((m) => Object.keys(m).length === 0);

  // The same plan keeps its id until it is changed: a repeat after a lost answer submits nothing twice.
  const request = useRef({ key: "", id: "" });

  const submit = async (validateOnly: boolean): Promise<void> => {
    if (busy || !ready) return;
    setBusy(true);
    setProblem(undefined);
    setSaid("");
    const key = JSON.stringify(plan);
    if (request.current.key !== key) request.current = { key, id: randomId() };
    try {
      const { task } = await client.submitTask({
        task: plan.task, priority, conversationId: plan.conversation.trim(), labels, validateOnly,
        requestId: validateOnly ? "" : request.current.id,
        steps: plan.steps.map(specOf),
      });
      if (task === undefined) return;
      if (validateOnly) {
        const on = new Set(task.steps.flatMap((s) => s.runs.map((r) => r.host || `session ${s.session}`))).size;
        setSaid(`It would be accepted: ${task.steps.length === 1 ? "1 step" : `${task.steps.length} steps`} on ${on} host(s).`);
        return;
      }
      draft = undefined;
      learnTask(task);
      const used = plan.steps.map((s) => hostsOf(s.hosts)[0]).find((name) => name !== undefined);
      if (used !== undefined) prefer("telexec.host", used);
      navigate(`/tasks/${task.id}`);
    } catch (error) {
      setProblem({ told: problemOf(error), fields: error instanceof TelexecError ? error.fields : [] });
    } finally {
      setBusy(false);
    }
  };

  const keys = (event: KeyboardEvent): void => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void submit(false);
    }
    if (event.key === "Escape") {
      event.preventDefault();
      onClose();
    }
  };

  return (
    <form
      className="run panel new-task" data-testid="task-form" aria-labelledby={`${id}-title`} onKeyDown={keys}
      onSubmit={(event: FormEvent) => event.preventDefault()}
    >
      <h2 id={`${id}-title`}>New task</h2>
      {barred !== undefined && <p className="note">{barred}</p>}
      {failed !== undefined && <p className="under bad">{failed.message}</p>}
      <div className="field">
        <label htmlFor={`${id}-task`}>What it is about</label>
        <textarea id={`${id}-task`} ref={first} rows={Math.min(6, Math.max(1, plan.task.split("\n").length))} maxLength={4096} value={plan.task} disabled={barred !== undefined} placeholder="Roll out 2.4 to the shop" data-testid="task-text" onChange={(event) => set({ task: event.target.value })} />
      </div>
      <ol className="drafts">
        {plan.steps.map((step, at) => (
          <StepForm
            key={at} id={`${id}-${at}`} at={at} last={plan.steps.length - 1} step={step} mistakes={mistakes[at] ?? {}} disabled={barred !== undefined} list={`${id}-hosts`} known={hosts}
            set={(part) => setStep(at, part)} move={(by) => move(at, by)} remove={() => set({ steps: plan.steps.filter((_, i) => i !== at) })}
          />
        ))}
      </ol>
      <datalist id={`${id}-hosts`}>
        {hosts?.map((h) => <option key={h.name} value={h.name} />)}
      </datalist>
      <div>
        <button type="button" data-testid="add-step" disabled={barred !== undefined || plan.steps.length >= MAX_STEPS} onClick={() => set({ steps: [...plan.steps, emptyStep(plan.steps.at(-1)?.hosts)] })}>
          Add a step
        </button>
      </div>
      <details className="more">
        <summary>More: priority, conversation, labels</summary>
        <div className="grid">
          <div className="field">
            <label htmlFor={`${id}-priority`}>Priority</label>
            <input id={`${id}-priority`} inputMode="numeric" value={plan.priority} aria-invalid={priority === undefined} aria-describedby={`${id}-priority-hint`} data-testid="task-priority" onChange={(event) => set({ priority: event.target.value })} />
            <p id={`${id}-priority-hint`} className={priority === undefined ? "under bad" : "under"}>-100 to 100; higher goes first in the queue</p>
          </div>
          <div className="field">
            <label htmlFor={`${id}-conversation`}>Conversation</label>
            <input id={`${id}-conversation`} maxLength={255} value={plan.conversation} spellCheck={false} onChange={(event) => set({ conversation: event.target.value })} />
            <p className="under">to find it by</p>
          </div>
          <div className="field">
            <label htmlFor={`${id}-labels`}>Labels</label>
            <input id={`${id}-labels`} value={plan.labels} spellCheck={false} autoCapitalize="none" aria-invalid={labels === undefined} aria-describedby={`${id}-labels-hint`} onChange={(event) => set({ labels: event.target.value })} />
            <p id={`${id}-labels-hint`} className={labels === undefined ? "under bad" : "under"}>{labels === undefined ? "key=value, with commas between them" : "team=db, ticket=17"}</p>
          </div>
        </div>
      </details>
      {problem !== undefined && (
        <Refused problem={problem.told}>
          {problem.fields.length > 0 && (
            <ul>
              {problem.fields.map((f) => (
                <li key={f.field}>
                  <code><Line text={f.field} /></code>: <Line text={f.message} />
                </li>
              ))}
            </ul>
          )}
        </Refused>
      )}
      <div className="actions">
        {/* No button of type submit: Enter in a field is easily pressed, and a plan is more than a line. */}
        <button type="button" className="primary" data-testid="submit-task" disabled={busy || !ready} onClick={() => void submit(false)}>
          {busy ? "Submitting…" : "Submit"}
        </button>
        <button type="button" data-testid="check-task" disabled={busy || !ready} title="Asks whether it would be accepted; nothing is stored" onClick={() => void submit(true)}>
          Check
        </button>
        <button type="button" onClick={onClose}>
          Close
        </button>
        <span role="status" data-testid="task-checked">
          {said}
        </span>
        <span className="faint wide">
          <kbd>Ctrl</kbd> <kbd>Enter</kbd> submits
        </span>
      </div>
    </form>
  );
}

// Where a step runs first, as far as that is known.
function firstHost(step: StepDraft, known: readonly Host[] = []): string {
  if (step.session.trim() !== "") return sessionNamed(step.session.trim())?.host ?? "";
  if (step.hostLabels.trim() === "") return hostsOf(step.hosts)[0] ?? "";
  const labels = Object.entries(labelsOf(step.hostLabels) ?? {});
  const has = (host: Host): boolean => labels.every(([key, value]) => host.labels[key] === value);
  return labels.length === 0 ? "" : (known.filter(has).map((host) => host.name).sort()[0] ?? "");
}

function StepForm({ id, at, last, step, mistakes, disabled, list, known, set, move, remove }: {
  id: string; at: number; last: number; step: StepDraft; mistakes: Record<string, string>; disabled: boolean; list: string; known: readonly Host[] | undefined;
  set: (part: Partial<StepDraft>) => void; move: (by: number) => void; remove: () => void;
}) {
  const on = hostsOf(step.hosts);
  const nth = `step ${at + 1}`;
  useSessions(); // which are open
  const rules = { host: firstHost(step, known), directory: step.directory.trim(), sudo: step.sudo.trim(), action: step.action.trim() };
  return (
    <li className="draft" data-testid="step-form">
      <fieldset disabled={disabled}>
        <legend>Step {at + 1}</legend>
        <div className="draft-acts">
          <button type="button" className="quiet" aria-label={`Move ${nth} up`} disabled={at === 0} onClick={() => move(-1)}>
            ↑
          </button>
          <button type="button" className="quiet" aria-label={`Move ${nth} down`} disabled={at === last} onClick={() => move(1)}>
            ↓
          </button>
          <button type="button" className="quiet" aria-label={`Remove ${nth}`} disabled={last === 0} onClick={remove}>
            ✕
          </button>
        </div>
        <div className="draft-main">
          <div className="field">
            <label htmlFor={`${id}-name`}>Name</label>
            <input id={`${id}-name`} value={step.name} placeholder={nth} spellCheck={false} autoComplete="off" aria-invalid={mistakes["name"] !== undefined} aria-describedby={`${id}-name-hint`} data-testid="step-name" onChange={(event) => set({ name: event.target.value })} />
            <p id={`${id}-name-hint`} className="under bad">{mistakes["name"]}</p>
          </div>
          <div className="field">
            <label htmlFor={`${id}-hosts`}>Hosts</label>
            <input id={`${id}-hosts`} list={list} className="mono" value={step.hosts} placeholder="web1, web2" spellCheck={false} autoCapitalize="none" autoComplete="off" aria-invalid={mistakes["hosts"] !== undefined} aria-describedby={`${id}-hosts-hint`} data-testid="step-hosts" onChange={(event) => set({ hosts: event.target.value })} />
            <p id={`${id}-hosts-hint`} className={mistakes["hosts"] === undefined ? "under" : "under bad"}>{mistakes["hosts"] ?? (on.length > 1 ? `${on.length} hosts` : "one, or several with commas")}</p>
          </div>
          <div className="field grow">
            <label htmlFor={`${id}-command`}>Command line</label>
            <textarea id={`${id}-command`} className="mono" rows={Math.min(8, Math.max(1, step.command.split("\n").length))} value={step.command} spellCheck={false} autoCapitalize="none" autoComplete="off" aria-describedby={`${id}-policy`} data-testid="step-command" onChange={(event) => set({ command: event.target.value })} />
            <PolicyHint id={`${id}-policy`} command={step.command} {...rules} />
          </div>
          <div className="field grow">
            <label htmlFor={`${id}-undo`}>Taken back by</label>
            <textarea id={`${id}-undo`} className="mono" rows={Math.min(8, Math.max(1, step.undo.split("\n").length))} value={step.undo} spellCheck={false} autoCapitalize="none" autoComplete="off" placeholder="nothing: it cannot be undone" aria-describedby={`${id}-undo-policy`} data-testid="step-undo" onChange={(event) => set({ undo: event.target.value })} />
            <PolicyHint id={`${id}-undo-policy`} command={step.undo} {...rules} />
          </div>
        </div>
        <div className="checks">
          <label>
            <input type="checkbox" checked={step.needsApproval} data-testid="step-approval" onChange={(event) => set({ needsApproval: event.target.checked })} /> Needs a yes
          </label>
          <label className="inline">
            When it fails
            <select value={step.onFailure} data-testid="step-on-failure" onChange={(event) => set({ onFailure: event.target.value })}>
              <option value="stop">stop</option>
              <option value="continue">go on</option>
              <option value="undo">undo what was done</option>
            </select>
          </label>
          <label className="inline">
            Timeout
            <input value={step.timeout} placeholder="none" aria-invalid={mistakes["timeout"] !== undefined} aria-describedby={`${id}-timeout-hint`} data-testid="step-timeout" onChange={(event) => set({ timeout: event.target.value })} />
          </label>
          <span id={`${id}-timeout-hint`} className="bad">{mistakes["timeout"]}</span>
        </div>
        <StepMore id={id} step={step} mistakes={mistakes} set={set} />
      </fieldset>
    </li>
  );
}

// What few steps need. It stands open where something of it is said.
function StepMore({ id, step, mistakes, set }: { id: string; step: StepDraft; mistakes: Record<string, string>; set: (part: Partial<StepDraft>) => void }) {
  const [open, setOpen] = useState(saysMore(step));
  const field = (key: "hostLabels" | "session" | "directory" | "sudo" | "action" | "retries" | "backoff" | "parallel" | "canary", name: string, hint: string) => (
    <Field
      id={`${id}-${key}`} name={name} value={step[key]} hint={mistakes[key] ?? hint} bad={mistakes[key] !== undefined} testid={`step-${key}`}
      mono={["session", "directory", "sudo", "action"].includes(key)} set={(value) => set({ [key]: value })}
    />
  );
  return (
    <details className="more" open={open} data-testid="step-more" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>More: host labels, session, directory, user, retry, several hosts</summary>
      <div className="grid">
        {field("hostLabels", "Host labels", "instead of hosts: all that have these, group=web, zone=a")}
        {field("session", "Session", "instead of hosts: the name of one that is open by then")}
        {field("directory", "Working directory", "absolute, or from the login directory")}
        {field("sudo", "As user (sudo)", "empty: as the login user")}
        {field("action", "Action type", "for rules that go by kind")}
        {field("retries", "Tried again", "1 to 20 times; only what may safely run twice")}
        {field("backoff", "The first wait", "5s, 2m, doubling with each; empty: 1s")}
        {field("parallel", "On so many hosts at once", "1 to 100; empty: 10")}
        {field("canary", "So many hosts first", "the others only where it has completed on these")}
      </div>
      <div className="checks">
        <label>
          <input type="checkbox" checked={step.goOn} aria-describedby={`${id}-goon-hint`} data-testid="step-goOn" onChange={(event) => set({ goOn: event.target.checked })} /> Goes on to other hosts where it has failed on one
        </label>
        <span id={`${id}-goon-hint`} className="bad">{mistakes["goOn"]}</span>
      </div>
    </details>
  );
}

// The whole plan of a task, read before one of its steps is decided.

import type { Step, Task } from "@telexec/client";
import { spelled, toSeconds } from "../format.ts";
import { stepTone, stepWord, whereOf } from "../taskwords.ts";
import { Line } from "./small.tsx";

/** at is the name of the step that is asked about. */
export function Plan({ task, at }: { task: Task; at: string }) {
  return (
    <section className="plan" aria-label="The task that the step is of" data-testid="plan">
      <p className="plan-text"><Line text={task.task} /></p>
      <ol tabIndex={0} aria-label={`${task.steps.length} steps`}>
        {task.steps.map((step, i) => (
          <PlanStep key={step.name} step={step} nth={i + 1} here={step.name === at} />
        ))}
      </ol>
    </section>
  );
}

function PlanStep({ step, nth, here }: { step: Step; nth: number; here: boolean }) {
  return (
    <li className={here ? "plan-step here" : "plan-step"} aria-current={here ? "step" : undefined} data-testid="plan-step">
      <span className="tabular faint">{nth}</span>
      <div className="plan-name">
        <strong><Line text={step.name} /></strong> <Hosts step={step} />
      </div>
      <span className={`plan-state tone-${stepTone(step.state)}`}>{stepWord(step.state)}</span>
      <code className="plan-line">
        <Line text={step.command} />
      </code>
      {step.undo !== "" && (
        <code className="plan-line faint">
          undo: <Line text={step.undo} />
        </code>
      )}
      <StepTerms step={step} />
    </li>
  );
}

/** So many hosts are named by themselves. */
const NAMED = 6;

// Who decides sees where it runs, all of it.
function Hosts({ step }: { step: Step }) {
  const names = step.runs.map((r) => r.host);
  if (names.length <= 1) return <span className="faint"><Line text={whereOf(step, names[0] ?? "")} /></span>;
  if (names.length <= NAMED) return <span className="faint">on <Line text={names.join(", ")} /></span>;
  return (
    <details className="faint" data-testid="plan-hosts">
      <summary>on {names.length} hosts</summary>
      <Line text={names.join(", ")} />
    </details>
  );
}

/** On so many hosts at once a step goes where nobody says. */
const USUAL = 10;

/** What goes for a step besides its command. */
export function StepTerms({ step }: { step: Step }) {
  const timeout = toSeconds(step.timeout);
  const terms = [
    step.needsApproval ? "needs a yes" : "",
    step.onFailure === "undo" ? "when it fails, all is undone" : step.onFailure === "continue" ? "when it fails, the next one runs" : "",
    timeout !== undefined ? `ended after ${spelled(timeout)}` : "",
    step.retry !== undefined ? `tried again up to ${step.retry.times}×, first after ${spelled(toSeconds(step.retry.backoff) ?? 1)}` : "",
    step.session !== "" ? `in session ${step.session}` : "",
    step.sudoUser !== "" ? `as ${step.sudoUser}` : "",
    step.workingDirectory !== "" ? `in ${step.workingDirectory}` : "",
    step.actionType !== "" ? `action ${step.actionType}` : "",
    step.runs.length > 1 && (step.rollout?.canary ?? 0) > 0 ? `first on ${step.rollout?.canary}` : "",
    step.runs.length > 1 && (step.rollout?.parallel ?? USUAL) !== USUAL && step.rollout?.parallel !== 0 ? `${step.rollout?.parallel} at once` : "",
    step.rollout?.goOn === true ? "goes on to other hosts where one fails" : "",
  ].filter((term) => term !== "");
  if (terms.length === 0) return null;
  return (
    <span className="terms">
      {terms.map((term) => (
        <span className="label" key={term}>
          <Line text={term} />
        </span>
      ))}
    </span>
  );
}

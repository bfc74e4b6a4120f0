// All tasks: what runs or waits for people, the queue in the order of its turns, both live, and below them the history.

import { memo, useEffect, useMemo, useRef, useState } from "react";
import { StepState, TaskState, UndoState, type Task } from "@telexec/client";
import { aborted, client, useConnection } from "../client.ts";
import { dateOf, originWord, parsePairs, spoken, toDate, toSeconds, toStamp } from "../format.ts";
import { useListKeys } from "../keys.ts";
import { learnTask, listen, useSyncs, useTasks } from "../live.ts";
import { FilterForm, TextFilter, TimeFilter } from "../parts/filters.tsx";
import { NewTask } from "../parts/newtask.tsx";
import { Elapsed, Empty, Failed, Labels, Line, Skeleton, Time, useTitle } from "../parts/small.tsx";
import { Percent, TaskMark, currentStep } from "../parts/task.tsx";
import { Link, navigate, usePlace, withQuery } from "../router.ts";
import { lacks, useSession } from "../session.ts";
import { historyOf, taskEnded } from "../taskstate.ts";
import { allTaskStates, hostsWords, taskKey, taskStateOf, taskWord, titleOf } from "../taskwords.ts";
import "../styles/tasks.css";

const PARAMS = ["state", "conversation", "label", "principal", "from", "to"];
const PAGE = 50;
/** How often the history is read anew where the service cannot say by itself what came and went. */
const POLL_MS = 5_000;

interface Filter {
  state: TaskState | undefined;
  conversation: string;
  labels: Record<string, string>;
  principal: string;
  from: Date | undefined;
  to: Date | undefined;
}

function filterOf(query: URLSearchParams): Filter {
  const date = (name: string): Date | undefined => {
    const text = query.get(name);
    return text === null ? undefined : dateOf(text);
  };
  return {
    state: taskStateOf(query.get("state") ?? ""),
    conversation: query.get("conversation") ?? "",
    labels: parsePairs(query.get("label") ?? "", /,/) ?? {},
    principal: query.get("principal") ?? "",
    from: date("from"),
    to: date("to"),
  };
}

function matches(task: Task, filter: Filter): boolean {
  const made = toDate(task.createTime);
  return (
    (filter.state === undefined || task.state === filter.state) &&
    (filter.conversation === "" || task.conversationId === filter.conversation) &&
    (filter.principal === "" || task.createdBy?.principal === filter.principal) &&
    Object.entries(filter.labels).every(([key, value]) => task.labels[key] === value) &&
    (filter.from === undefined || (made !== undefined && made >= filter.from)) &&
    (filter.to === undefined || (made !== undefined && made < filter.to))
  );
}

// Whose turn comes first; a place that has not been told yet is a late one.
function byTurn(a: Task, b: Task): number {
  const at = (t: Task): number => t.queue?.position ?? Infinity;
  return at(a) - at(b) || b.priority - a.priority || (a.id < b.id ? -1 : 1);
}

export default function TasksPage() {
  useTitle("Tasks");
  useListKeys("a.task-row");
  const place = usePlace();
  const session = useSession();
  const making = place.query.has("new");
  const filterKey = PARAMS.map((name) => place.query.get(name) ?? "").join("\n");
  const filter = useMemo(() => filterOf(place.query), [filterKey]);
  const filtered = filterKey.trim() !== "";
  const { active, synced, failed } = useTasks();
  const shown = active.filter((t) => matches(t, filter));
  const now = shown.filter((t) => t.state !== TaskState.QUEUED);
  const queue = shown.filter((t) => t.state === TaskState.QUEUED).sort(byTurn);
  useQueueAnew(active);
  const history = useHistory(filter, filterKey);
  // A filter by state leaves out the sections in which no task can be.
  const may = (...states: TaskState[]): boolean => filter.state === undefined || states.includes(filter.state);
  const barred = lacks(session, "operator");

  return (
    <section className="page" aria-label="Tasks">
      <div className="heading">
        <h1>Tasks</h1>
        {!making && (
          <button type="button" className="primary" data-testid="new-task" onClick={() => navigate(withQuery(place, { new: "1" }))}>
            New task
          </button>
        )}
      </div>
      {making && <NewTask onClose={() => navigate(withQuery(place, { new: "" }), { replace: true })} />}
      <Filters />
      {failed !== undefined && <Failed error={failed} retry={() => void listen()} />}
      {may(TaskState.RUNNING, TaskState.AWAITING_APPROVAL, TaskState.UNDOING) && (
        <section aria-labelledby="tasks-now">
          <h2 id="tasks-now">
            Now <span className="tabular faint">{now.length}</span>
          </h2>
          {now.length > 0 && (
            <ul className="rows" data-testid="tasks-now">
              {now.map((t) => (
                <Row key={t.id} task={t} />
              ))}
            </ul>
          )}
          {now.length === 0 && (synced ? <p className="faint quiet-line">{filtered ? "No task that matches runs or waits for people." : "No task runs or waits for people."}</p> : <Skeleton rows={1} />)}
        </section>
      )}
      {may(TaskState.QUEUED) && (
        <section aria-labelledby="tasks-queue">
          <h2 id="tasks-queue">
            Queue <span className="tabular faint">{queue.length}</span>
          </h2>
          {queue.length > 0 && <Queue tasks={queue} />}
          {queue.length === 0 && synced && <p className="faint quiet-line">{filtered ? "No task that matches waits for its turn." : "No task waits for its turn."}</p>}
        </section>
      )}
      {may(...allTaskStates.filter(taskEnded)) && (
        <section aria-labelledby="tasks-history">
          <h2 id="tasks-history">History</h2>
          {history.tasks.length > 0 && (
            <ul className="rows" data-testid="tasks-history">
              {history.tasks.map((t) => (
                <Row key={t.id} task={t} />
              ))}
            </ul>
          )}
          {history.loading && history.tasks.length === 0 && <Skeleton rows={4} />}
          {history.error !== undefined && <Failed error={history.error} retry={history.more} />}
          {!history.loading && history.error === undefined && history.tasks.length === 0 && !history.rest && (
            <Empty title={filtered ? "No task matches the filters." : "No task has ended yet."}>
              {filtered ? (
                <Link to="/tasks">Show all tasks</Link>
              ) : barred === undefined ? (
                "A task is several steps, one after the other; some may wait for a yes, and what was done can be taken back."
              ) : (
                "What others submit shows here."
              )}
            </Empty>
          )}
          {history.rest && history.error === undefined && (
            <button type="button" className="more-button" data-testid="load-more" disabled={history.loading} onClick={history.more}>
              {history.loading ? "Loading…" : "Load more"}
            </button>
          )}
        </section>
      )}
    </section>
  );
}

function Queue({ tasks }: { tasks: readonly Task[] }) {
  return (
    <div className="queue-box">
      <table className="queue" data-testid="queue">
        <thead>
          <tr>
            <th scope="col">Place</th>
            <th scope="col">Wait, about</th>
            <th scope="col">Priority</th>
            <th scope="col">Task</th>
            <th scope="col">By</th>
            <th scope="col">Has waited</th>
          </tr>
        </thead>
        <tbody>
          {tasks.map((t) => {
            const wait = toSeconds(t.queue?.estimatedWait);
            return (
              <tr key={t.id} data-testid="queue-row" data-id={t.id} data-position={t.queue?.position ?? ""}>
                <td className="tabular">{t.queue?.position ?? "–"}</td>
                <td className="tabular" data-testid="queue-wait">{wait === undefined ? <span className="faint" title="Nothing has ended yet by which to tell">unknown</span> : spoken(wait)}</td>
                <td className="tabular">{t.priority}</td>
                <td className="queue-task">
                  <Link to={`/tasks/${t.id}`} className="task-row">
                    <Line text={titleOf(t)} />
                  </Link>
                </td>
                <td className="cut"><Line text={t.createdBy?.principal ?? ""} /></td>
                <td className="tabular"><Elapsed from={toDate(t.createTime)} /></td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

const Row = memo(function Row({ task }: { task: Task }) {
  const ended = taskEnded(task.state);
  const step = currentStep(task);
  const undoing = task.state === TaskState.UNDOING;
  const waits = undoing ? step?.undoState === UndoState.AWAITING_APPROVAL : step?.state === StepState.AWAITING_APPROVAL;
  const began = toDate(task.startTime) ?? toDate(task.createTime);
  return (
    <li>
      <Link to={`/tasks/${task.id}`} className={ended ? "command-row task-row" : "command-row task-row active"} data-testid="task-row" data-id={task.id}>
        <span className="c-state">
          <TaskMark task={task} />
        </span>
        <span className="c-line">
          <span className="cut"><Line text={titleOf(task)} /></span>
          <span className="c-more">
            {!ended && <Percent of={task.percent} label={undoing ? "Undone" : "Done"} />}
            {!ended && step !== undefined && (
              <span className="cut">
                {waits ? "waits for a yes: " : ""}
                {undoing ? "undoing " : ""}step {task.currentStep + 1} of {task.steps.length}: <Line text={step.name} />
              </span>
            )}
            {ended && task.failure !== undefined && <span className="cut"><Line text={task.failure.message} /></span>}
            {ended && task.failure === undefined && <span>{task.steps.length === 1 ? "1 step" : `${task.steps.length} steps`}</span>}
            {task.conversationId !== "" && (
              <span className="cut">
                in <Line text={task.conversationId} />
              </span>
            )}
            <Labels labels={task.labels} />
          </span>
        </span>
        <span className="c-host cut"><Line text={hostsWords(ended || step === undefined ? task.steps : [step])} /></span>
        <span className="c-who cut">
          <Line text={task.createdBy?.principal ?? ""} /> <span className="faint">{originWord(task.createdBy?.origin)}</span>
        </span>
        <span className="c-exit tabular faint">{task.priority !== 0 && `prio ${task.priority}`}</span>
        <span className="c-took tabular">
          <Elapsed from={began} to={ended ? toDate(task.endTime) ?? toDate(task.createTime) : undefined} />
        </span>
        <span className="c-when">
          <Time at={toDate(task.createTime)} />
        </span>
      </Link>
    </li>
  );
});

// Who comes or goes moves others, of whom not each is told at once, and changes how long all wait: then the queue is asked for.
function useQueueAnew(active: readonly Task[]): void {
  const waiting = active.filter((t) => t.state === TaskState.QUEUED).map((t) => t.id).join();
  useEffect(() => {
    if (waiting === "") return undefined;
    const stop = new AbortController();
    const soon = setTimeout(() => {
      client.listTasks({ states: [TaskState.QUEUED], pageSize: 1000 }, { signal: stop.signal }).page().then(
        (page) => page.tasks.forEach(learnTask),
        () => undefined, // what is known stays
      );
    }, 250);
    return () => {
      clearTimeout(soon);
      stop.abort();
    };
  }, [waiting]);
}

// useHistory reads pages of what has ended, and puts in what ends meanwhile. What has not ended is no history.
function useHistory(filter: Filter, key: string) {
  const [pages, setPages] = useState<{ key: string; all: Map<string, Task>; next: string }>();
  const [loading, setLoading] = useState(true);
  const [error, setError] = useState<unknown>();
  const stop = useRef<AbortController>(undefined);
  const { active, ended } = useTasks();
  const syncs = useSyncs();
  const polling = useConnection().state === "polling";
  const wanted = filter.state === undefined || taskEnded(filter.state);
  const loaded = pages?.key === key ? pages : undefined;
  const held = useRef(loaded);
  held.current = loaded;

  // The page behind those that are there, or the first one anew.
  const load = async (before: typeof pages, again = false): Promise<void> => {
    stop.current?.abort();
    const { signal } = (stop.current = new AbortController());
    if (!again) setLoading(true);
    setError(undefined);
    try {
      const states = filter.state === undefined ? allTaskStates.filter(taskEnded) : [filter.state];
      const page = await client
        .listTasks(
          {
            states, conversationId: filter.conversation, principal: filter.principal, labels: filter.labels, pageSize: PAGE,
            ...(filter.from === undefined ? {} : { dateFrom: toStamp(filter.from) }),
            ...(filter.to === undefined ? {} : { dateTo: toStamp(filter.to) }),
          },
          { signal },
        )
        .page(again ? undefined : before?.next);
      if (signal.aborted) return;
      // Read anew, it goes on where the pages are that are there; unless there is more between them.
      const joins = again && (before?.all.size ?? 0) > 0 && (page.nextPageToken === "" || page.tasks.some((t) => before?.all.has(t.id)));
      const all = new Map(again && !joins ? [] : before?.all);
      for (const task of page.tasks) {
        const newest = learnTask(task);
        if (taskEnded(newest.state)) all.set(task.id, newest);
      }
      setPages({ key, all, next: joins ? (before?.next ?? "") : page.nextPageToken });
      setLoading(false);
    } catch (failure) {
      if (aborted(failure) || signal.aborted) return;
      setError(failure);
      setLoading(false);
    }
  };
  useEffect(() => {
    if (wanted) void load(undefined);
    return () => stop.current?.abort();
  }, [key]);
  const first = useRef(syncs);
  useEffect(() => {
    if (first.current === syncs) return;
    first.current = syncs;
    if (held.current !== undefined) void load(held.current, true);
  }, [syncs]);
  useEffect(() => {
    if (!polling) return undefined;
    const again = setInterval(() => {
      if (held.current !== undefined && document.visibilityState !== "hidden") void load(held.current, true);
    }, POLL_MS);
    return () => clearInterval(again);
  }, [polling, key]);

  const tasks = useMemo(() => (loaded === undefined ? [] : historyOf(loaded, active, ended, (t) => matches(t, filter))), [loaded, active, ended, filter]);
  return { tasks, loading, error, rest: loaded !== undefined && loaded.next !== "", more: () => void load(loaded) };
}

function Filters() {
  const place = usePlace();
  const me = useSession()?.principal ?? "";
  const value = (name: string): string => place.query.get(name) ?? "";
  const set = (name: string, text: string): void => navigate(withQuery(place, { [name]: text }), { replace: true });
  const mine = me !== "" && value("principal") === me;
  return (
    <FilterForm
      of="tasks"
      params={PARAMS}
      acts={
        <button type="button" aria-pressed={mine} disabled={me === ""} data-testid="only-mine" onClick={() => set("principal", mine ? "" : me)}>
          Only mine
        </button>
      }
    >
      <label>
        State
        <select value={value("state")} data-testid="filter-state" onChange={(event) => set("state", event.target.value)}>
          <option value="">any</option>
          {allTaskStates.map((s) => (
            <option key={s} value={taskKey(s)}>
              {taskWord(s)}
            </option>
          ))}
        </select>
      </label>
      <TextFilter name="Conversation" param="conversation" />
      <TextFilter name="Label" param="label" hint="key=value" />
      <TextFilter name="Who" param="principal" />
      <TimeFilter name="From" param="from" />
      <TimeFilter name="To" param="to" />
    </FilterForm>
  );
}

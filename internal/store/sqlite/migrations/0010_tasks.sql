-- Tasks: what was asked for, how far it has come, and what has happened. A row of task,
-- and those of the runs that have changed, are written anew with every change.
CREATE TABLE task (
  id                TEXT    NOT NULL PRIMARY KEY,
  principal         TEXT    NOT NULL,
  origin            TEXT    NOT NULL,
  roles             BLOB,             -- packed
  create_time       INTEGER NOT NULL,
  request_id        TEXT    NOT NULL,
  text              TEXT    NOT NULL,
  priority          INTEGER NOT NULL,
  conversation      TEXT    NOT NULL,
  context           BLOB,             -- packed
  labels            BLOB,             -- packed

  version           INTEGER NOT NULL,
  state             TEXT    NOT NULL,
  start_time        INTEGER NOT NULL,
  end_time          INTEGER NOT NULL,
  failure           BLOB,             -- packed; NULL: none
  cancellation      BLOB,             -- packed; NULL: none
  undo              BLOB,             -- packed; NULL: none
  outcome           TEXT    NOT NULL,
  sequence          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Lists are by falling id, which the primary key appends to each of these.
CREATE INDEX task_state        ON task (state);
CREATE INDEX task_principal    ON task (principal);
CREATE INDEX task_conversation ON task (conversation) WHERE conversation <> '';
-- What retention looks for.
CREATE INDEX task_end          ON task (end_time) WHERE end_time > 0;

-- Commands that are steps of a task.
ALTER TABLE command ADD COLUMN task TEXT NOT NULL DEFAULT ''; -- its id; not a reference: either may go first
CREATE INDEX command_task ON command (task) WHERE task <> '';
ALTER TABLE command_spec ADD COLUMN task BLOB;                -- packed; NULL: it is no step

CREATE TABLE task_label (
  name              TEXT    NOT NULL,
  value             TEXT    NOT NULL,
  task              TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
  PRIMARY KEY (name, value, task)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_label_task ON task_label (task);

-- Which task a request id has made.
CREATE TABLE task_request (
  principal         TEXT    NOT NULL,
  request_id        TEXT    NOT NULL,
  task              TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
  hash              BLOB    NOT NULL,
  create_time       INTEGER NOT NULL,
  PRIMARY KEY (principal, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_request_time ON task_request (create_time);
CREATE INDEX task_request_task ON task_request (task);

-- The steps, as they were asked for.
CREATE TABLE task_step (
  task              TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
  step              INTEGER NOT NULL, -- from 0
  name              TEXT    NOT NULL,
  line              TEXT    NOT NULL,
  argv              BLOB,             -- packed
  session           TEXT    NOT NULL,
  directory         TEXT    NOT NULL,
  sudo_user         TEXT    NOT NULL,
  action_type       TEXT    NOT NULL,
  undo              TEXT    NOT NULL,
  needs_approval    INTEGER NOT NULL,
  on_failure        TEXT    NOT NULL,
  timeout           INTEGER NOT NULL,
  retry_times       INTEGER NOT NULL,
  retry_backoff     INTEGER NOT NULL,
  parallel          INTEGER NOT NULL,
  canary            INTEGER NOT NULL,
  go_on             INTEGER NOT NULL,

  approved_line     TEXT    NOT NULL, -- what runs instead
  approved_argv     BLOB,             -- packed
  approved_timeout  INTEGER NOT NULL,
  PRIMARY KEY (task, step)
) STRICT, WITHOUT ROWID;

-- Each step on each of its hosts.
CREATE TABLE task_run (
  task              TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
  step              INTEGER NOT NULL,
  run               INTEGER NOT NULL, -- from 0

  host              TEXT    NOT NULL, -- of one in a session empty, until its command is known
  session           TEXT    NOT NULL, -- id of that, from then on
  state             TEXT    NOT NULL,
  command           TEXT    NOT NULL, -- id; not a reference: either may go first
  earlier           BLOB,             -- packed
  exit_code         INTEGER,          -- NULL: the host reported none
  failure           BLOB,             -- packed; NULL: none
  admitted          INTEGER NOT NULL,
  percent           REAL    NOT NULL,
  start_time        INTEGER NOT NULL,
  end_time          INTEGER NOT NULL,
  retry_time        INTEGER NOT NULL,
  undo_state        TEXT    NOT NULL,
  undo_command      TEXT    NOT NULL,
  undo_failure      BLOB,             -- packed; NULL: none
  undo_start_time   INTEGER NOT NULL,
  undo_end_time     INTEGER NOT NULL,
  PRIMARY KEY (task, step, run)
) STRICT, WITHOUT ROWID;

-- What has happened. Append-only.
CREATE TABLE task_event (
  task              TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
  sequence          INTEGER NOT NULL,
  time              INTEGER NOT NULL,
  type              TEXT    NOT NULL,
  state             TEXT    NOT NULL,
  task_percent      REAL    NOT NULL,
  message           TEXT    NOT NULL,
  step              INTEGER NOT NULL, -- -1: about none
  host              TEXT    NOT NULL,
  command           TEXT    NOT NULL,
  step_state        TEXT    NOT NULL,
  undo_state        TEXT    NOT NULL,
  percent           REAL    NOT NULL,
  exit_code         INTEGER,          -- NULL: none was told
  failure           BLOB,             -- packed; NULL: none
  position          INTEGER,          -- NULL: it is not about the queue
  estimated_wait    INTEGER,
  PRIMARY KEY (task, sequence)
) STRICT, WITHOUT ROWID;

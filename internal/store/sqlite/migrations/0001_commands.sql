-- Times are microseconds since 1970 in UTC, 0 for "not yet"; durations are
-- nanoseconds; ids are text. Names and lines are bytes that need not be UTF-8.

-- What became of a command, and what it is found by. Rows are small, for they
-- are written anew with every change: what never changes is in command_spec.
CREATE TABLE command (
  id                TEXT    NOT NULL PRIMARY KEY,
  host              TEXT    NOT NULL,
  principal         TEXT    NOT NULL,
  origin            TEXT    NOT NULL,
  create_time       INTEGER NOT NULL,

  version           INTEGER NOT NULL,
  state             TEXT    NOT NULL,
  node              TEXT    NOT NULL,
  fence             INTEGER NOT NULL,
  start_time        INTEGER NOT NULL,
  end_time          INTEGER NOT NULL,
  last_activity     INTEGER NOT NULL,
  exit_code         INTEGER,          -- NULL: the host reported none
  exit_signal       TEXT    NOT NULL,
  core_dumped       INTEGER NOT NULL,
  failure_reason    TEXT,             -- NULL: no failure
  failure_message   TEXT,
  failure_hint      TEXT,
  completion        TEXT    NOT NULL,
  connection        TEXT    NOT NULL,
  durability        TEXT    NOT NULL,
  durability_reason TEXT    NOT NULL,
  cancel_principal  TEXT,             -- NULL: no cancel was asked for
  cancel_origin     TEXT,
  cancel_time       INTEGER,
  cancel_reason     TEXT,
  cancel_report     BLOB,             -- packed; NULL: under way
  progress_percent  REAL,
  progress_label    TEXT,             -- NULL: no progress
  progress_time     INTEGER,
  truncated_stdout  INTEGER,
  truncated_stderr  INTEGER,
  truncated_reason  TEXT,             -- NULL: not truncated
  size_stdout       INTEGER NOT NULL,
  size_stderr       INTEGER NOT NULL,
  stdin_closed      INTEGER NOT NULL,

  -- The store's own: the first byte that is stored, the offset behind the last
  -- one, and, once the command has ended, the larger difference of the two.
  earliest_stdout   INTEGER NOT NULL,
  earliest_stderr   INTEGER NOT NULL,
  stored_stdout     INTEGER NOT NULL,
  stored_stderr     INTEGER NOT NULL,
  kept              INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Lists are by falling id, which the primary key appends to each of these.
CREATE INDEX command_state     ON command (state);
CREATE INDEX command_host      ON command (host);
CREATE INDEX command_principal ON command (principal);
CREATE INDEX command_origin    ON command (origin);
-- What retention looks for.
CREATE INDEX command_end       ON command (end_time) WHERE end_time > 0;
CREATE INDEX command_kept      ON command (kept, end_time) WHERE kept > 0;

-- What was asked for. Never changed.
CREATE TABLE command_spec (
  command           TEXT    NOT NULL PRIMARY KEY REFERENCES command (id) ON DELETE CASCADE,
  request_id        TEXT    NOT NULL,
  line              TEXT    NOT NULL,
  argv              BLOB,             -- packed
  stdin_open        INTEGER NOT NULL,
  env_names         BLOB,             -- packed
  working_directory TEXT    NOT NULL,
  login_shell       INTEGER NOT NULL,
  pty_term          TEXT,             -- NULL: no pseudo-terminal
  pty_columns       INTEGER,
  pty_rows          INTEGER,
  timeout           INTEGER NOT NULL,
  queue_timeout     INTEGER NOT NULL,
  priority          INTEGER NOT NULL,
  durability        TEXT    NOT NULL,
  labels            BLOB,             -- packed
  action_type       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- What only the start needs and what may be secret. Removed after the start.
CREATE TABLE command_start (
  command           TEXT    NOT NULL PRIMARY KEY REFERENCES command (id) ON DELETE CASCADE,
  env               BLOB,             -- packed: names and values
  stdin             BLOB
) STRICT;

-- Labels once more, to be found by. No foreign key: the check would need another
-- index; retention removes these rows itself.
CREATE TABLE command_label (
  name              TEXT    NOT NULL,
  value             TEXT    NOT NULL,
  command           TEXT    NOT NULL,
  PRIMARY KEY (name, value, command)
) STRICT, WITHOUT ROWID;

-- With a rowid: bulk output is stored 1.4 times as fast as without, and a short
-- piece as fast.
CREATE TABLE output_chunk (
  command           TEXT    NOT NULL REFERENCES command (id) ON DELETE CASCADE,
  stream            INTEGER NOT NULL, -- 0 stdout, 1 stderr
  "offset"          INTEGER NOT NULL,
  data              BLOB    NOT NULL,
  PRIMARY KEY (command, stream, "offset")
) STRICT;

-- Which command a principal's request id names, and what it asked for.
CREATE TABLE request (
  principal         TEXT    NOT NULL,
  request_id        TEXT    NOT NULL,
  command           TEXT    NOT NULL,
  hash              BLOB    NOT NULL,
  create_time       INTEGER NOT NULL,
  PRIMARY KEY (principal, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_create_time ON request (create_time);

-- What became of a shared terminal, and what it is found by. A row is written anew
-- with every change of the session, which are few; its output is not here.
CREATE TABLE session (
  id                TEXT    NOT NULL PRIMARY KEY,
  name              TEXT    NOT NULL,
  host              TEXT    NOT NULL,
  principal         TEXT    NOT NULL,
  origin            TEXT    NOT NULL,
  create_time       INTEGER NOT NULL,

  -- What was asked for. Never changed.
  asked_shell       TEXT    NOT NULL,
  asked_term        TEXT    NOT NULL,
  asked_columns     INTEGER NOT NULL,
  asked_rows        INTEGER NOT NULL,
  asked_keeper      TEXT    NOT NULL,
  idle_timeout      INTEGER NOT NULL,
  labels            BLOB,             -- packed

  version           INTEGER NOT NULL,
  state             TEXT    NOT NULL,
  open_time         INTEGER NOT NULL,
  end_time          INTEGER NOT NULL,
  last_activity     INTEGER NOT NULL,
  expire_time       INTEGER NOT NULL, -- 0: never
  shell             TEXT    NOT NULL,
  completion        TEXT    NOT NULL,
  keeper            TEXT    NOT NULL,
  keeper_reason     TEXT    NOT NULL,
  connection        TEXT    NOT NULL,
  columns           INTEGER NOT NULL,
  rows              INTEGER NOT NULL,
  title             TEXT    NOT NULL,
  output            INTEGER NOT NULL,
  end_reason        TEXT,             -- NULL: it has no end
  end_message       TEXT,
  end_hint          TEXT,
  exit_code         INTEGER,          -- NULL: the host reported none
  nonce             BLOB,             -- sealed; NULL: none
  recorded          INTEGER NOT NULL,
  truncated         INTEGER           -- NULL: the recording has all of it
) STRICT, WITHOUT ROWID;

-- One that has not ended has its name for itself.
CREATE UNIQUE INDEX session_open ON session (name) WHERE state <> 'ENDED';

-- Lists are by falling id, which the primary key appends to each of these.
CREATE INDEX session_state     ON session (state);
CREATE INDEX session_host      ON session (host);
CREATE INDEX session_principal ON session (principal);
CREATE INDEX session_name      ON session (name);
-- What retention looks for.
CREATE INDEX session_end       ON session (end_time) WHERE end_time > 0;

-- What is recorded of it: bytes in a file, of which a row has a run of up to 4 MiB
-- that begins at a multiple of that. The last one grows.
CREATE TABLE session_recording (
  session           TEXT    NOT NULL REFERENCES session (id) ON DELETE CASCADE,
  "offset"          INTEGER NOT NULL,
  length            INTEGER NOT NULL,
  sums              BLOB    NOT NULL, -- of its blocks
  PRIMARY KEY (session, "offset")
) STRICT, WITHOUT ROWID;

-- Commands that run in a session.
ALTER TABLE command ADD COLUMN session        TEXT    NOT NULL DEFAULT ''; -- its id; not a reference: either may go first
ALTER TABLE command ADD COLUMN session_offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE command ADD COLUMN session_owner  TEXT    NOT NULL DEFAULT ''; -- who opened that
CREATE INDEX command_session       ON command (session)       WHERE session <> '';
CREATE INDEX command_session_owner ON command (session_owner) WHERE session_owner <> '';

ALTER TABLE command_spec ADD COLUMN session TEXT    NOT NULL DEFAULT '';   -- its name
ALTER TABLE command_spec ADD COLUMN typed   INTEGER NOT NULL DEFAULT 0;

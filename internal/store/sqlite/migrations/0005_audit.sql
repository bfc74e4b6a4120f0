-- What was done, by whom: the chain of package audit. text is what hash is of; the
-- columns behind it are there to be found by, and tell the same. Append-only.
CREATE TABLE audit (
  seq               INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
  prev              BLOB    NOT NULL,
  hash              BLOB    NOT NULL,
  text              BLOB    NOT NULL,
  time              INTEGER NOT NULL,
  kind              TEXT    NOT NULL,
  principal         TEXT    NOT NULL,
  host              TEXT    NOT NULL,
  command           TEXT    NOT NULL  -- its id; not a reference: the audit stays
) STRICT;

-- Rows by what they tell: word is a letter for the column and its value. Up to the
-- row that audit_head.indexed names; the few behind it are looked through.
CREATE TABLE audit_index (
  word              TEXT    NOT NULL,
  seq               INTEGER NOT NULL,
  PRIMARY KEY (word, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

-- The end of the chain: one row, made with the table, written with every transaction
-- that adds to the chain.
CREATE TABLE audit_head (
  one               INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  seq               INTEGER NOT NULL,
  hash              BLOB    NOT NULL,
  tag               BLOB    NOT NULL, -- over all of it; only the service's key makes it
  indexed           INTEGER NOT NULL, -- the last row that is in audit_index
  latest            INTEGER NOT NULL, -- the latest time of all entries, and of commands from before this table
  back              INTEGER NOT NULL  -- by how many microseconds at most an entry was earlier than one before it
) STRICT;

-- What a command waits for or has waited for.
CREATE TABLE approval (
  command           TEXT    NOT NULL PRIMARY KEY REFERENCES command (id) ON DELETE CASCADE,
  version           INTEGER NOT NULL,
  state             TEXT    NOT NULL,
  rule              TEXT    NOT NULL,
  count             INTEGER NOT NULL,
  roles             BLOB,             -- packed
  allow_self        INTEGER NOT NULL,
  deadline          INTEGER NOT NULL,
  requester         TEXT    NOT NULL,
  requester_origin  TEXT    NOT NULL,
  requester_roles   BLOB,             -- packed
  host              TEXT    NOT NULL,
  target            TEXT    NOT NULL,
  line              TEXT    NOT NULL,
  revision          INTEGER NOT NULL,
  author            TEXT    NOT NULL,
  author_origin     TEXT    NOT NULL,
  hash              BLOB,
  create_time       INTEGER NOT NULL,
  decide_time       INTEGER NOT NULL,
  decisions         BLOB              -- packed
) STRICT, WITHOUT ROWID;

CREATE INDEX approval_state     ON approval (state);
CREATE INDEX approval_requester ON approval (requester);
CREATE INDEX approval_host      ON approval (host);

-- approval.roles, to be found by.
CREATE TABLE approval_role (
  role              TEXT    NOT NULL,
  command           TEXT    NOT NULL REFERENCES approval (command) ON DELETE CASCADE,
  PRIMARY KEY (role, command)
) STRICT, WITHOUT ROWID;

CREATE INDEX approval_role_command ON approval_role (command);

-- Keys of the API. Of the token only a hash is here.
CREATE TABLE api_key (
  id                TEXT    NOT NULL PRIMARY KEY,
  name              TEXT    NOT NULL,
  hash              BLOB    NOT NULL,
  roles             BLOB,             -- packed
  limit_start       REAL    NOT NULL,
  limit_read        REAL    NOT NULL,
  limit_list        REAL    NOT NULL,
  limit_stream      REAL    NOT NULL,
  limit_streams     INTEGER NOT NULL,
  created_by        TEXT    NOT NULL,
  create_time       INTEGER NOT NULL,
  expire_time       INTEGER NOT NULL, -- 0: never
  revoke_time       INTEGER NOT NULL, -- 0: not revoked
  last_use          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoke_time = 0;

-- Which rule of the policy let a command in, and whether it wants an approval.
ALTER TABLE command ADD COLUMN rule  TEXT    NOT NULL DEFAULT '';
ALTER TABLE command ADD COLUMN gated INTEGER NOT NULL DEFAULT 0;

-- Where sealed is 1, env and stdin are sealed. Rows of earlier versions are not.
ALTER TABLE command_start ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;

-- Values to be masked in the output, packed and sealed. Removed with the end.
CREATE TABLE command_redact (
  command           TEXT    NOT NULL PRIMARY KEY REFERENCES command (id) ON DELETE CASCADE,
  sealed            BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

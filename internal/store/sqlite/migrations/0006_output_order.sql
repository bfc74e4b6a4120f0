-- In which order the bytes of both streams came: waypoints, some with each change
-- that has any. A command without rows has had all its stdout before its stderr.
CREATE TABLE output_order (
  command           TEXT    NOT NULL REFERENCES command (id) ON DELETE CASCADE,
  position          INTEGER NOT NULL, -- of the first waypoint of the row: the sum of its offsets
  stdout            INTEGER NOT NULL, -- and the one in stdout
  points            BLOB    NOT NULL, -- packed: how far each next one lies behind it in both
  PRIMARY KEY (command, position)
) STRICT, WITHOUT ROWID;

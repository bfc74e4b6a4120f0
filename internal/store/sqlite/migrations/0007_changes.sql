-- The number of a command's last change, in the order of the commits of the whole
-- store. Those that are here already have changed in the order of their ids.
ALTER TABLE command ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;

UPDATE command SET changed = numbered.n
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM command) AS numbered
  WHERE command.id = numbered.id;

CREATE INDEX command_changed ON command (changed);

-- What the last number never falls below: that of any command that was deleted.
CREATE TABLE change_floor (
  one               INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  number            INTEGER NOT NULL
) STRICT;

INSERT INTO change_floor (one, number) VALUES (1, 0);

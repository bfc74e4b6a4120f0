-- As whom a command is run through sudo. The password that may belong to it is
-- never stored; that there was one is, since without it there is no start.
ALTER TABLE command_spec ADD COLUMN sudo_user           TEXT;    -- NULL: no sudo
ALTER TABLE command_spec ADD COLUMN sudo_needs_password INTEGER; -- NULL: no sudo

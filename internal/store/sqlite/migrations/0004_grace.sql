-- How long after cancel_time what a cancel ends is killed. NULL where no cancel was
-- asked for, or by an earlier version, which kept none: then it is the default.
-- 0 is another thing: at once.
ALTER TABLE command ADD COLUMN cancel_grace INTEGER;

-- Whether what runs in a session is alone, so that the next end which a mark tells is
-- its own. Of those that are here already nobody knows.
ALTER TABLE session ADD COLUMN sole INTEGER NOT NULL DEFAULT 0;

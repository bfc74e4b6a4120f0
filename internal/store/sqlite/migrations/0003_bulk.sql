-- Bulk output lies in files beside the database, at the same offsets. Where filed
-- is not NULL, so many bytes of the row lie there, and data has their checksums.
ALTER TABLE output_chunk ADD COLUMN filed INTEGER;

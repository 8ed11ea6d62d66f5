-- What the open lots of a checkpoint sum to, so that a replay that goes on from it need not read them all. NULL beside a
-- state that was written before: its lots are then summed.
ALTER TABLE segment ADD COLUMN sums bytea;

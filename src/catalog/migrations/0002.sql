-- Runs are counted within their stream: clocks are set back, and two runs fit into one second.
ALTER TABLE runs ADD COLUMN number INTEGER NOT NULL DEFAULT 0;

-- Runs and bundles are known by their numbers, which stand in the names of their records: so these tables are made again
-- without reading a record. They are compared with the records whenever a store is opened, and begin empty.
DROP TABLE runs;
DROP TABLE bundles;
DROP TABLE filled;

CREATE TABLE runs (
    stream TEXT    NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (stream, number)
) STRICT, WITHOUT ROWID;

-- One row for each number that was given to a bundle, whether it was ever written or not.
CREATE TABLE bundles (
    stream   TEXT    NOT NULL,
    epoch    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (stream, epoch, sequence)
) STRICT, WITHOUT ROWID;

-- The digests of the chunks of a blob are followed by a check of the row, see CHECK_SIZE. Rows without one count as none.

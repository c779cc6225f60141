-- What the store holds, by digest. A row is written after its blob is durable, and is never the proof that the blob
-- is there: that is the file. It spares reading the blob again for the digests of its chunks.
CREATE TABLE blobs (
    digest BLOB    NOT NULL PRIMARY KEY,   -- algorithm (1: sha256, 2: sha512), then the raw digest
    size   INTEGER NOT NULL,
    chunks BLOB    NOT NULL                -- 32 bytes for each chunk
) STRICT, WITHOUT ROWID;

-- One row for each run of a stream; the record is the truth.
CREATE TABLE runs (
    stream  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    started TEXT    NOT NULL,
    PRIMARY KEY (stream, number)
) STRICT, WITHOUT ROWID;

-- One row for each number that was given to a bundle, whether it was ever written or not.
CREATE TABLE bundles (
    stream   TEXT    NOT NULL,
    epoch    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    digest   TEXT    NOT NULL,             -- of bundle.json
    PRIMARY KEY (stream, epoch, sequence)
) STRICT, WITHOUT ROWID;

-- One row once the tables above have been filled from the records that were there before this file.
CREATE TABLE filled (at TEXT NOT NULL) STRICT;

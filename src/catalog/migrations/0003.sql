-- What `index.json` lists of each stream, as it stands there, as of that run. It spares reading the records of all other
-- streams when one has changed. A row that is not as of its stream's latest run, or whose check is wrong, is made anew.
CREATE TABLE listings (
    stream  TEXT    NOT NULL PRIMARY KEY,
    run     INTEGER NOT NULL,
    entries TEXT    NOT NULL,
    "check" BLOB    NOT NULL               -- see CHECK_SIZE
) STRICT;

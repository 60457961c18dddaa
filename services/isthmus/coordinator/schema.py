"""The coordinator's tables. A change here raises `VERSION`."""

from __future__ import annotations

VERSION = 3

TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, person TEXT NOT NULL, work TEXT NOT NULL, request BLOB NOT NULL, progress BLOB NOT NULL,
    state TEXT NOT NULL, model TEXT, created_at INTEGER NOT NULL, finished_at INTEGER
) STRICT;
CREATE INDEX running ON jobs (state) WHERE state = 'running';
CREATE TABLE orders (
    id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs, zone TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (job, zone)
) STRICT;
CREATE TABLE updates (
    crossing TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs, zone TEXT NOT NULL, slot INTEGER NOT NULL,
    vehicles INTEGER NOT NULL, windows INTEGER NOT NULL,
    UNIQUE (job, slot, zone)
) STRICT;
CREATE TABLE evaluations (
    crossing TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs, zone TEXT NOT NULL, slot INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE questions (job TEXT PRIMARY KEY REFERENCES jobs, columns BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
    crossing TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs, zone TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (job, zone)
) STRICT;
CREATE TABLE models (
    job TEXT NOT NULL REFERENCES jobs, slot INTEGER NOT NULL, digest TEXT NOT NULL, record BLOB NOT NULL,
    lineage INTEGER NOT NULL,
    PRIMARY KEY (job, slot)
) STRICT;
CREATE INDEX models_by_digest ON models (digest);
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs, ordinal INTEGER NOT NULL, event TEXT NOT NULL, site TEXT, slot INTEGER,
    code TEXT, round_us INTEGER, at INTEGER NOT NULL,
    PRIMARY KEY (job, ordinal)
) STRICT, WITHOUT ROWID;
CREATE TABLE ignored (
    ordinal INTEGER PRIMARY KEY, crossing TEXT NOT NULL, event TEXT NOT NULL, kind TEXT NOT NULL, sender TEXT NOT NULL,
    job TEXT NOT NULL, slot INTEGER NOT NULL, code TEXT, at INTEGER NOT NULL
) STRICT;
CREATE TABLE acknowledgements (crossing TEXT PRIMARY KEY) STRICT;
CREATE TABLE submissions (
    person TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, job TEXT NOT NULL REFERENCES jobs,
    PRIMARY KEY (person, key)
) STRICT;
CREATE TABLE cursor (ordinal INTEGER NOT NULL) STRICT;
INSERT INTO cursor VALUES (0);
"""
"""`jobs.progress` holds all that decides what comes next; the rest is what was brought, and by what.

`ignored` keeps deliveries that meant nothing. `acknowledgements` are crossings whose effect is durable and whose copy
the border may let go. `cursor` moves in the transaction that holds the delivery's effect.
"""

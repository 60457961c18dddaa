"""The catalogue: what a zone holds and what its worker has done, in SQLite. No key, no name of a vehicle, no plaintext.

Rules:
1. Every change is one explicit transaction; the write-ahead log is synced, so what is committed survives a power cut.
2. A file is listed with all its groups or not at all, after the border has registered it.
3. A frozen snapshot never changes; its name is taken for good.
4. The worker's cursor moves only after all that a delivery caused is kept (see `zone.progress`).

Ingest and the worker are different processes on one catalogue. Every call blocks: call through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, FileId, Name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from isthmus.contracts.orders import DatasetRef
    from isthmus.contracts.raw_table import Group

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    file TEXT PRIMARY KEY, dataset TEXT NOT NULL, drives INTEGER NOT NULL, rows INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL, registered_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS groups (
    file TEXT NOT NULL REFERENCES files, "group" TEXT NOT NULL, object_name TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (file, "group")
) STRICT;
CREATE TABLE IF NOT EXISTS vehicles (
    file TEXT NOT NULL REFERENCES files, pseudonym TEXT NOT NULL, PRIMARY KEY (file, pseudonym)
) STRICT;
CREATE TABLE IF NOT EXISTS snapshots (
    dataset TEXT NOT NULL, snapshot TEXT NOT NULL, commitment TEXT NOT NULL, frozen_at INTEGER NOT NULL,
    PRIMARY KEY (dataset, snapshot)
) STRICT;
CREATE TABLE IF NOT EXISTS snapshot_files (
    dataset TEXT NOT NULL, snapshot TEXT NOT NULL, file TEXT NOT NULL REFERENCES files,
    PRIMARY KEY (dataset, snapshot, file), FOREIGN KEY (dataset, snapshot) REFERENCES snapshots
) STRICT;
CREATE TABLE IF NOT EXISTS worker (
    only INTEGER PRIMARY KEY CHECK (only = 1), cursor INTEGER NOT NULL, crossing TEXT
) STRICT;
INSERT OR IGNORE INTO worker VALUES (1, 0, NULL);
CREATE TABLE IF NOT EXISTS orders (
    "order" TEXT PRIMARY KEY, body BLOB NOT NULL, state TEXT NOT NULL, code TEXT, reference BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS trained (
    "order" TEXT NOT NULL REFERENCES orders, slot INTEGER NOT NULL, microseconds INTEGER NOT NULL,
    PRIMARY KEY ("order", slot)
) STRICT;
CREATE TABLE IF NOT EXISTS aggregates (
    "order" TEXT NOT NULL REFERENCES orders, slot INTEGER NOT NULL, payload BLOB NOT NULL, contributors BLOB NOT NULL,
    PRIMARY KEY ("order", slot)
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """One sealed object of a file."""

    group: Group
    object_name: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: its groups, and what they hold.

    `drives`, `rows` and `raw_bytes`, its plain size in memory for all groups, are of the raw table: none where the file
    holds derived tables.
    """

    file: FileId
    dataset: Name
    groups: tuple[StoredGroup, ...]
    pseudonyms: tuple[str, ...]
    drives: int
    rows: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a dataset or a snapshot holds. `stored_bytes` are those of the sealed objects."""

    files: int
    vehicles: int
    drives: int
    rows: int
    raw_bytes: int
    stored_bytes: int


class Database:
    """One SQLite connection, shared by threads, with explicit transactions."""

    def __init__(self, path: Path) -> None:
        """Open the catalogue in `path`, made where there is none.

        Raises:
            Fault: `STORAGE_FAILED`.
        """
        with _storage():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._connection.executescript(_SCHEMA)
            except sqlite3.Error:
                self._connection.close()
                raise
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read, with no other thread on the connection."""
        with self._lock, _storage():
            yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction: kept when the block ends, undone when it raises."""
        with self._lock, _storage():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


class Catalogue:
    """Files and snapshots."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_files(self, files: Sequence[StoredFile], at: int) -> None:
        """List files that the border has registered, all or none.

        Raises:
            Refusal: `ALREADY_EXISTS` where one is listed already.
        """
        with self._database.writing() as db:
            try:
                for file in files:
                    _insert(db, file, at)
            except sqlite3.IntegrityError:
                raise Refusal(Code.ALREADY_EXISTS, "One of these files is in the catalogue already.") from None

    def files(self, dataset: Name) -> tuple[FileId, ...]:
        """Return the files of a dataset, sorted."""
        with self._database.reading() as db:
            rows = db.execute("SELECT file FROM files WHERE dataset = ? ORDER BY file", (dataset,)).fetchall()
        return tuple(FileId(file) for (file,) in rows)

    def holdings(self, dataset: Name) -> Holdings:
        """Return what a dataset holds."""
        with self._database.reading() as db:
            return _holdings(db, "SELECT file FROM files WHERE dataset = ?", (dataset,))

    def holdings_of(self, files: Iterable[FileId]) -> Holdings:
        """Return what these files hold; one that is not listed counts for nothing."""
        with self._database.reading() as db:
            return _holdings(db, "SELECT value FROM json_each(?)", (json.dumps(sorted(files)),))

    def sealed_bytes(self, ref: DatasetRef, group: Group) -> int:
        """Return the size of a snapshot's sealed objects of one group; of the whole dataset's where it is not listed.

        The border may have frozen a snapshot whose listing here was cut off: rather too many bytes than none.
        """
        with self._database.reading() as db:
            chosen, values = "SELECT file FROM files WHERE dataset = ?", [ref.dataset]
            if _commitment(db, ref) is not None:
                chosen = "SELECT file FROM snapshot_files WHERE dataset = ? AND snapshot = ?"
                values.append(ref.snapshot)
            of_group = f'SELECT total(size) FROM groups WHERE file IN ({chosen}) AND "group" = ?'  # noqa: S608 -- constants of this module
            ((size,),) = db.execute(of_group, (*values, group.value)).fetchall()
        return int(size)

    def commitment(self, ref: DatasetRef) -> Digest | None:
        """Return a snapshot's commitment, None where it is not frozen."""
        with self._database.reading() as db:
            return _commitment(db, ref)

    def snapshots(self) -> tuple[tuple[Name, Name], ...]:
        """Return all snapshots, as dataset and name, sorted."""
        with self._database.reading() as db:
            rows = db.execute("SELECT dataset, snapshot FROM snapshots ORDER BY dataset, snapshot").fetchall()
        return tuple((Name(dataset), Name(snapshot)) for dataset, snapshot in rows)

    def freeze(self, ref: DatasetRef, files: Sequence[FileId], commitment: Digest, at: int) -> None:
        """Keep a snapshot that the border has frozen.

        Raises:
            Refusal: `ALREADY_EXISTS` where the name is taken, `FILE_UNREGISTERED` where a file is not listed.
        """
        with self._database.writing() as db:
            if _commitment(db, ref) is not None:
                raise Refusal(Code.ALREADY_EXISTS, f"The snapshot {ref.snapshot} of {ref.dataset} is frozen.")
            known = {file for (file,) in db.execute("SELECT file FROM files WHERE dataset = ?", (ref.dataset,))}
            if not known.issuperset(files):
                raise Refusal(Code.FILE_UNREGISTERED, f"A file of the snapshot is not one of {ref.dataset}.")
            db.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?)", (ref.dataset, ref.snapshot, commitment, at))
            rows = [(ref.dataset, ref.snapshot, file) for file in files]
            db.executemany("INSERT INTO snapshot_files VALUES (?, ?, ?)", rows)


def _insert(db: sqlite3.Connection, file: StoredFile, at: int) -> None:
    values = (file.file, file.dataset, file.drives, file.rows, file.raw_bytes, at)
    db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", values)
    groups = [(file.file, g.group.value, g.object_name, g.digest, g.size) for g in file.groups]
    db.executemany("INSERT INTO groups VALUES (?, ?, ?, ?, ?)", groups)
    db.executemany("INSERT INTO vehicles VALUES (?, ?)", [(file.file, pseudonym) for pseudonym in file.pseudonyms])


def _commitment(db: sqlite3.Connection, ref: DatasetRef) -> Digest | None:
    query = "SELECT commitment FROM snapshots WHERE dataset = ? AND snapshot = ?"
    row = db.execute(query, (ref.dataset, ref.snapshot)).fetchone()
    return None if row is None else Digest(row[0])


def _holdings(db: sqlite3.Connection, files: str, values: tuple[str, ...]) -> Holdings:
    """Sum up the files that the query `files`, written in this module, selects."""
    sums = f"SELECT count(*), total(drives), total(rows), total(raw_bytes) FROM files WHERE file IN ({files})"  # noqa: S608 -- all queries are constants of this module
    stored = f"SELECT total(size) FROM groups WHERE file IN ({files})"  # noqa: S608 -- as above
    named = f"SELECT count(DISTINCT pseudonym) FROM vehicles WHERE file IN ({files})"  # noqa: S608 -- as above
    count, drives, rows, raw = db.execute(sums, values).fetchone()
    (size,) = db.execute(stored, values).fetchone()
    (vehicles,) = db.execute(named, values).fetchone()
    return Holdings(int(count), int(vehicles), int(drives), int(rows), int(raw), int(size))


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        remedy = "Free space, or check the disk and the catalogue file's owner."
        raise Fault(Code.STORAGE_FAILED, "The zone's catalogue failed.", why=str(error), remedy=remedy) from error

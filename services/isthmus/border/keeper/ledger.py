"""The border's durable state: one SQLite file with both append-only logs and the tables that move with them.

One transaction moves a state and appends the entries that say so; WAL with full sync makes it durable before anyone
is told. Entries and Merkle nodes can be neither changed nor removed by SQL: triggers abort.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.ledger import GenesisEntry
from isthmus.proof import canonical, merkle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isthmus.contracts.ledger import CrossingEntry, InternalEntry, Log

FORMAT = 1
"""What the entries and orders in a file look like: another number with every release that reads them otherwise."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS entry(log TEXT, idx INTEGER, data BLOB NOT NULL, PRIMARY KEY(log, idx)) STRICT;
CREATE TABLE IF NOT EXISTS node(log TEXT, level INTEGER, idx INTEGER, hash BLOB NOT NULL,
  PRIMARY KEY(log, level, idx)) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS entry_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS node_update BEFORE UPDATE ON node BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS node_delete BEFORE DELETE ON node BEGIN SELECT RAISE(ABORT, 'append-only'); END;

CREATE TABLE IF NOT EXISTS crossing(
  id TEXT PRIMARY KEY, direction TEXT NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL, peer TEXT NOT NULL,
  job TEXT NOT NULL, order_id TEXT NOT NULL, slot INTEGER NOT NULL, sequence INTEGER, draft BLOB, envelope BLOB,
  sealed TEXT NOT NULL, size INTEGER NOT NULL, content_key BLOB, plaintext TEXT, code TEXT, needs TEXT NOT NULL,
  receipt BLOB, contributors BLOB, entry INTEGER, UNIQUE(direction, peer, sequence)) STRICT;
CREATE INDEX IF NOT EXISTS crossing_by_order ON crossing(order_id, kind, direction, sequence);
CREATE INDEX IF NOT EXISTS crossing_by_payload ON crossing(sealed);
CREATE INDEX IF NOT EXISTS crossing_to_send ON crossing(peer, sequence)
  WHERE direction = 'out' AND state IN ('logged', 'sent');
CREATE INDEX IF NOT EXISTS model_by_plaintext ON crossing(plaintext) WHERE direction = 'out' AND kind = 'model';
CREATE INDEX IF NOT EXISTS crossing_by_state ON crossing(direction, state);
CREATE INDEX IF NOT EXISTS crossing_by_sealed ON crossing(sealed);
CREATE INDEX IF NOT EXISTS crossing_by_plaintext ON crossing(plaintext);
CREATE TABLE IF NOT EXISTS orders(
  id TEXT PRIMARY KEY, direction TEXT NOT NULL, peer TEXT NOT NULL, job TEXT NOT NULL, body BLOB NOT NULL,
  state TEXT NOT NULL, reserved_bits INTEGER NOT NULL, spent_bits INTEGER NOT NULL,
  UNIQUE(direction, peer, job)) STRICT;
CREATE TABLE IF NOT EXISTS charge(crossing TEXT PRIMARY KEY, order_id TEXT NOT NULL, bits INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS approval(
  statement TEXT NOT NULL, person TEXT NOT NULL, organisation TEXT NOT NULL, type TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY(statement, person)) STRICT;
CREATE TABLE IF NOT EXISTS computed_on(
  order_id TEXT NOT NULL, accelerator TEXT NOT NULL, PRIMARY KEY(order_id, accelerator)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session(keyid TEXT PRIMARY KEY, key BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS file(
  id TEXT NOT NULL, grp TEXT NOT NULL, dataset TEXT NOT NULL, sidecar BLOB NOT NULL, PRIMARY KEY(id, grp)) STRICT;
CREATE TABLE IF NOT EXISTS snapshot(
  dataset TEXT NOT NULL, snapshot TEXT NOT NULL, salt BLOB NOT NULL, commitment TEXT NOT NULL,
  PRIMARY KEY(dataset, snapshot)) STRICT;
CREATE TABLE IF NOT EXISTS snapshot_file(
  dataset TEXT NOT NULL, snapshot TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY(dataset, snapshot, file)) STRICT;
CREATE TABLE IF NOT EXISTS delivery(ordinal INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS taint(job TEXT NOT NULL, site TEXT NOT NULL, recipients TEXT NOT NULL,
  PRIMARY KEY(job, site, recipients)) STRICT;
CREATE TABLE IF NOT EXISTS peer_head(
  site TEXT NOT NULL, log TEXT NOT NULL, size INTEGER NOT NULL, root TEXT NOT NULL, cosigned TEXT NOT NULL,
  PRIMARY KEY(site, log)) STRICT;
CREATE TABLE IF NOT EXISTS own_head(
  site TEXT NOT NULL, log TEXT NOT NULL, size INTEGER NOT NULL, cosigned TEXT NOT NULL, PRIMARY KEY(site, log)) STRICT;
CREATE TABLE IF NOT EXISTS halted(peer TEXT PRIMARY KEY, code TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS question(
  order_id TEXT PRIMARY KEY, about TEXT NOT NULL, dataset TEXT NOT NULL, snapshot TEXT NOT NULL, mode TEXT NOT NULL,
  epsilon_micro INTEGER NOT NULL, delta_exponent INTEGER NOT NULL, state TEXT NOT NULL, curve TEXT NOT NULL,
  accepted_at INTEGER NOT NULL, due INTEGER, code TEXT, candidate TEXT, contributors BLOB, partials BLOB,
  answer BLOB) STRICT;
CREATE INDEX IF NOT EXISTS question_by_state ON question(state, due);
CREATE INDEX IF NOT EXISTS question_answered ON question(about, mode) WHERE state = 'released';
CREATE INDEX IF NOT EXISTS question_by_snapshot ON question(dataset, snapshot, mode) WHERE state = 'released';
CREATE TABLE IF NOT EXISTS training(
  order_id TEXT PRIMARY KEY, rounds INTEGER NOT NULL, curve TEXT NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS privacy_use(one INTEGER PRIMARY KEY CHECK(one = 1), curve TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS latest_time(one INTEGER PRIMARY KEY CHECK(one = 1), at INTEGER NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A log's size and root at one moment."""

    size: int
    root: Digest


class Transaction:
    """One open transaction: SQL, appends, and what to do once it is durable."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.after: list[Callable[[], None]] = []

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Run one statement."""
        return self._db.execute(sql, values)

    def row(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Return the first row of a query."""
        found: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
        return found

    def append(self, log: Log, entry: CrossingEntry | InternalEntry) -> int:
        """Append `entry` to `log` and return its index. Its time is one that later entries cannot fall behind."""
        if self.row("SELECT 1 FROM halted WHERE code = ?", Code.LEDGER_ROLLED_BACK.value):
            raise Refusal(
                Code.LEDGER_ROLLED_BACK,
                "The ledger was restored from an old copy: what would be written now would fork it.",
                remedy="Restore the latest copy. Nothing is written until then.",
            )
        if not isinstance(entry, GenesisEntry):
            self.execute(
                "INSERT INTO latest_time VALUES(1, ?)"
                " ON CONFLICT(one) DO UPDATE SET at = excluded.at WHERE at < excluded.at",
                entry.at,
            )
        data = canonical.dump(entry)
        index = self.size(log)
        self.execute("INSERT INTO entry VALUES(?, ?, ?)", log.value, index, data)
        for level, at, digest in merkle.completed_nodes(index, merkle.leaf_hash(data), self.reader(log)):
            self.execute("INSERT INTO node VALUES(?, ?, ?, ?)", log.value, level, at, digest)
        return index

    def size(self, log: Log) -> int:
        """Return the number of entries."""
        row = self.row("SELECT max(idx) FROM entry WHERE log = ?", log.value)
        return 0 if row is None or row[0] is None else int(row[0]) + 1

    def reader(self, log: Log) -> merkle.NodeReader:
        """Return the reader of stored nodes that proofs are made with."""

        def node(level: int, index: int) -> bytes:
            row = self.row("SELECT hash FROM node WHERE log = ? AND level = ? AND idx = ?", log.value, level, index)
            if row is None:
                raise Fault(Code.LEDGER_UNAVAILABLE, "The ledger lacks a node.", remedy="Restore it, then re-anchor.")
            return bytes(row[0])

        return node

    def snapshot(self, log: Log) -> Snapshot:
        """Return the log's size and root."""
        size = self.size(log)
        return Snapshot(size, Digest.from_bytes(merkle.tree_root(self.reader(log), size)))

    def entries(self, log: Log, start: int, limit: int) -> tuple[bytes, ...]:
        """Return up to `limit` entries from `start` on."""
        rows = self.execute(
            "SELECT data FROM entry WHERE log = ? AND idx >= ? ORDER BY idx LIMIT ?", log.value, start, limit
        )
        return tuple(bytes(row[0]) for row in rows)


class LedgerStore:
    """The SQLite file of one border. One writer at a time; safe to call from any thread.

    Args:
        path: the file.

    Raises (on construction):
        Fault: another release wrote it (`CONFIGURATION`), or it cannot be opened (`LEDGER_UNAVAILABLE`).
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._current: Transaction | None = None
        try:
            self._db = _connect(path)
            is_new = _require_own_tables(self._db)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;" if is_new else SCHEMA)
            self._reader = _connect(path)
            self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction: all of it is durable when the block ends, or none of it is there.

        One opened inside another of the same thread is part of it: durable with it, undone alone when its own block
        fails. What is to be done `after` waits for the outer one.

        Raises:
            Fault: the disk is full or the file cannot be written (`LEDGER_UNAVAILABLE`). Nothing has changed.
        """
        with self._lock:
            if self._current is not None:
                with self._part_of(self._current) as part:
                    yield part
                return
            transaction = self._current = Transaction(self._db)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield transaction
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise _unavailable(error) from error
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._current = None
        for action in transaction.after:
            action()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Open a consistent view of what is durable. It waits for no writer, and nothing can be written in it."""
        with self._read_lock:
            try:
                self._reader.execute("BEGIN")
                yield Transaction(self._reader)
            except sqlite3.Error as error:
                raise _unavailable(error) from error
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("ROLLBACK")

    @contextmanager
    def _part_of(self, outer: Transaction) -> Iterator[Transaction]:
        planned = len(outer.after)
        self._db.execute("SAVEPOINT part")
        try:
            yield outer
        except BaseException:
            self._db.execute("ROLLBACK TO part")
            del outer.after[planned:]
            raise
        finally:
            self._db.execute("RELEASE part")

    def limit_pages(self, pages: int) -> None:
        """Let the file grow to `pages` pages at most, as a full disk would."""
        with self._lock:
            self._db.execute(f"PRAGMA max_page_count = {int(pages)}")

    def close(self) -> None:
        """Close the file. What was not committed is gone."""
        with self._lock:
            self._roll_back()
            self._db.close()
        with self._read_lock:
            self._reader.close()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    return db


def _require_own_tables(db: sqlite3.Connection) -> bool:
    """Hold what a file has to this release; one that lacks tables gets them. Tell whether it is a new one.

    Raises:
        Fault: `CONFIGURATION`: it is of another format, or has other columns or tables. Nothing was changed.
    """
    blank = sqlite3.connect(":memory:")
    blank.executescript(SCHEMA)
    own, found = _columns(blank), _columns(db)
    blank.close()
    strange = sorted(table for table in found if found[table] != own.get(table))
    (written,) = db.execute("PRAGMA user_version").fetchone()
    if strange or (found and written != FORMAT):
        why = f"Its tables are others: {', '.join(strange)}." if strange else f"Its format is {written}, not {FORMAT}."
        db.close()
        raise Fault(
            Code.CONFIGURATION,
            "The ledger was written by another release, and this one does not read it.",
            why=why,
            remedy="Run the release that wrote it. Nothing was changed.",
        )
    return not found


def _columns(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return each table's columns: name, type, whether it may be null, place in the key."""
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
    columns = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?)'
    return {name: [tuple(row) for row in db.execute(columns, (name,))] for (name,) in tables.fetchall()}


def _unavailable(error: sqlite3.Error) -> Fault:
    return Fault(
        Code.LEDGER_UNAVAILABLE,
        "The ledger cannot be written, so nothing passes.",
        why=str(error),
        remedy="Make room or repair the disk; the border goes on by itself.",
    )

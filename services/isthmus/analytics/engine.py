"""DuckDB, locked down: it sees the Arrow tables that it is given and nothing else of the machine.

Rules:
1. No file, no network, no extension, no look at Python's variables; nothing is spilled to a disk. Once this is set the
   configuration is locked.
2. Statements come from this package alone and are made of the catalogue's names and of whole numbers
   (`analytics.statements`). No text from outside reaches the engine.
3. A statement that takes longer than it may is interrupted; memory is bounded, of all uses of one database together.
   After an error there may be more than one for a while: uses that had begun end in theirs, later ones have a new one.
   Either way the error says so and nothing else: the engine's own words can quote data.
4. Nothing of one use is there for the next, or for one beside it: each has a connection of its own and is one
   transaction, which is rolled back at its end, and with it goes whatever was shown or made. After an error the
   database goes too. A transaction does not cover ATTACH: no statement of this package has one.

Opening a database takes longer than many a question, so a process keeps one for each bound of memory, empty and locked.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import duckdb

from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

LONGEST_S = 300.0
"""What one statement may take."""
MEMORY = "4GB"

_LOCKED = {
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "allow_unredacted_secrets": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
    "temp_directory": "",
}


class Engine:
    """A connection to a locked database in memory: what it is shown, no other sees."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, longest_s: float) -> None:
        """Take an unused connection, and what one statement may take, s."""
        self._database = connection
        self._longest_s = longest_s

    def show(self, name: str, table: pa.Table) -> None:
        """Let statements read `table` under a name."""
        self._database.register(name, table)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows.

        Raises:
            Fault: `COMPUTE_FAILED`: it took too long, or more memory than there is.
        """
        with self._bounded():
            return self._database.execute(statement).fetchall()

    def table(self, statement: str) -> pa.Table:
        """Run a statement and return its rows as a table. Raises as `run` does."""
        with self._bounded():
            return self._database.sql(statement).to_arrow_table()

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        timer = threading.Timer(self._longest_s, self._database.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        except duckdb.InterruptException:
            raise _failed(f"A statement took longer than {self._longest_s:g} s.") from None
        except (duckdb.OutOfMemoryException, MemoryError):
            raise _failed("It needs more memory than it may take.") from None
        except duckdb.Error as error:
            raise _failed(type(error).__name__) from None
        finally:
            timer.cancel()


@contextlib.contextmanager
def opened(*, longest_s: float = LONGEST_S, memory: str = MEMORY) -> Iterator[Engine]:
    """Open an engine for the length of a block.

    Args:
        longest_s: what one statement may take, s.
        memory: what all engines of one database, opened with the same words, may take together, as DuckDB writes sizes.
    """
    database = _DATABASES.one(memory)
    connection = database.cursor()
    try:
        connection.begin()
        yield Engine(connection, longest_s)
        connection.rollback()
    except BaseException:
        _DATABASES.forget(memory, database)
        raise
    finally:
        connection.close()  # after an error, this rolls back


class _Databases:
    """The process's databases, one for each bound of memory. Threads share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, duckdb.DuckDBPyConnection] = {}

    def one(self, memory: str) -> duckdb.DuckDBPyConnection:
        """Return the database with a bound, opened by its first use."""
        with self._lock:
            if memory not in self._open:
                self._open[memory] = _locked(memory)
            return self._open[memory]

    def forget(self, memory: str, database: duckdb.DuckDBPyConnection) -> None:
        """Let go of a database: who uses it may finish, and the next is given another."""
        with self._lock:
            if self._open.get(memory) is database:
                del self._open[memory]

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


_DATABASES = _Databases()
atexit.register(_DATABASES.close)


def _locked(memory: str) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:", config={**_LOCKED, "memory_limit": memory})
    database.execute("SET disabled_filesystems = 'LocalFileSystem'")
    database.execute("SET lock_configuration = true")
    return database


def _failed(why: str) -> Fault:
    remedy = "Ask of fewer rows, or give the zone's compute more memory."
    return Fault(Code.COMPUTE_FAILED, "The table could not be counted.", why=why, remedy=remedy)

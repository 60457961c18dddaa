"""DuckDB, locked down: it sees the Arrow tables that it is given and nothing else of the machine.

Rules:
1. No file, no network, no extension, no look at Python's variables; nothing is spilled to a disk. Once this is set the
   configuration is locked.
2. Statements come from this package alone and are made of the catalogue's names and of whole numbers
   (`analytics.statements`). No text from outside reaches the engine.
3. A statement that takes longer than it may is interrupted; memory is bounded. Either way the error says so and nothing
   else: the engine's own words can quote data.
"""

from __future__ import annotations

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
    """One database in memory, opened by its first use: where nobody asks, none is."""

    def __init__(self, *, longest_s: float = LONGEST_S, memory: str = MEMORY) -> None:
        """Take the bounds of an empty, locked database.

        Args:
            longest_s: what one statement may take, s.
            memory: what all of it may take, as DuckDB writes sizes.
        """
        self._longest_s = longest_s
        self._memory = memory
        self._open: duckdb.DuckDBPyConnection | None = None

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

    def close(self) -> None:
        """Drop all that is held. It is not to be used again."""
        if self._open is not None:
            self._open.close()

    @property
    def _database(self) -> duckdb.DuckDBPyConnection:
        if self._open is None:
            self._open = _locked(self._memory)
        return self._open

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
    """Open an engine for the length of a block."""
    engine = Engine(longest_s=longest_s, memory=memory)
    try:
        yield engine
    finally:
        engine.close()


def _locked(memory: str) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:", config={**_LOCKED, "memory_limit": memory})
    database.execute("SET disabled_filesystems = 'LocalFileSystem'")
    database.execute("SET lock_configuration = true")
    return database


def _failed(why: str) -> Fault:
    remedy = "Ask of fewer rows, or give the zone's compute more memory."
    return Fault(Code.COMPUTE_FAILED, "The table could not be counted.", why=why, remedy=remedy)

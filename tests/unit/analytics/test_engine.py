"""The engine sees the tables that it is shown, and nothing else of the machine."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from isthmus.analytics.engine import Engine, opened
from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from pathlib import Path

SECRET = pa.table({"value": ["canary-in-a-python-variable"]})


def test_it_reads_what_it_is_shown() -> None:
    with opened() as engine:
        engine.show("shown", pa.table({"value": [1, 2, None]}))
        assert engine.run("SELECT sum(value), count(*) FROM shown") == [(3, 3)]
        assert engine.table("SELECT value FROM shown").column("value").to_pylist() == [1, 2, None]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('/*')",
        "COPY (SELECT 1) TO '{file}'",
        "EXPORT DATABASE '{file}'",
        "ATTACH '{file}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM SECRET",
        "SET enable_external_access = true",
        "SET temp_directory = '{file}'",
        "SET memory_limit = '100GB'",
        "RESET disabled_filesystems",
        "SELECT getenv('HOME')",
    ],
)
def test_it_reaches_no_file_no_extension_and_no_setting(statement: str, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("value\ncanary\n")
    with opened() as engine:
        with pytest.raises(Fault) as fault:
            engine.run(statement.format(file=file))
        assert fault.value.code is Code.COMPUTE_FAILED
        assert "canary" not in str(fault.value)
        assert str(tmp_path) not in str(fault.value)
    assert file.read_text() == "value\ncanary\n"


def test_a_statement_that_takes_too_long_is_interrupted() -> None:
    with opened(longest_s=0.2) as engine, pytest.raises(Fault) as fault:
        engine.run("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3")
    assert "longer than 0.2 s" in fault.value.why


def test_memory_is_bounded() -> None:
    with opened(memory="20MB") as engine, pytest.raises(Fault) as fault:
        engine.run("SELECT array_agg(range) FROM range(50000000)")
    assert "memory" in fault.value.why


NAMES = "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views()"


def found_by(engine: Engine) -> int:
    return len(engine.run(NAMES))


@pytest.mark.parametrize("kind", ["TABLE", "TEMP TABLE", "VIEW", "TEMP VIEW"])
def test_nothing_of_one_use_is_there_for_the_next_or_for_one_beside_it(kind: str) -> None:
    with opened() as engine:
        before = found_by(engine)
        engine.show("shown", SECRET)
        engine.run(f"CREATE {kind} made AS SELECT 'canary' AS value")
        assert engine.run("SELECT value FROM made") == [("canary",)]
        assert found_by(engine) == before + 2
        with opened() as beside:
            assert found_by(beside) == before
    with opened() as engine:
        assert found_by(engine) == before
    for name in ("shown", "made"):
        with pytest.raises(Fault) as fault, opened() as engine:
            engine.run(f"SELECT * FROM {name}")  # noqa: S608 -- names of this test
        assert "canary" not in str(fault.value)


@pytest.mark.parametrize(
    ("making", "reading"),
    [
        ("CREATE MACRO made() AS 'canary'", "SELECT made()"),
        ("CREATE SEQUENCE made", "SELECT nextval('made')"),
        ("CREATE SCHEMA made", "CREATE TABLE made.other AS SELECT 1"),
        ("SET VARIABLE made = 'canary'", "SELECT 1 WHERE getvariable('made') IS NOT NULL"),
    ],
)
def test_nothing_else_that_a_use_makes_outlives_it(making: str, reading: str) -> None:
    with opened() as engine:
        engine.run(making)
        assert engine.run(reading)
    left: list[tuple[Any, ...]] = []
    with contextlib.suppress(Fault), opened() as engine:
        left = engine.run(reading)
    assert left == []


def test_uses_at_one_time_see_their_own_tables_only() -> None:
    together = Barrier(4)

    def use(number: int) -> list[tuple[int]]:
        with opened() as engine:
            engine.show("shown", pa.table({"value": [number]}))
            together.wait(30)
            found = engine.run("SELECT value FROM shown")
            together.wait(30)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [[(number,)] for number in range(4)]


@pytest.mark.parametrize(
    ("statement", "bounds"),
    [
        ("SELECT no_such_column", {}),
        ("SELECT array_agg(range) FROM range(50000000)", {"memory": "20MB"}),
        ("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3", {"longest_s": 0.2}),
    ],
    ids=["error", "memory", "time"],
)
def test_after_an_error_the_next_use_has_a_new_database_as_locked_as_the_last(
    statement: str, bounds: dict[str, Any]
) -> None:
    with contextlib.suppress(Fault), opened(**bounds) as engine:
        engine.run("CREATE TABLE left_behind AS SELECT 1")
        engine.run(statement)
        pytest.fail("the statement has no error")
    with opened(**bounds) as engine:
        assert "left_behind" not in str(engine.run("SELECT table_name FROM duckdb_tables()"))
        with pytest.raises(Fault):
            engine.run("SET enable_external_access = true")
    with opened(**bounds) as engine:
        engine.show("shown", pa.table({"value": [1]}))
        assert engine.run("SELECT value FROM shown") == [(1,)]

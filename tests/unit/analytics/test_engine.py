"""The engine sees the tables that it is shown, and nothing else of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from isthmus.analytics.engine import opened
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

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import isthmus
from isthmus.analytics import algorithm

PROGRAM = "from isthmus.analytics import algorithm; print(algorithm.digest(), algorithm.__file__)"


def digest_of(home: Path) -> str:
    """The digest that the copy of the package under `home` states of itself."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(home)!r}); {PROGRAM}"]
    digest, file = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert Path(file).is_relative_to(home)
    return digest


def test_the_digest_changes_with_the_code_and_with_the_catalogue(tmp_path: Path) -> None:
    package = tmp_path / "isthmus"
    shutil.copytree(Path(isthmus.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert algorithm.NAME == "statistics"
    assert digest_of(tmp_path) == algorithm.digest()
    found = {algorithm.digest()}
    for module, old, new in (
        ("analytics/statements.py", "row_number()", "rank()"),
        ("contracts/tables.py", '"m/s", 100, 0, 4_000', '"m/s", 100, 0, 5_000'),
    ):
        path = package / module
        source = path.read_text()
        assert old in source
        path.write_text(source.replace(old, new))
        found.add(digest_of(tmp_path))
        path.write_text(source)
    assert len(found) == 3


def test_naming_the_algorithm_loads_no_engine() -> None:
    program = "import sys; from isthmus.analytics import algorithm; algorithm.digest(); print('duckdb' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "False"

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import isthmus
from isthmus.learning import algorithm

PROGRAM = "from isthmus.learning import algorithm; print(algorithm.digest(), algorithm.__file__)"


def digest_of(home: Path) -> str:
    """The digest that the copy of the package under `home` states of itself."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(home)!r}); {PROGRAM}"]
    digest, file = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert Path(file).is_relative_to(home)
    return digest


def test_another_copy_has_the_same_digest_until_its_code_changes(tmp_path: Path) -> None:
    package = tmp_path / "isthmus"
    shutil.copytree(Path(isthmus.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert algorithm.NAME == "motion-forecast-fedavg"
    assert digest_of(tmp_path) == algorithm.digest()
    (package / "learning" / "notes.txt").write_text("not code")
    assert digest_of(tmp_path) == algorithm.digest()
    loss = package / "learning" / "loss.py"
    source = loss.read_text()
    loss.write_text(source.replace("1e-6", "1e-5"))
    changed = digest_of(tmp_path)
    loss.write_text(source)
    (package / "learning" / "extra.py").write_text("")
    assert len({algorithm.digest(), changed, digest_of(tmp_path)}) == 3

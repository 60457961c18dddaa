"""`isthmus verify` works where only the base install is: nothing of web, storage or learning is loaded, or missed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isthmus.cli import main
from isthmus.cli.screen import Exit
from world.pair import CN, US, Pair

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    "cedarpy", "dp_accounting", "duckdb", "fastapi", "httptools", "httpx2", "jax", "numpy", "opendp",
    "optax", "psutil", "pyarrow", "ray", "safetensors",
    "sqlglot", "sqlite3", "starlette", "structlog", "uvicorn",
)  # fmt: skip

LOGGED = rb"\"outcome\":\"release\""
"""A decision as an exported ledger spells it."""

BASE_INSTALL = f"""
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from isthmus.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Evidence of a whole job of two zones as files, and the roots."""
    folder = tmp_path_factory.mktemp("light")
    pair = Pair(folder / "sites", (CN, US))
    pair.prepare()
    pair.work(rounds=1)
    (folder / "bundle").mkdir()
    for name, content in pair.evidence().items():
        (folder / "bundle" / name).write_bytes(content)
    pair.close()
    return folder / "bundle", folder / "sites" / "roots.json"


def on_base_install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BASE_INSTALL, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_verify_accepts_on_a_base_install(bundle: tuple[Path, Path]) -> None:
    evidence, roots = bundle
    done = on_base_install("verify", str(evidence), "--roots", str(roots), "--json")
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["accepted"] is True
    assert done.stderr == ""


def test_verify_refuses_a_changed_entry(bundle: tuple[Path, Path], tmp_path: Path) -> None:
    evidence, roots = bundle
    for file in evidence.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = tmp_path / "us-texas.json"
    content = changed.read_bytes()
    assert LOGGED in content
    changed.write_bytes(content.replace(LOGGED, LOGGED.replace(b"release", b"refuse"), 1))
    done = on_base_install("verify", str(tmp_path), "--roots", str(roots), "--json")
    assert done.returncode == Exit.NOT_ACCEPTED
    assert json.loads(done.stdout)["accepted"] is False


def test_verify_shows_people_the_verdict(bundle: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    evidence, roots = bundle
    assert main.run(["verify", str(evidence), "--roots", str(roots)]) == Exit.OK
    shown = capsys.readouterr().out
    assert shown.startswith("ACCEPTED")
    assert "Not claimed:" in shown


def test_nothing_is_accepted_without_roots(bundle: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["verify", str(bundle[0]), "--json"]) == Exit.NOT_ACCEPTED
    assert json.loads(capsys.readouterr().out)["code"] == "evidence_invalid"


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\x00"])
def test_a_file_that_is_no_roots_is_named(
    bundle: tuple[Path, Path], tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.json").write_bytes(content)
    arguments = ["verify", str(bundle[0]), "--roots", str(tmp_path / "wrong.json"), "--json"]
    assert main.run(arguments) == Exit.NOT_ACCEPTED
    told = json.loads(capsys.readouterr().out)
    assert str(tmp_path / "wrong.json") in told["what"]
    assert "roots.json" in told["remedy"]


def test_another_federations_roots_are_not_enough(bundle: tuple[Path, Path], tmp_path: Path) -> None:
    other = Pair(tmp_path / "other", (CN, US))
    other.close()
    assert main.run(["verify", str(bundle[0]), "--roots", str(other.home / "roots.json")]) == Exit.NOT_ACCEPTED


def test_no_command_loads_anything_heavy_before_it_runs() -> None:
    script = (
        "import sys; from isthmus.cli import main; main.run(['ingest', '--help']);"
        f"sys.exit(' '.join(sorted(set({HEAVY!r}) & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["setup", "jobs run --demo"])
def test_a_command_says_what_to_install(command: str, tmp_path: Path) -> None:
    """`setup` needs a site's libraries at once; `jobs` needs a home first."""
    home = tmp_path / "home"
    if command != "setup":
        Pair(home).close()
    done = on_base_install(*command.split(), "--home", str(home))
    assert done.returncode == Exit.FAILED
    assert "Install `isthmus[site]`." in done.stderr
    assert "Traceback" not in done.stderr

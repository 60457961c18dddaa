"""What an independent capture of the crossing network shows, held against both ledgers: no dark bytes.

The tap is on the network's bridge, which every packet between borders passes: not at a border.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from e2e.compose.stack import run

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.compose.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

MOST_DARK = 16 * 1024
LOGGED = ("payload", "signed", "padding")


def test_dark_bytes_in_the_demo(stack: Stack, tmp_path: Path) -> None:
    assert stack.capture is not None
    assert stack.inspect("demo")["State"]["ExitCode"] == 0, stack.logs("demo")
    stack.compose("cp", "demo:/out/demo/.", str(tmp_path))
    parties = {**stack.capture.parties, "hq": f"{stack.capture.parties['hq']}:8443"}
    named = [part for site, address in parties.items() for part in ("--party", f"{site}={address}")]
    audited = run(
        *(sys.executable, "-m", "isthmus.cli.main", "audit", "wire", str(stack.capture.file)),
        *("--evidence", str(tmp_path / "demo-evidence"), "--roots", str(tmp_path / "roots.json"), *named, "--json"),
        check=False,
    )
    told: dict[str, Any] = json.loads(audited.stdout)
    assert audited.returncode == 0, told
    assert told["dark"] <= MOST_DARK
    # The demo's own capture, at the coordinator's end, shows the same crossings: none went past it.
    own = json.loads((tmp_path / "demo-report.json").read_text())["wire"]
    assert {part: own["parts"][part] for part in LOGGED} == {part: told["parts"][part] for part in LOGGED}
    assert own["total"] <= told["total"]

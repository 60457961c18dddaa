"""What is gone of the vehicles' privacy, as officer and auditor see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isthmus.cli import main
from isthmus.cli.screen import Exit
from isthmus.contracts.identifiers import JobId
from world.pair import CN, HQ, Pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_what_is_gone_is_shown_zone_by_zone(
    tmp_path: Path, reach: Callable[[Pair], Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    pair = reach(Pair(tmp_path / "asked"))
    pair.prepare()
    for job in ("job-00000000000000bb", "job-00000000000000cc"):
        pair.ask(CN, JobId(job))
    assert main.run(["ledger", "budget", "--home", str(pair.home), "--json"]) == Exit.OK
    sites = json.loads(capsys.readouterr().out)["sites"]
    assert (sites[CN]["epsilon_micro"], sites[CN]["answered"], sites[CN]["repeated"]) == (1_000_000, 1, 1)
    assert sites[HQ]["budget"] is None
    assert main.run(["ledger", "budget", "--home", str(pair.home)]) == Exit.OK
    shown = capsys.readouterr().out.split()
    assert {"1e-6)", "16", "1", "15"} <= set(shown)  # of 16, 1 is gone and 15 are left
    assert "hq has no budget." in " ".join(shown)

    pair.train(CN, JobId("job-00000000000000dd"), rounds=2, handed_in=1)
    assert main.run(["ledger", "budget", "--home", str(pair.home), "--json"]) == Exit.OK
    after = json.loads(capsys.readouterr().out)["sites"][CN]
    assert (after["trainings"], after["answered"], after["unprotected"]) == (1, 1, 0)
    assert after["epsilon_micro"] > 2_000_000
    pair.close()

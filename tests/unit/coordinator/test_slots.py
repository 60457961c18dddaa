"""A dry run of a question says which zones would refuse its slot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest

from isthmus.client.border import BorderClient
from isthmus.client.jobs import JobsClient
from isthmus.coordinator.app import assemble
from isthmus.coordinator.people import people_file
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit.clock import ManualClock
from isthmus.kit.tokens import write_secret
from unit.coordinator.jobs import CN, HQ, NOW
from unit.coordinator.questions import SQL, question
from unit.coordinator.test_api import PEOPLE, TOKENS, calling

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("slot_s", "refusing"), [(29, [CN]), (30, [])])
def test_a_dry_run_names_the_zones_that_take_no_such_slot(tmp_path: Path, slot_s: int, refusing: list[str]) -> None:
    """Of a zone whose shortest slot is not known nothing is said."""
    write_secret(tmp_path / "people.toml", people_file(PEOPLE))
    settings = CoordinatorSettings(
        site=HQ,
        border_url="http://border",
        people=tmp_path / "people.toml",
        data=tmp_path / "data",
        minimum_slots={CN: 30},
    )
    coordinator = assemble(
        settings, BorderClient(httpx2.AsyncClient(base_url="http://border"), "unused"), ManualClock(NOW)
    )

    async def test() -> tuple[str, ...]:
        async with calling(coordinator) as http:
            return (await JobsClient(http, TOKENS["ada"]).explain(question(sql=SQL, slot_s=slot_s))).checks

    checks = asyncio.run(test())
    assert "the slot is no shorter than the zone asks for" in checks
    assert [check.split()[0] for check in checks if "slot_too_short" in check] == refusing

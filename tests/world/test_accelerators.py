"""The same question to two zones on the same chips: one permits them and answers, the other keeps its keys."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING

from isthmus.cli import federation
from isthmus.contracts.answers import QueryRequest
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Name
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState, ZoneData
from isthmus.contracts.ledger import Log
from world.world import CN, DATASET, HQ, US, ZONES, World, drives, running

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.identifiers import SiteId

H100 = Name("h100")


def test_chips_that_one_zone_permits_bring_another_zones_order_to_an_end_without_a_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        home = tmp_path / "home"
        plan = dataclasses.replace(federation.demo_plan(), minimum_slot_s=1)
        federation.create(home, federation.permitting(plan, [(US, H100)]))
        for zone in ZONES:  # both compute on the same chips, and say so
            with (home / zone / "settings.toml").open("a") as settings:
                settings.write('accelerator = "h100"\n')
        async with running(World(home)) as world:
            for seed, zone in enumerate(ZONES):
                await world.ingest(zone, drives(20, seed))
            jobs = world.jobs()
            asked = await jobs.ask(
                QueryRequest(
                    sql="SELECT count(*) FROM drives",
                    zones=tuple(ZoneData(zone=zone, dataset=DATASET) for zone in ZONES),
                    purpose=Name("fleet-statistics"),
                    recipients=tuple(sorted((HQ, *ZONES))),
                    slot_s=1,
                )
            )
            view = await jobs.answered(asked.id)
            assert (view.state, view.answered) == (JobState.DONE, (US,))
            refused = next(part for part in view.zones if part.zone == CN)
            assert (refused.answer, refused.code) == (None, Code.ACCELERATOR_NOT_PERMITTED)
            assert [e["accelerators"] for e in await events(world, US, "keys_released")] == [["h100"]]
            assert await events(world, US, "keys_refused") == []
            assert [e["code"] for e in await events(world, CN, "keys_refused")] == ["accelerator_not_permitted"]
            assert await events(world, CN, "keys_released") == []
            paid = {zone: (await world.client(zone, InsideRole.AUDITOR).privacy()).epsilon_micro for zone in ZONES}
            assert (paid[CN], paid[US] > 0) == (0, True)

    asyncio.run(asyncio.wait_for(scenario(), 120))


async def events(world: World, zone: SiteId, event: str) -> list[dict[str, object]]:
    """Return the entries of one kind in a zone's internal log."""
    entries = (await world.client(zone, InsideRole.AUDITOR).entries(Log.INTERNAL, 0)).entries
    return [entry for entry in map(json.loads, entries) if entry["event"] == event]

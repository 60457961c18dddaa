"""Two zones train one model through guarded borders: the whole way, in one process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest

from isthmus.contracts.crossings import Kind
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from world.world import CN, HQ, US, ZONES, World, drives, request, running

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("halves", [1, 2], ids=["one-process", "gate-and-keeper"])
def test_two_zones_train_one_model(tmp_path: Path, halves: Literal[1, 2]) -> None:
    """The borders are one process each, or have a socket between their halves: nothing else differs."""

    async def scenario() -> None:
        async with running(World(tmp_path / "home", halves=halves)) as world:
            for seed, zone in enumerate(ZONES):
                await world.ingest(zone, drives(20, seed))
            jobs = world.jobs()
            job = await jobs.submit(request(rounds=2))
            async with asyncio.TaskGroup() as officers:
                for zone in ZONES:
                    officers.create_task(world.approve(zone))
                    officers.create_task(world.approve(zone, Kind.AGGREGATE))
            events = [event async for event in jobs.watch(job.id)]
            done = await jobs.job(job.id)
            assert done.state is JobState.DONE, (done, events)
            assert done.rounds_done == 2
            results = await jobs.results(job.id)
            assert {e.zone for e in results.evaluations} == {CN, US}
            model = max(results.models, key=lambda m: m.slot)
            assert model.lineage == (CN, US)
            ledgers = {site: await world.client(site, InsideRole.AUDITOR).ledger() for site in (HQ, *ZONES)}
            assert all(not view.halted for view in ledgers.values())

    asyncio.run(asyncio.wait_for(scenario(), 120))

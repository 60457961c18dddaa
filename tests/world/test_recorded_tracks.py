"""Recorded tracks in one zone, a simulated fleet in the other: data that nobody here generated goes the whole way."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from isthmus.contracts.crossings import Kind
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import Predictor
from isthmus.fleet import simulate
from isthmus.zone.results import read_results
from isthmus.zone.sources import tables_of
from world.world import CN, HQ, US, ZONES, World, plan, request, running

TRACKS = os.environ.get("ISTHMUS_TRACKS")


@pytest.mark.skipif(TRACKS is None, reason="ISTHMUS_TRACKS names no file of recorded tracks")
def test_training_on_recorded_tracks_beats_constant_velocity(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(World(tmp_path / "home")) as world:
            recorded = list(tables_of(Path(TRACKS or "")))
            assert not any({"vin", "lat", "lon"} & set(table.column_names) for table in recorded)
            await world.ingest(CN, recorded)
            await world.ingest(US, list(simulate(US, 24, 1, 3)))
            jobs = world.jobs()
            rounds = 15
            job = await jobs.submit(
                request(rounds, training=plan(rounds, epochs=2, adaptation_epochs=10, reference_epochs=10))
            )
            async with asyncio.TaskGroup() as officers:
                for zone in ZONES:
                    officers.create_task(world.approve(zone))
                    officers.create_task(world.approve(zone, Kind.AGGREGATE))
            async for _ in jobs.watch(job.id):
                pass
            assert (await jobs.job(job.id)).state is JobState.DONE
            async with asyncio.timeout(60):
                while (found := read_results(world.home / CN / "results", job.id)) is None:
                    await asyncio.sleep(0.05)
            ade = {figures.predictor: figures.ade_um for figures in found.figures}
            assert found.vehicles > 100
            assert ade[Predictor.ADAPTED] < ade[Predictor.CONSTANT_VELOCITY]
            assert ade[Predictor.FEDERATED] < ade[Predictor.CONSTANT_VELOCITY]
            assert {e.zone for e in (await jobs.results(job.id)).evaluations} == set(ZONES)
            assert HQ not in {e.zone for e in (await jobs.results(job.id)).evaluations}

    asyncio.run(asyncio.wait_for(scenario(), 180))

"""Kill -9 anywhere: the job finishes as if nothing had happened, and every ledger says so."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from isthmus.border.keeper.states import INBOUND, OUTBOUND, Inbound, Outbound
from isthmus.cli import federation
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import EvaluationPlan
from isthmus.contracts.roster import Roots
from isthmus.kit import journal
from isthmus.proof import canonical
from world import account, tiny
from world.mortal import AtCall, AtMove, Doom, MortalWorld
from world.world import CN, HQ, US, World, drives, request, running

SITES = (HQ, CN, US)
ROUNDS = 2


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the log of failures that are meant to be: formatting it takes longer than the runs."""
    journal.configure("test", logging.CRITICAL)
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template") / "home"
    federation.create(home, dataclasses.replace(federation.demo_plan(), algorithms=(tiny.ALGORITHM,)))

    async def ingest() -> None:
        async with running(World(home)) as world:
            for zone in (CN, US):
                await world.ingest(zone, drives(10, 1, seconds=5))

    asyncio.run(ingest())
    return home


def run(template: Path, tmp_path: Path, *dooms: Doom, whole: bool = False) -> tuple[MortalWorld, Digest]:
    home = tmp_path / "home"
    shutil.copytree(template, home)
    world = MortalWorld(home, SITES, dooms, whole=whole)

    async def scenario() -> Digest:
        async with world.living():
            officers = [asyncio.create_task(world.officers(zone)) for zone in (CN, US)]
            plan = EvaluationPlan(at_slots=(0, ROUNDS), band_um=20_000, minimum_vehicles=10)
            job = await world.jobs().submit(request(ROUNDS, algorithm=tiny.ALGORITHM.name, evaluation=plan))
            done = await world.finished(job.id)
            assert done.state is JobState.DONE, done
            await world.settled()
            for officer in officers:
                officer.cancel()
            auditors = {site: world.client(site, InsideRole.AUDITOR) for site in SITES}
            roots = canonical.load(Roots, (home / "roots.json").read_bytes())
            account.check({site: await auditor.evidence() for site, auditor in auditors.items()}, roots)
            assert not any([(await auditor.ledger()).halted for auditor in auditors.values()])
            for site in SITES:
                assert world.sealed_left(site) == []
                for row in world.rows(site, "SELECT id, reserved_bits, spent_bits FROM orders"):
                    charged = world.rows(site, f"SELECT sum(bits) FROM charge WHERE order_id = '{row['id']}'")[0][0]
                    assert (charged or 0) == row["spent_bits"] <= row["reserved_bits"]
            assert done.model is not None
            return done.model

    async def guarded():
        t = asyncio.create_task(scenario())
        done, _ = await asyncio.wait({t}, timeout=8)
        if not done:
            for task in asyncio.all_tasks(): task.print_stack(limit=6)
            for site in SITES:
                print(site, [tuple(r) for r in world.rows(site, "SELECT kind, direction,peer, slot, state, sequence FROM crossing")])
            for k, l in world._lives.items(): print(k, l.alive, [x.done() for x in l.tasks])
            t.cancel()
            await asyncio.wait({t})
            raise AssertionError("stuck")
        return t.result()
    return world, asyncio.run(guarded())


def test_undisturbed(template: Path, tmp_path: Path) -> None:
    import time

    t = time.monotonic()
    world, digest = run(template, tmp_path)
    print(time.monotonic() - t)
    print(digest)
    for m in sorted(map(str, world.moves)):
        print(m)
    print(world.calls)

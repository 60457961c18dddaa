"""Gate and keeper as two processes each, killed with SIGKILL in the middle of crossings: nothing is lost or done twice.

Every keeper dies at each of its states. Every gate dies at each of its keeper's states too, at the other side of the
same transaction: so in the middle of the call that brought it about.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from e2e.test_kill import LOOK_AGAIN_S, Process, _is_quiet, approve_all, patiently, round_done
from isthmus.border.settings import BorderSettings
from isthmus.cli import federation
from isthmus.cli.connections import border_of, jobs_of
from isthmus.cli.homes import Home
from isthmus.cli.screen import Exit
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import EvaluationPlan
from isthmus.contracts.roster import Roots
from isthmus.proof import canonical
from world import account, tiny
from world.dooms import AFTER, BEFORE, points
from world.world import CN, ENGINEER, HQ, World, drives, request, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import Evidence

pytestmark = pytest.mark.e2e

SITES = (HQ, CN)
ROUNDS = 3
WITHIN_S = 120
OF_THE_KEEPER = ("signing.seeds", "sealing.key", "pseudonym.key")
OF_THE_GATE = ("link.key", "link.pem", "pinned.pem")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the home of a federation with a frozen dataset in one zone, each border with its dooms."""
    home = tmp_path / "home"
    federation.create(home, dataclasses.replace(federation.demo_plan(), algorithms=(tiny.ALGORITHM,)))

    async def ingest() -> None:
        async with running(World(home), *SITES) as world:
            await world.ingest(CN, drives(2, 1, seconds=3))

    asyncio.run(ingest())
    for offset, site in enumerate(SITES):
        turns = (BEFORE, AFTER)
        for half, shift in (("dooms", 0), ("gate-dooms", 1)):
            names = [f"{way}-{at}-{turns[(n + offset + shift) % 2]}" for n, (way, at) in enumerate(points(site))]
            (home / site / half).write_text("\n".join(names))
    return home


@contextlib.contextmanager
def processes(home: Path) -> Iterator[dict[tuple[SiteId, str], Process]]:
    started: dict[tuple[SiteId, str], Process] = {}
    try:
        for site in SITES:
            for part in ("keeper", "gate", "coordinator" if site == HQ else "zone"):
                started[site, part] = Process(part, home / site)
        yield started
    finally:
        for process in started.values():
            process.stop()


async def settled(home: Home) -> dict[SiteId, Evidence]:
    """Return all evidence once every crossing that was sent is receipted and every order is closed."""
    while True:
        found = {}
        for site in SITES:
            async with border_of(home.site(site), InsideRole.AUDITOR) as auditor:
                assert (await patiently(auditor.ledger)).halted == {}
                found[site] = await patiently(auditor.evidence)
        if all(_is_quiet(part) for part in found.values()):
            return found
        await asyncio.sleep(LOOK_AGAIN_S)


def test_a_job_survives_sigkill_of_either_half_at_every_state(home: Path) -> None:
    plan = EvaluationPlan(at_slots=(0, 1, 2), band_um=20_000, minimum_vehicles=10)
    wanted = request(ROUNDS, (CN,), algorithm=tiny.ALGORITHM.name, evaluation=plan)

    async def scenario() -> None:
        opened = Home.open(home)
        officers = asyncio.create_task(approve_all(opened, CN))
        async with jobs_of(opened, ENGINEER) as jobs:
            job = (await patiently(lambda: jobs.submit(wanted, "once"))).id
            await round_done(jobs, job, ROUNDS)
            done = await patiently(lambda: jobs.job(job))
            assert done.state is JobState.DONE, done
            assert done.model == tiny.final_model(wanted.training.seed, ROUNDS, (CN,))
        account.check(await settled(opened), canonical.load(Roots, (home / "roots.json").read_bytes()))
        officers.cancel()

    with processes(home) as started:
        asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))
        assert not any(process.failed for process in started.values())
        for site in SITES:
            for dooms, struck in (("dooms", "struck"), ("gate-dooms", "gate-struck")):
                expected = sorted((home / site / dooms).read_text().split())
                assert sorted((home / site / struck).read_text().split()) == expected


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        *(("keeper", f"keys/{name}") for name in OF_THE_KEEPER),
        ("keeper", "tokens/officer"),
        ("keeper", "genesis.json"),
        *(("gate", f"keys/{name}") for name in OF_THE_GATE),
        ("gate", "genesis.json"),
    ],
)
def test_a_half_that_lacks_something_names_it_and_ends(tmp_path: Path, part: str, missing: str) -> None:
    federation.create(tmp_path / "home", federation.demo_plan())
    folder = tmp_path / "home" / HQ
    (folder / missing).unlink()
    ended = _serve(part, folder)
    assert ended.returncode == Exit.FAILED
    last = ended.stderr.strip().splitlines()[-1]
    assert '"code": "configuration"' in last
    assert missing.removeprefix("keys/").removesuffix("genesis.json") in last
    assert "genesis" in last or missing != "genesis.json"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("half", ["keeper", "gate"])
def test_a_half_needs_nothing_of_the_other(tmp_path: Path, half: str) -> None:
    """Each starts in a folder that holds its own files alone."""
    federation.create(tmp_path / "home", federation.demo_plan())
    folder = tmp_path / "home" / CN
    for name in OF_THE_GATE if half == "keeper" else OF_THE_KEEPER:
        (folder / "keys" / name).unlink()
    if half == "gate":
        for path in [*(folder / "tokens").iterdir(), *(folder / "policy").iterdir()]:
            path.unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus.cli.main", "serve", half, str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if half == "keeper":
            _until_there(BorderSettings.load(folder).keeper, process)
        else:
            assert process.stderr is not None
            assert "keeper_away" in process.stderr.readline()  # it runs, and waits for its keeper
            assert not (folder / "ledger.db").exists()
    finally:
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert process.returncode == Exit.OK, told


def test_a_second_keeper_does_not_take_the_socket(tmp_path: Path) -> None:
    federation.create(tmp_path / "home", federation.demo_plan())
    folder = tmp_path / "home" / CN
    first = subprocess.Popen(
        [sys.executable, "-m", "isthmus.cli.main", "serve", "keeper", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _until_there(BorderSettings.load(folder).keeper, first)
        second = _serve("keeper", folder)
        assert second.returncode == Exit.FAILED
        assert "Another keeper listens" in second.stderr
    finally:
        first.terminate()
        first.communicate(timeout=20)


def _serve(part: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a part that should end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "isthmus.cli.main", "serve", part, str(folder)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def _until_there(path: Path, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, "it has ended"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_AGAIN_S)

"""Six real processes, killed with SIGKILL: each border at each of its states, workers and coordinator in between.

What is checked is what an auditor can see: the ledgers of all three borders, over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from isthmus.cli import federation
from isthmus.cli.connections import border_of, jobs_of
from isthmus.cli.homes import Home
from isthmus.contracts.errors import Fault, Refusal
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.contracts.ledger import (
    INTERNAL_ENTRY,
    Log,
    OrderAccepted,
    OrderClosed,
    PrivacyReserved,
    PrivacySettled,
)
from isthmus.contracts.orders import EvaluationPlan
from isthmus.contracts.roster import Roots
from isthmus.proof import accounting, canonical
from world import account, tiny
from world.dooms import AFTER, BEFORE, points
from world.test_asking import request as question
from world.world import CN, ENGINEER, HQ, OFFICERS, US, ZONES, World, drives, request, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from isthmus.client.jobs import JobsClient
    from isthmus.contracts.answers import QueryView
    from isthmus.contracts.identifiers import JobId, SiteId
    from isthmus.contracts.inside import Evidence

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
SITES = (HQ, CN, US)
BORDERS = ("border", "keeper", "gate")
ROUNDS = 5
VICTIMS: tuple[tuple[tuple[SiteId, str], ...], ...] = (
    ((CN, "zone"),),
    ((HQ, "coordinator"),),
    ((US, "zone"), (HQ, "coordinator")),
)
"""Who dies, beside the borders, when the first rounds are done."""
WITHIN_S = 120
LOOK_AGAIN_S = 0.1
Answer = TypeVar("Answer")


class Process:
    """One process, started again whenever it was killed."""

    def __init__(self, part: str, folder: Path, behind: str = "serve_tiny.py") -> None:
        script = HERE / ("serve_with_kill.py" if part in BORDERS else behind)
        self._command = [sys.executable, str(script), part, str(folder)]
        self._log = folder / f"{part}.log"
        self._stopping = False
        self.kills = 0
        self.failed: int | None = None
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, process_group=0)

    def _watch(self) -> None:
        while (code := self._process.wait()) == -signal.SIGKILL and not self._stopping:
            self.kills += 1
            self._process = self._start()
        if not self._stopping:
            self.failed = code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        self._stopping = True
        while self._thread.is_alive():
            self.kill()
            self._thread.join(LOOK_AGAIN_S)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the home of a federation with a frozen dataset in each zone, each border with its dooms.

    Each border dies at each of its states, by turns before and after the move is durable; where one zone's border dies
    before, the other's dies after.
    """
    home = tmp_path / "home"
    federation.create(home, dataclasses.replace(federation.demo_plan(), algorithms=(tiny.ALGORITHM,)))

    async def ingest() -> None:
        async with running(World(home)) as world:
            for zone in ZONES:
                await world.ingest(zone, drives(2, 1, seconds=3))

    asyncio.run(ingest())
    for offset, site in enumerate(SITES):
        turns = (BEFORE, AFTER)
        names = [f"{way}-{state}-{turns[(n + offset) % 2]}" for n, (way, state) in enumerate(points(site))]
        (home / site / "dooms").write_text("\n".join(names))
    return home


@contextlib.contextmanager
def processes(home: Path) -> Iterator[dict[tuple[SiteId, str], Process]]:
    started: dict[tuple[SiteId, str], Process] = {}
    try:
        for site in SITES:
            for part in ("border", "coordinator" if site == HQ else "zone"):
                started[site, part] = Process(part, home / site)
        yield started
    finally:
        for process in started.values():
            process.stop()


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask until somebody answers: a process may just be dead."""
    while True:
        try:
            return await ask()
        except Fault:
            await asyncio.sleep(LOOK_AGAIN_S)


async def approve_all(home: Home, site: SiteId) -> None:
    """Sign each held release on its own, as both officers of a zone, for as long as it takes."""
    world = World(home.path)
    async with border_of(home.site(site), InsideRole.OFFICER) as officer:
        while True:
            for item in (await patiently(officer.review)).items:
                for person in OFFICERS[site]:
                    signed = world.signed(person, item, standing=False)
                    with contextlib.suppress(Refusal, Fault):  # let go meanwhile, or dead: look again
                        await officer.approve(signed)
            await asyncio.sleep(LOOK_AGAIN_S)


async def round_done(jobs: JobsClient, job: JobId, slot: int) -> None:
    """Wait until the model after `slot` is made, or the job is over."""
    after = 0
    while True:
        for event in await patiently(partial(jobs.events, job, after, 25)):
            after = event.ordinal
            if event.event in {"done", "failed"} or (event.event == "round_done" and event.slot == slot):
                return


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


def _is_quiet(part: Evidence) -> bool:
    sent = sum('"verdict":"sent"' in entry for entry in part.entries[Log.CROSSINGS])
    internal = [INTERNAL_ENTRY.validate_json(entry) for entry in part.entries[Log.INTERNAL]]
    accepted, closed = (sum(isinstance(entry, kind) for entry in internal) for kind in (OrderAccepted, OrderClosed))
    return sent == len(part.receipts) and accepted == closed


def test_a_job_survives_sigkill_at_every_state(home: Path) -> None:
    plan = EvaluationPlan(at_slots=(0, 1, 2), band_um=20_000, minimum_vehicles=10)
    wanted = request(ROUNDS, algorithm=tiny.ALGORITHM.name, evaluation=plan)

    async def scenario(started: dict[tuple[SiteId, str], Process]) -> None:
        opened = Home.open(home)
        officers = [asyncio.create_task(approve_all(opened, zone)) for zone in ZONES]
        async with jobs_of(opened, ENGINEER) as jobs:
            job = (await patiently(lambda: jobs.submit(wanted, "once"))).id
            for slot, victims in enumerate(
                ([(CN, "zone")], [(HQ, "coordinator")], [(US, "zone"), (HQ, "coordinator")])
            ):
                await round_done(jobs, job, slot)
                for victim in victims:
                    started[victim].kill()
            await round_done(jobs, job, ROUNDS)
            done = await patiently(lambda: jobs.job(job))
            assert done.state is JobState.DONE, done
            assert done.model == tiny.final_model(wanted.training.seed, ROUNDS, ZONES)
            content = await patiently(lambda: jobs.model_content(done.model))
            assert content
        account.check(await settled(opened), canonical.load(Roots, (home / "roots.json").read_bytes()))
        for officer in officers:
            officer.cancel()

    with processes(home) as started:
        asyncio.run(asyncio.wait_for(scenario(started), WITHIN_S))
        for site in SITES:
            dooms = (home / site / "dooms").read_text().split()
            assert sorted((home / site / "struck").read_text().split()) == sorted(dooms)
        assert [p.kills for key, p in started.items() if key[1] != "border"] == [2, 1, 1]
        assert not any(process.failed for process in started.values())


@pytest.fixture
def asked_home(tmp_path: Path) -> Path:
    """Return the home of a federation of the shipped algorithms, with a frozen dataset in each zone.

    The zone's border dies in the transaction of its slot, before it is durable and, by the crossing of it, after. The
    coordinator dies as an answer has been accepted, before it can have taken it.
    """
    home = tmp_path / "home"
    federation.create(home, dataclasses.replace(federation.demo_plan(), minimum_slot_s=1))

    async def ingest() -> None:
        async with running(World(home)) as world:
            for seed, zone in enumerate(ZONES):
                await world.ingest(zone, drives(30, seed, seconds=3))

    asyncio.run(ingest())
    for site in SITES:
        (home / site / "dooms").write_text("out-sealed-before\nout-logged-after" if site == CN else "")
    (home / HQ / "coordinator-dooms").write_text("in-accepted-after")
    return home


def pids(home: Path, site: SiteId, part: str) -> list[int]:
    """Return the process ids of a part's lives, the last one being the one that lives."""
    written = home / site / f"{part}.pid"
    return [int(pid) for pid in written.read_text().split()] if written.exists() else []


async def killed(home: Path, site: SiteId, part: str) -> None:
    """Kill a part, and wait for its next life."""
    *_, pid = pids(home, site, part)
    os.kill(pid, signal.SIGKILL)
    while pids(home, site, part)[-1] == pid:
        await asyncio.sleep(LOOK_AGAIN_S)


async def seen(jobs: JobsClient, job: JobId, enough: Callable[[QueryView], bool]) -> QueryView:
    """Look at a question until it stands so, or is over."""
    while True:
        view = await patiently(partial(jobs.query, job))
        if enough(view) or view.state is not JobState.RUNNING:
            return view
        await asyncio.sleep(LOOK_AGAIN_S)


async def keys_out(home: Home, zone: SiteId) -> None:
    """Wait until a zone's border has released the keys of an order."""
    async with border_of(home.site(zone), InsideRole.AUDITOR) as auditor:
        read = partial(auditor.entries, Log.INTERNAL, 0)
        while not any('"keys_released"' in entry for entry in (await patiently(read)).entries):
            await asyncio.sleep(LOOK_AGAIN_S)


def test_a_question_survives_sigkill_and_is_paid_for_once(asked_home: Path) -> None:
    """The coordinator dies once it has taken the question, once it has ordered, once it has one answer of two, and as
    an answer comes; a zone's worker with keys out; its border as the answer leaves. The other zone stands still until
    the first has answered.
    """

    async def scenario(started: dict[tuple[SiteId, str], Process]) -> None:
        opened = Home.open(asked_home)
        os.kill(pids(asked_home, US, "zone")[-1], signal.SIGSTOP)
        async with jobs_of(opened, ENGINEER) as jobs:
            asked = question("SELECT count(DISTINCT vehicle) FROM drives", slot_s=2)
            job = (await patiently(lambda: jobs.ask(asked, "once"))).id
            await killed(asked_home, HQ, "coordinator")
            await seen(jobs, job, lambda view: all(zone.waiting == "answer" for zone in view.zones))
            await killed(asked_home, HQ, "coordinator")
            await keys_out(opened, CN)
            await killed(asked_home, CN, "zone")
            view = await seen(jobs, job, lambda view: bool(view.answered))
            assert (view.state, view.answered) == (JobState.RUNNING, (CN,)), view
            await killed(asked_home, HQ, "coordinator")
            os.kill(pids(asked_home, US, "zone")[-1], signal.SIGCONT)
            view = await seen(jobs, job, lambda _: False)
            assert (view.state, set(view.answered)) == (JobState.DONE, set(ZONES)), view
            assert (await patiently(lambda: jobs.ask(asked, "once"))).id == job
        evidence = await settled(opened)
        account.check(evidence, canonical.load(Roots, (asked_home / "roots.json").read_bytes()))
        for zone in ZONES:
            internal = [INTERNAL_ENTRY.validate_json(entry) for entry in evidence[zone].entries[Log.INTERNAL]]
            (reserved,) = [entry for entry in internal if isinstance(entry, PrivacyReserved)]
            assert [entry.outcome for entry in internal if isinstance(entry, PrivacySettled)] == ["spent"]
            async with border_of(opened.site(zone), InsideRole.AUDITOR) as auditor:
                budget = await patiently(auditor.privacy)
            assert budget.budget is not None
            assert budget.epsilon_micro == accounting.spent_micro(reserved.curve, budget.budget)
            assert (budget.answered, budget.open) == (1, 0)
        assert not any(process.failed for process in started.values())

    with asking(asked_home) as started:
        asyncio.run(asyncio.wait_for(scenario(started), WITHIN_S))
        assert (asked_home / CN / "struck").read_text().split() == ["out-sealed-before", "out-logged-after"]
        assert (asked_home / HQ / "coordinator-struck").read_text().split() == ["in-accepted-after"]
        assert [len(pids(asked_home, *each)) for each in BEHIND] == [5, 2, 1]


BEHIND = ((HQ, "coordinator"), (CN, "zone"), (US, "zone"))


@contextlib.contextmanager
def asking(home: Path) -> Iterator[dict[tuple[SiteId, str], Process]]:
    """Start every border, and what is shipped to stand behind it."""
    started: dict[tuple[SiteId, str], Process] = {}
    try:
        for site, part in BEHIND:
            started[site, "border"] = Process("border", home / site)
            started[site, part] = Process(part, home / site, "serve_shipped.py")
        while not all(pids(home, *each) for each in BEHIND):
            time.sleep(LOOK_AGAIN_S)
        yield started
    finally:
        for process in started.values():
            process.stop()

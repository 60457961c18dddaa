"""A full disk while the ledger appends: the caller hears `ledger_unavailable`, nothing is half done, and it goes on.

The disk is full for real as far as SQLite is concerned: its file may not grow by another page.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from isthmus.border.gate.framing import message_in
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, JobId
from isthmus.contracts.inside import CloseOrder, InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.contracts.ledger import Log
from isthmus.contracts.link import LinkProblem
from isthmus.proof.ids import order_id
from security.rogue import Rogue, opened_receipt
from security.scene import CN, HQ, US, Scene, approve_all, evaluation, grant_of, model, order_for, refusal, unharmed
from security.wiretap import TappedWorld, quick_world
from world.world import OFFICERS, ZONES, drives, request, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.border.app import Border
    from isthmus.contracts.identifiers import SiteId

ORDER = order_for(CN)
UPDATE = Kind.MODEL_UPDATE


def fill(border: Border) -> None:
    """Let the ledger's file grow no further, and use up what room there is left in it."""
    border.store.limit_pages(1)
    with refusal(Code.LEDGER_UNAVAILABLE):
        write_on(border)


def write_on(border: Border) -> None:
    peer = CN if border.keeper.ledger().site == HQ else HQ
    while True:
        border.keeper.inbound.turn_away(peer, Code.MALFORMED, Digest.of(b""))


def make_room(border: Border) -> None:
    border.store.limit_pages(2**30)


@contextmanager
def full_disk(scene: Scene, site: SiteId) -> Iterator[None]:
    """Hold a border whose disk is full to its having changed nothing."""
    border = scene.border(site)
    fill(border)
    with unharmed(scene, site):
        yield
    make_room(border)


def test_a_release_waits_for_room(scene: Scene) -> None:
    for _ in range(2):
        with full_disk(scene, CN), refusal(Code.LEDGER_UNAVAILABLE):
            scene.release(ORDER, UPDATE, 0, model())
    assert scene.release(ORDER, UPDATE, 0, model()).state == "held"
    assert [row[3] for row in scene.picture(CN).budget] == [8 * len(model())], "charged once"


def test_a_refused_release_is_charged_once_there_is_room(scene: Scene) -> None:
    """An error while noting a refusal does not turn it into something else."""
    with full_disk(scene, CN), refusal(Code.LEDGER_UNAVAILABLE):
        scene.release(ORDER, UPDATE, 0, b"no model")
    with refusal(Code.TOO_LARGE):
        scene.release(ORDER, UPDATE, 0, b"no model")
    assert [row[3] for row in scene.picture(CN).budget] == [8 * len(model())]


def test_an_approval_that_cannot_be_noted_lets_nothing_out(scene: Scene) -> None:
    scene.release(ORDER, UPDATE, 0, model())
    with full_disk(scene, CN), refusal(Code.LEDGER_UNAVAILABLE):
        approve_all(scene, CN)
    approve_all(scene, CN)
    assert scene.keeper(CN).review.waiting().items == ()


def test_no_key_is_released_that_cannot_be_noted(scene: Scene) -> None:
    with full_disk(scene, CN), refusal(Code.LEDGER_UNAVAILABLE):
        grant_of(scene, CN, order_id(ORDER))
    assert len(grant_of(scene, CN, order_id(ORDER)).files) == 1


def test_an_order_is_not_closed_by_half(scene: Scene) -> None:
    with full_disk(scene, CN), refusal(Code.LEDGER_UNAVAILABLE):
        scene.keeper(CN).close_order(CloseOrder(order=order_id(ORDER), code=Code.COMPUTE_FAILED))
    scene.keeper(CN).close_order(CloseOrder(order=order_id(ORDER), code=Code.COMPUTE_FAILED))
    assert [row[1] for row in scene.picture(CN).budget] == ["failed"]


def test_an_order_is_not_given_by_half(scene: Scene) -> None:
    second = order_for(CN, job=JobId("job-00000000000000bb"))
    with full_disk(scene, HQ), refusal(Code.LEDGER_UNAVAILABLE):
        scene.give(second)
    assert scene.give(second).state == "logged"


def test_what_comes_over_the_link_waits_for_room(scene: Scene) -> None:
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=scene.keeper(HQ).inbound.cursor(CN) + 1)
    for _ in range(2):
        with full_disk(scene, HQ):
            assert rogue.put(scene, right).code is Code.LEDGER_UNAVAILABLE
    answer = rogue.put(scene, right)
    assert answer.receipt is not None
    assert opened_receipt(scene, HQ, answer.receipt).verdict == "accepted"


def test_what_a_zone_fetches_waits_for_room(scene: Scene) -> None:
    rogue = Rogue(scene.home, HQ)
    right = rogue.crossing(ORDER, Kind.MODEL, sequence=scene.keeper(CN).inbound.cursor(HQ) + 1, slot=1)
    with full_disk(scene, CN):
        answer = rogue.offer(scene, CN, right)
        assert (answer.receipt, answer.code) == (None, Code.LEDGER_UNAVAILABLE)
    answer = rogue.offer(scene, CN, right)
    assert answer.receipt is not None
    assert opened_receipt(scene, CN, answer.receipt).verdict == "accepted"


def test_the_full_disk_of_one_zone_does_not_stop_the_other(scene: Scene) -> None:
    fill(scene.border(CN))
    scene.release(order_for(US), Kind.AGGREGATE, 0, evaluation())
    approve_all(scene, US)
    assert scene.pass_on(US, HQ) == 2, "the notice that it was held, and the release"
    make_room(scene.border(CN))


@pytest.mark.parametrize("site", [CN, HQ])
def test_a_job_goes_on_to_its_end_once_there_is_room(tmp_path: Path, site: SiteId) -> None:
    """All of it runs: coordinator, workers, links. The disk fills up in the middle and is emptied again."""

    async def scenario() -> None:
        async with running(quick_world(tmp_path / "home")) as world:
            await a_job_over_a_full_disk(world, site)

    asyncio.run(asyncio.wait_for(scenario(), 60))


async def a_job_over_a_full_disk(world: TappedWorld, site: SiteId) -> None:
    for seed, zone in enumerate(ZONES):
        await world.ingest(zone, drives(12, seed, seconds=6.0))
    jobs = world.jobs()
    job = await jobs.submit(request(rounds=3))
    first = {zone: await world.held(zone) for zone in ZONES}
    border = world.sites[site].border
    await asyncio.to_thread(fill, border)
    if site == CN:
        with refusal(Code.LEDGER_UNAVAILABLE):
            await world.client(CN, InsideRole.OFFICER).approve(world.signed(OFFICERS[CN][0], first[CN]))
    else:
        world.tap.failed.clear()
        await asyncio.gather(*(world.approve(zone) for zone in ZONES))
        await world.tap.failed.wait()
        assert message_in(LinkProblem, world.tap.errors[-1], 1024).code is Code.LEDGER_UNAVAILABLE
    filled = border.keeper.entries(Log.CROSSINGS, 0).entries
    await asyncio.to_thread(make_room, border)
    if site == CN:
        await asyncio.gather(*(world.approve(zone) for zone in ZONES))
    await asyncio.gather(*(world.approve(zone, Kind.AGGREGATE) for zone in ZONES))
    async for _ in jobs.watch(job.id):
        pass
    assert (await jobs.job(job.id)).state is JobState.DONE
    entries = border.keeper.entries(Log.CROSSINGS, 0).entries
    assert entries[: len(filled)] == filled
    assert len(entries) == len(set(entries)) > len(filled)
    for each in (HQ, *ZONES):
        assert not (await world.client(each, InsideRole.AUDITOR).ledger()).halted

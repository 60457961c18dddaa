"""A zone's worker before its real border: killed anywhere it goes on, and what one order cannot do stops no other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, JobId, Name
from isthmus.contracts.inside import CandidateHeader, InsideRole
from isthmus.contracts.orders import Algorithm, DatasetRef, EvaluationPlan, Order, Predictor, TrainingPlan, Weighting
from isthmus.contracts.raw_table import Group
from isthmus.fleet import simulate
from isthmus.learning import algorithm, weights
from isthmus.learning.forecaster import MODEL_SCHEMA, initial_weights
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.zone.app import build
from isthmus.zone.compute import InProcessCompute
from isthmus.zone.progress import Progress
from isthmus.zone.results import ZoneResults, read_results
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.store import MemoryStore
from unit.zone.sites import HQ, NOW, ZONE, make_borders

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.identifiers import OrderId
    from isthmus.contracts.inside import Delivery
    from isthmus.zone.app import Zone
    from unit.zone.sites import Borders

FLEET = DatasetRef(dataset=Name("fleet"), snapshot=Name("one"))
ROUNDS = 2


def an_order(number: int, held_out: int = 10) -> Order:
    return Order(
        version=1,
        job=JobId(f"job-{number:016x}"),
        issuer=HQ,
        zone=ZONE,
        algorithm=Algorithm(name=algorithm.NAME, digest=algorithm.digest()),
        dataset=FLEET,
        groups=(Group.MOTION,),
        purpose=Name("forecasting"),
        recipients=(ZONE, HQ),
        outputs=(Kind.AGGREGATE, Kind.MODEL_UPDATE),
        training=TrainingPlan(
            rounds=ROUNDS,
            epochs=1,
            batch_size=64,
            learning_rate_micro=1_000,
            seed=number,
            weighting=Weighting.VEHICLES,
            held_out_vehicles=held_out,
            split_salt=Name("salt"),
            adaptation_epochs=1,
            reference_epochs=2,
        ),
        evaluation=EvaluationPlan(at_slots=(ROUNDS,), band_um=10_000, minimum_vehicles=10),
        tensors=MODEL_SCHEMA,
        clip_norm_micro=10_000_000,
        base=None,
        issued_at=NOW,
        expires_at=NOW + 3600,
    )


@dataclass(slots=True)
class Headquarters:
    """A coordinator reduced to what a zone sees of it: orders, models, and one update that makes the next model."""

    borders: Borders
    cursor: int = 0

    async def send(self, kind: Kind, order: OrderId, slot: int, payload: bytes) -> None:
        header = CandidateHeader(order=order, kind=kind, recipient=ZONE, slot=slot, size=len(payload))
        await self.borders.hq.client(InsideRole.SUBMITTER).submit(header, payload)

    async def order(self, order: Order) -> OrderId:
        await self.send(Kind.ORDER, order_id(order), 0, canonical.dump(order))
        await self.send(Kind.MODEL, order_id(order), 0, weights.encode(initial_weights(1)))
        return order_id(order)

    async def turn(self) -> list[Delivery]:
        """Carry what waits, approve what is held, answer updates with models; return what came in."""
        self.borders.carry()
        for kind in (Kind.MODEL_UPDATE, Kind.AGGREGATE):
            await self.borders.approve(kind)
        came = await self.borders.hq.client(InsideRole.SUBMITTER).deliveries(self.cursor, 0)
        for delivery in came:
            self.cursor = delivery.ordinal
            if delivery.kind is Kind.MODEL_UPDATE:
                update = await self.borders.hq.client(InsideRole.SUBMITTER).payload(delivery.crossing)
                await self.send(Kind.MODEL, delivery.order, delivery.slot + 1, bytes(update))
        return list(came)


def a_zone(home: Path, borders: Borders) -> Zone:
    settings = ZoneSettings(
        site=ZONE,
        border_url="http://border",
        store=home / "store",
        catalogue=home / "catalogue.db",
        results=home / "results",
    )
    return build(settings, borders.clock)


async def worked(
    home: Path, borders: Borders, orders: list[Order], *, killed: bool = False, spoil: bool = False
) -> tuple[list[Delivery], list[ZoneResults | None], list[Code | None]]:
    """Ingest, give the orders, and let the worker serve them.

    Where it is `killed`, that is after 1 turn, 2 more, 3 more and so on: often, and still it comes to an end.

    Returns:
        What came out, the zone's results, and with what code each order was closed.
    """
    zone, hq = a_zone(home, borders), Headquarters(borders)
    fleet = simulate("cn-shanghai", 20, 0.3, 1)
    await zone.ingest(fleet, dataset=FLEET, border=borders.zone.client(InsideRole.INGEST))
    if spoil:
        _spoil(home)
    ids = {await hq.order(order) for order in orders}
    came: list[Delivery] = []
    patience = 0
    while not _done(zone, borders, ids):
        patience += 1
        stop = asyncio.Event()
        serving = asyncio.create_task(zone.worker(borders.zone.client(InsideRole.COMPUTE)).run(stop))
        turns = 0
        while not serving.done() and not _done(zone, borders, ids) and not (killed and turns == patience):
            came += await hq.turn()
            await asyncio.sleep(0.01)  # the worker's turn: nothing is timed by it
            turns += 1
        stop.set()
        await serving
    came += await hq.turn()
    results = [read_results(zone.results, order.job) for order in orders]
    codes = [standing.code for order in orders if (standing := Progress(zone.database).standing(order_id(order)))]
    zone.close()
    return came, results, codes


def _spoil(home: Path) -> None:
    path = next(home.rglob("motion.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def _done(zone: Zone, borders: Borders, ids: set[OrderId]) -> bool:
    """All orders are closed, and the worker has done with all that its border had for it."""
    progress = Progress(zone.database)
    standings = [progress.standing(order) for order in ids]
    closed = all(standing is not None and standing.state == "closed" for standing in standings)
    return closed and not borders.zone.keeper.inbound.deliveries(progress.cursor()[0]).items


def releases(came: list[Delivery], order: Order) -> list[tuple[Kind, int]]:
    return [(d.kind, d.slot) for d in came if d.order == order_id(order) and d.kind is not Kind.NOTICE]


def same_pseudonyms(borders: Borders) -> Borders:
    """Give the border a known pseudonym key: two borders draw different ones, so different vehicles are held out."""
    object.__setattr__(borders.zone.keeper._desk.keys, "pseudonym", bytes(32))
    return borders


def test_a_worker_killed_anywhere_brings_what_one_that_was_not_brings(tmp_path: Path) -> None:
    order = an_order(1)
    runs: dict[bool, ZoneResults] = {}
    for killed in (False, True):
        home = tmp_path / str(killed)
        borders = same_pseudonyms(make_borders(home / "borders"))
        came, (results,), codes = asyncio.run(worked(home / "zone", borders, [order], killed=killed))
        assert results is not None
        assert codes == [None]
        assert sorted(releases(came, order)) == [
            (Kind.AGGREGATE, ROUNDS),
            (Kind.MODEL_UPDATE, 0),
            (Kind.MODEL_UPDATE, 1),
        ]
        runs[killed] = results.model_copy(update={"training_us_median": 0})
    assert runs[True] == runs[False]
    assert {figures.predictor for figures in runs[True].figures} == set(Predictor)
    assert (runs[True].vehicles, runs[True].held_out_vehicles) == (10, 10)


def test_an_order_that_cannot_be_done_fails_alone_with_a_code(tmp_path: Path) -> None:
    impossible, possible = an_order(1, held_out=20), an_order(2)
    borders = make_borders(tmp_path / "borders")
    came, results, codes = asyncio.run(worked(tmp_path / "zone", borders, [impossible, possible]))
    assert codes == [Code.INPUT_INVALID, None]
    assert releases(came, impossible) == []
    assert len(releases(came, possible)) == 3
    assert (results[0], results[1] is None) == (None, False)


def test_a_changed_file_closes_the_order_and_nothing_of_it_leaves(tmp_path: Path) -> None:
    order = an_order(1)
    borders = make_borders(tmp_path / "borders")
    came, results, codes = asyncio.run(worked(tmp_path / "zone", borders, [order], spoil=True))
    assert codes == [Code.FILE_ALTERED]
    assert releases(came, order) == []
    assert results == [None]


def test_another_algorithm_than_the_installed_one_is_not_run(tmp_path: Path) -> None:
    """The border refuses it first; compute, which asks nobody, refuses it too."""
    order = an_order(1).model_copy(update={"algorithm": Algorithm(name=algorithm.NAME, digest=Digest.of(b"other"))})
    with pytest.raises(Refusal) as refusal:
        InProcessCompute(MemoryStore()).prepare(order)
    assert refusal.value.code is Code.ALGORITHM_UNKNOWN

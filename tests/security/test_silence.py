"""What a border shows besides its answers: nothing that tells one vehicle from none.

Refusals, codes, times and logs are the same whatever the data; what fails once data has been touched looks like any
other answer that is not released, and costs as much. Peers refuse at once, with their reason, for nothing.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from isthmus.border.slots import at_slots
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.inside import CloseOrder
from isthmus.contracts.queries import Figure, FigureKind, PrivacyBudget
from isthmus.contracts.raw_table import Group
from isthmus.proof.ids import crossing_id, order_id
from security import asking
from security.asking import answer_of, ask, at_the_slot, hand_in, plan
from security.scene import CN, HQ, Picture, Scene, grant_of, refusal, sent_manifest
from unit.privacy.crowd import Row, figure, fleet, partials, question

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.contracts.identifiers import CrossingId
    from isthmus.contracts.orders import Order
    from isthmus.contracts.queries import Partials, QuerySpec

LARGE = PrivacyBudget(epsilon_micro=1_000_000_000, delta_exponent=6)
RUNS = 120


@pytest.fixture(scope="module")
def asked_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("silent") / "home"
    asking.set_up(home, LARGE, open_orders=2 * RUNS)
    return home


@pytest.fixture
def scene(asked_home: Path, tmp_path: Path) -> Iterator[Scene]:
    scene = opened(asked_home, tmp_path / "home")
    yield scene
    scene.close()


def opened(asked_home: Path, home: Path) -> Scene:
    shutil.copytree(asked_home, home)
    return Scene(home)


def heavy(vehicle: int, drives: int) -> list[Row]:
    """Return a vehicle at the upper end of every measure."""
    measures = {"distance_km": 3_000, "speed_mps": 4_000, "braking_share": 1_000, "headway_s": 1_000, "cut_ins": 20}
    return [Row(vehicle, {"road_type": "freeway", "road_class": "interurban", "traffic": "dense"}, measures)] * drives


FEW = [Row(5_000 + n, row.dimensions, row.measures) for n, row in enumerate(heavy(0, 9))]
CROWDS = {"nobody or one": [], "nine or ten": FEW, "sixty or one more": fleet("us", 60)}
BUSY = question(
    figure(FigureKind.VEHICLES),
    figure(FigureKind.MEAN, "speed_mps"),
    figure(FigureKind.HISTOGRAM, "headway_s", bins=4),
    by=["road_type"],
    groups=2,
)


def seen(picture: Picture) -> list[Any]:
    """Return all that a border's logs, tables and deliveries say, but for what is random or is the answer itself."""
    crossings = []
    for verdict, code, envelope in picture.crossings:
        manifest = sent_manifest(envelope)
        random = {"payload", "information_bits", "commitments", "crossing", "order"}
        crossings.append((verdict, code, {k: v for k, v in manifest.items() if k not in random}))
    random = {"sealed", "run", "commitment", "crossing", "order", "genesis", "envelope", "question", "curve", "keyid"}
    internal = [{k: v for k, v in event.items() if k not in random} for event in picture.internal]
    return [crossings, internal, len(picture.deliveries), [row[1:] for row in picture.budget], len(picture.blobs)]


def watched(scene: Scene, order: Order, sums: Partials) -> list[Any]:
    """Ask, and look at both borders whenever something may have changed."""
    looks = []
    ask(scene, order)
    grant_of(scene, CN, order_id(order), (Group.DRIVES,))
    for step in (0, 1, asking.SLOT_S - 2, 1, 1):
        scene.clock.advance(step)
        scene.keeper(CN).statistics.release_due()
        scene.carry()
        looks.append([seen(scene.picture(site))[1:] if site == CN else seen(scene.picture(site)) for site in (CN, HQ)])
        if step == 0:
            looks.append([hand_in(scene, order, sums).state])
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order)))
    looks.append([seen(scene.picture(site)) for site in (CN, HQ)])
    return looks


@pytest.mark.parametrize("crowd", CROWDS)
def test_one_heavy_vehicle_changes_no_event_no_code_no_slot_and_no_charge(
    asked_home: Path, tmp_path: Path, crowd: str
) -> None:
    looks = []
    for number, extra in enumerate(([], heavy(9_000, 2_000))):
        scene = opened(asked_home, tmp_path / str(number))
        looks.append(watched(scene, asking.asking(1, plan(BUSY)), partials(BUSY, CROWDS[crowd] + extra)))
        scene.close()
    assert looks[0] == looks[1]


def test_the_size_of_what_crosses_tells_the_heavy_vehicle_no_better_than_epsilon_allows(scene: Scene) -> None:
    """The cell stands at the threshold: with the vehicle it is shown more often, so answers are longer."""
    spec = question(figure(FigureKind.ROWS), rows=10, by=["road_type"], groups=1)
    crowd = [Row(5_000 + n, row.dimensions, row.measures) for n, row in enumerate(heavy(0, 25))]
    sizes = [
        sizes_of(scene, spec, partials(spec, crowd + extra), at) for at, extra in enumerate(([], heavy(9_000, 10)))
    ]
    cuts = sorted({*sizes[0], *sizes[1]})
    best = max(abs(share(sizes[1], cut) - share(sizes[0], cut)) for cut in cuts)
    margin = 2 * math.sqrt(2 / RUNS)  # of two shares of RUNS answers, and the attacker picks the best cut
    assert 0 < best <= (math.e - 1) / (math.e + 1) + margin
    assert min(len(set(found)) for found in sizes) > 1  # it is noise, not the data, that decides


def sizes_of(scene: Scene, spec: QuerySpec, sums: Partials, place: int) -> list[int]:
    """Return the sizes of many answers to one question, asked at epsilons that differ by a hair."""
    orders = [
        asking.asking(1_000 * (place + 1) + n, plan(spec, epsilon_micro=1_000_000 - 2 * n - place)) for n in range(RUNS)
    ]
    for order in orders:
        scene.give(order)
    scene.carry()
    for order in orders:
        hand_in(scene, order, sums)
    at_the_slot(scene)
    mine = {order_id(order) for order in orders}
    sent = [sent_manifest(text) for verdict, _, text in scene.picture(CN).crossings if verdict == "sent"]
    found = [m["information_bits"] for m in sent if m["kind"] == Kind.AGGREGATE and m["order"] in mine]
    assert len(found) == RUNS
    return found


def share(sizes: list[int], cut: int) -> float:
    return sum(size >= cut for size in sizes) / len(sizes)


@pytest.mark.parametrize("code", [Code.COMPUTE_FAILED, Code.SCHEMA_MISMATCH, Code.FILE_ALTERED, Code.DATASET_UNKNOWN])
def test_what_fails_once_keys_are_out_says_so_at_its_slot_and_costs_an_answer(scene: Scene, code: Code) -> None:
    order = asking.asking(1)
    ask(scene, order)
    paid = scene.keeper(CN).statistics.view().epsilon_micro
    grant_of(scene, CN, order_id(order), (Group.DRIVES,))
    scene.clock.advance(1)
    sizes = [scene.keeper(CN).ledger().logs]
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=code))
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=Code.EXPIRED))  # said again: nothing more
    sizes.append(scene.keeper(CN).ledger().logs)
    assert [log.size for log in sizes[0]] == [log.size for log in sizes[1]]  # peers see the logs grow
    scene.clock.advance(asking.SLOT_S - 2)
    scene.keeper(CN).statistics.release_due()
    scene.carry()
    assert told(scene, order) == []
    scene.clock.advance(1)
    scene.keeper(CN).statistics.release_due()
    scene.carry()
    about = crossing_id(order_id(order), Kind.AGGREGATE, HQ, 0)
    assert told(scene, order) == [(Kind.NOTICE, Code.NOT_RELEASED, about)]
    assert scene.keeper(CN).statistics.view().epsilon_micro == paid > 0
    internal = scene.picture(CN)
    assert [e["outcome"] for e in internal.events("privacy_settled")] == ["spent"]
    assert internal.events("decided")[-2]["code"] == code  # the officer and the auditor are told why
    assert internal.events("order_closed")[-1]["reason"] == "failed"


def test_an_order_ends_with_its_answer_and_not_when_compute_comes_to_say_so(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    hand_in(scene, order)
    at_the_slot(scene)
    after = scene.picture(CN)
    assert [(e["order"], e["reason"]) for e in after.events("order_closed")] == [(order_id(order), "complete")]
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order)))
    assert scene.picture(CN) == after
    assert hand_in(scene, order).state == "receipted"


def told(scene: Scene, order: Order) -> list[tuple[Kind, Code | None, CrossingId | None]]:
    items = scene.keeper(HQ).inbound.deliveries(0).items
    return [(i.kind, i.code, i.about) for i in items if i.order == order_id(order)]


def test_failing_buys_no_second_try(scene: Scene) -> None:
    """A question that is made to fail (too slow, too large) is paid for each time it is asked."""
    costs = []
    for number in (1, 2, 3):
        order = asking.asking(number)
        ask(scene, order)
        grant_of(scene, CN, order_id(order), (Group.DRIVES,))
        scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=Code.COMPUTE_FAILED))
        at_the_slot(scene)
        costs.append(scene.keeper(CN).statistics.view().epsilon_micro)
    assert costs == [1_000_000, 2_000_000, 3_000_000]


def test_a_question_that_was_given_up_takes_no_sums_and_no_keys(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    grant_of(scene, CN, order_id(order), (Group.DRIVES,))
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=Code.COMPUTE_FAILED))
    with refusal(Code.ORDER_CLOSED):
        hand_in(scene, order)
    with refusal(Code.ORDER_CLOSED):
        grant_of(scene, CN, order_id(order), (Group.DRIVES,))
    scene.stop(CN)
    at_the_slot(scene)
    assert answer_of(scene, order) is None
    assert [code for _, code, _ in told(scene, order)] == [Code.NOT_RELEASED]


def test_an_order_that_ends_while_it_is_counted_gets_nothing_back(scene: Scene) -> None:
    """Else an order that is valid for a minute tells for nothing whether counting takes longer than that."""
    order = asking.asking(1, issued_at=scene.clock.now(), expires_at=scene.clock.now() + 60)
    ask(scene, order)
    grant_of(scene, CN, order_id(order), (Group.DRIVES,))
    scene.clock.advance(61)
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=Code.COMPUTE_FAILED))
    scene.carry()
    assert [code for _, code, _ in told(scene, order)] == [Code.EXPIRED]
    assert scene.keeper(CN).statistics.view().epsilon_micro == 1_000_000


VARIANCE = question(Figure(kind=FigureKind.VARIANCE, measure="speed_mps"))


@pytest.mark.parametrize("epsilon_micro", [1, 100])
def test_an_epsilon_that_no_noise_can_state_is_refused_and_the_link_goes_on(scene: Scene, epsilon_micro: int) -> None:
    tiny, usual = asking.asking(1, plan(VARIANCE, epsilon_micro=epsilon_micro)), asking.asking(2)
    ask(scene, tiny)
    assert [e["code"] for e in scene.picture(CN).events("decided")] == [Code.INPUT_INVALID]
    assert scene.keeper(CN).statistics.view().epsilon_micro == 0
    ask(scene, usual)
    assert scene.picture(CN).events("decided")[-1]["outcome"] == "accept"


ALTERED = {
    "sums that do not parse": ("partials", b"{}"),
    "vehicles that do not parse": ("contributors", b"\xff"),
    "a cost that is no list": ("curve", "nonsense"),
}
"""Rows as a bad disk or a defect would leave them: column and value."""


def altered(scene: Scene, order: Order, column: str, value: bytes | str) -> bytes | str:
    """Alter one column of a question's row; return what it held."""
    with scene.border(CN).store.transaction() as tx:
        row = tx.row("SELECT * FROM question WHERE order_id = ?", order_id(order))
        tx.execute(f"UPDATE question SET {column} = ? WHERE order_id = ?", value, order_id(order))  # noqa: S608 -- ours
    assert row is not None
    held: bytes | str = row[column]
    return held


@pytest.mark.parametrize("what", ALTERED)
def test_an_answer_that_cannot_be_let_out_keeps_no_other_back(scene: Scene, what: str) -> None:
    first, second = asking.asking(1), asking.asking(2, plan(asking.spec(asking.VEHICLES)))
    for order in (first, second):
        ask(scene, order)
        hand_in(scene, order)
    stuck = min(first, second, key=order_id)  # the one that is let out first
    other = second if stuck is first else first
    column, value = ALTERED[what]
    held = altered(scene, stuck, column, value)
    paid = scene.keeper(CN).statistics.view().epsilon_micro
    with capture_logs() as logs:
        at_the_slot(scene)
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["event"], entry["order"]) for entry in errors] == [("answer_put_off", order_id(stuck))]
    assert answer_of(scene, other) is not None
    assert (answer_of(scene, stuck), told(scene, stuck)) == (None, [])
    assert scene.keeper(CN).statistics.view().epsilon_micro == paid
    altered(scene, stuck, column, held)
    assert scene.keeper(CN).statistics.release_due() == scene.clock.now() + asking.SLOT_S  # its next slot
    at_the_slot(scene)
    assert answer_of(scene, stuck) is not None
    assert scene.keeper(CN).statistics.view().epsilon_micro == paid


def test_an_answer_that_is_never_let_out_ends_as_not_released_with_its_last_slot(scene: Scene) -> None:
    valid_s = 12 * asking.SLOT_S
    order = asking.asking(1, issued_at=scene.clock.now(), expires_at=scene.clock.now() + valid_s)
    ask(scene, order)
    hand_in(scene, order)
    altered(scene, order, "partials", b"{}")
    dues = []
    while (due := scene.keeper(CN).statistics.release_due()) is not None:
        dues.append(due - scene.clock.now())
        assert told(scene, order) == []
        scene.clock.advance(dues[-1])
    scene.carry()
    assert dues == [asking.SLOT_S * n for n in (1, 1, 2, 4, 4)]  # at 1, 2, 4, 8 slots, and the last before it expires
    assert [(kind, code) for kind, code, _ in told(scene, order)] == [(Kind.NOTICE, Code.NOT_RELEASED)]
    assert [e["outcome"] for e in scene.picture(CN).events("privacy_settled")] == ["spent"]
    assert scene.keeper(CN).statistics.view().epsilon_micro == 1_000_000


def test_what_cannot_even_be_put_off_to_a_slot_stops_neither_the_others_nor_the_border(scene: Scene) -> None:
    """The order's own row is gone: nothing says when its slots are, or whom to tell."""
    lost, other = asking.asking(1), asking.asking(2, plan(asking.spec(asking.VEHICLES)))
    for order in (lost, other):
        ask(scene, order)
        hand_in(scene, order)
    with scene.border(CN).store.transaction() as tx:
        tx.execute("UPDATE orders SET body = ? WHERE id = ?", b"{}", order_id(lost))
    scene.clock.advance(asking.SLOT_S)

    async def until_the_other_has_left() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(at_slots(scene.keeper(CN).statistics, scene.clock, stop))
        async with asyncio.timeout(20):
            while scene.keeper(CN).statistics.view().open > 1:
                await asyncio.sleep(0)
        assert not serving.done()
        stop.set()
        await serving

    asyncio.run(until_the_other_has_left())
    scene.carry()
    assert answer_of(scene, other) is not None
    later = scene.keeper(CN).statistics.release_due()
    assert later is not None
    assert later > scene.clock.now() + asking.SLOT_S

"""Questions at the border: what may be asked, what an answer costs, when it leaves, and what a refusal tells."""

from __future__ import annotations

import base64
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.crossings import Check, Contributors, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Name
from isthmus.contracts.inside import CandidateHeader, CloseOrder, FreezeSnapshot, InsideRole
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.queries import Mode, PrivacyBudget
from isthmus.proof import accounting, canonical
from isthmus.proof.ids import order_id
from security import asking
from security.asking import answer_of, ask, at_the_slot, hand_in, plan, spec, spent, sums, verdict
from security.scene import CN, DATASET, HQ, Scene, file_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


OTHER = asking.controlled(asking.spec(asking.VEHICLES))
SMALL = PrivacyBudget(epsilon_micro=3_000_000, delta_exponent=6)


@pytest.fixture(scope="module")
def asked_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("asked") / "home"
    asking.set_up(home, SMALL)
    return home


@pytest.fixture
def scene(asked_home: Path, tmp_path: Path) -> Iterator[Scene]:
    home = tmp_path / "home"
    shutil.copytree(asked_home, home)
    scene = Scene(home)
    yield scene
    scene.close()


def test_an_answer_leaves_at_its_slot_and_not_before(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    scene.clock.advance(1)
    assert hand_in(scene, order).state == "pending"
    before = scene.picture(CN)
    scene.clock.advance(asking.SLOT_S - 2)
    scene.keeper(CN).statistics.release_due()
    scene.carry()
    assert scene.picture(CN) == before
    scene.clock.advance(1)
    scene.keeper(CN).statistics.release_due()
    scene.carry()
    answer = answer_of(scene, order)
    assert answer is not None
    assert answer.epsilon_micro == 1_000_000
    assert not answer.repeated


def test_an_answer_under_dp_tells_no_number_of_vehicles_and_says_what_was_done(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    hand_in(scene, order)
    at_the_slot(scene)
    item = next(i for i in scene.keeper(HQ).inbound.deliveries(0).items if i.kind is Kind.AGGREGATE)
    assert item.contributors is None
    sent = [e for e in scene.picture(CN).crossings if '"aggregate"' in _payload(e[2])]
    assert len(sent) == 1
    manifest = _payload(sent[0][2])
    assert '"differential_privacy"' in manifest
    assert f'"{Check.NOISED}"' in manifest
    assert '"contributors":null' in manifest


def _payload(envelope: str) -> str:
    return base64.b64decode(json.loads(envelope)["payload"]).decode()


def test_exact_sums_are_in_nothing_that_crosses(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    partials = sums(plan(), cells=(311, 83))
    hand_in(scene, order, partials)
    at_the_slot(scene)
    answer = answer_of(scene, order)
    assert answer is not None
    assert [cell.values for cell in answer.cells] != [cell.values for cell in partials.cells]


def test_the_same_question_again_brings_the_same_answer_and_costs_nothing(scene: Scene) -> None:
    first, second = asking.asking(1), asking.asking(2)
    ask(scene, first)
    hand_in(scene, first)
    at_the_slot(scene)
    paid = spent(scene)
    assert 0 < paid <= 1_000_000 + 200_000  # at the budget's delta, which is not the question's
    ask(scene, second)
    hand_in(scene, second)
    at_the_slot(scene)
    one, two = answer_of(scene, first), answer_of(scene, second)
    assert one is not None
    assert two is not None
    assert two.cells == one.cells
    assert (two.repeated, two.epsilon_micro) == (True, 0)
    assert spent(scene) == paid


def test_two_that_ask_the_same_at_once_pay_once(scene: Scene) -> None:
    first, second = asking.asking(1), asking.asking(2)
    for order in (first, second):
        ask(scene, order)
    reserved = spent(scene)
    for order in (first, second):
        hand_in(scene, order)
    at_the_slot(scene)
    one, two = answer_of(scene, first), answer_of(scene, second)
    assert one is not None
    assert two is not None
    assert one.cells == two.cells
    assert one.repeated != two.repeated
    assert spent(scene) < reserved


def test_the_budget_is_never_overspent_and_a_refusal_costs_nothing(scene: Scene) -> None:
    accepted = []
    for number in range(1, 40):
        order = asking.asking(number, plan(spec(asking.VEHICLES), epsilon_micro=900_000 + number))
        ask(scene, order)
        accepted.append(verdict(scene, order))
        hand = verdict(scene, order)[0] == "accept"
        if hand:
            hand_in(scene, order)
            at_the_slot(scene)
        assert spent(scene) <= SMALL.epsilon_micro
    assert ("refuse", Code.BUDGET_EXHAUSTED.value) in accepted
    assert accepted.count(("accept", None)) >= 3
    full = spent(scene)
    ask(scene, asking.asking(99, plan(spec(asking.VEHICLES), epsilon_micro=950_000)))
    assert spent(scene) == full


def test_an_exhausted_budget_still_repeats_what_was_released(scene: Scene) -> None:
    first = asking.asking(1, plan(epsilon_micro=2_500_000))
    ask(scene, first)
    hand_in(scene, first)
    at_the_slot(scene)
    other = asking.asking(2, plan(spec(asking.VEHICLES), epsilon_micro=2_500_000))
    ask(scene, other)
    assert verdict(scene, other) == ("refuse", Code.BUDGET_EXHAUSTED.value)
    again = asking.asking(3, plan(epsilon_micro=2_500_000))
    ask(scene, again)
    assert verdict(scene, again) == ("accept", None)


def test_what_ended_before_its_keys_went_out_comes_back(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    assert spent(scene) > 0
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=Code.COMPUTE_FAILED))
    assert spent(scene) == 0
    outcomes = [e["outcome"] for e in scene.picture(CN).events("privacy_settled")]
    assert outcomes == ["returned"]


def test_an_order_closed_before_its_slot_lets_nothing_out_and_gets_nothing_back(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    hand_in(scene, order)
    paid = spent(scene)
    scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=None))
    at_the_slot(scene)
    assert answer_of(scene, order) is None
    assert spent(scene) == paid


def test_sums_outlive_a_restart_and_are_answered_once(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    hand_in(scene, order)
    scene.stop(CN)
    at_the_slot(scene)
    assert answer_of(scene, order) is not None
    scene.stop(CN)
    at_the_slot(scene)
    assert hand_in(scene, order).state == "receipted"
    assert [e["outcome"] for e in scene.picture(CN).events("privacy_settled")] == ["spent"]


def test_other_sums_for_the_same_order_are_refused(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    hand_in(scene, order)
    with refusal(Code.CONFLICTING_PAYLOAD):
        hand_in(scene, order, sums(plan(), vehicles=402))
    at_the_slot(scene)
    assert answer_of(scene, order) is not None


@pytest.mark.parametrize("wrong", ["question", "cells", "width", "too much", "negative"])
def test_sums_that_are_not_the_questions_are_refused(scene: Scene, wrong: str) -> None:
    order = asking.asking(1)
    ask(scene, order)
    good = sums(plan())
    cell = good.cells[0]
    bad = {
        "question": sums(plan(spec(asking.VEHICLES))),
        "cells": good.model_copy(update={"cells": good.cells[:1]}),
        "width": good.model_copy(
            update={"cells": (cell.model_copy(update={"values": tuple((*v, 0) for v in cell.values)}), *good.cells[1:])}
        ),
        "too much": good.model_copy(update={"vehicles": good.vehicles // 1000 + cell.vehicles}),
        "negative": good.model_copy(
            update={"cells": (cell.model_copy(update={"values": tuple((-1,) for _ in cell.values)}), *good.cells[1:])}
        ),
    }[wrong]
    if wrong == "too much":
        whole = tuple((10**9,) for _ in cell.values)
        bad = good.model_copy(update={"cells": (cell.model_copy(update={"values": whole}), *good.cells[1:])})
    with refusal(Code.SCHEMA_MISMATCH):
        hand_in(scene, order, bad)
    assert hand_in(scene, order).state == "pending"


def test_a_question_against_another_catalogue_is_refused(scene: Scene) -> None:
    order = asking.asking(1, plan(catalogue="sha256:" + "0" * 64))
    ask(scene, order)
    assert verdict(scene, order) == ("refuse", Code.ALGORITHM_UNKNOWN.value)
    assert spent(scene) == 0


def test_the_identity_group_cannot_be_asked_about(scene: Scene) -> None:
    order = asking.asking(1, groups=(asking.Group.DRIVES, asking.Group.IDENTITY))
    ask(scene, order)
    assert verdict(scene, order) == ("refuse", Code.POLICY_DENIED.value)


def test_a_controlled_answer_waits_for_two_organisations_and_is_not_dp(scene: Scene) -> None:
    order = asking.asking(1, asking.controlled())
    ask(scene, order)
    hand_in(scene, order)
    at_the_slot(scene)
    assert answer_of(scene, order) is None
    (item,) = scene.keeper(CN).review.waiting().items
    assert {event.mechanism for event in item.manifest.privacy} == {"contribution_bound", "disclosure_control"}
    assert spent(scene) == 0


def test_officers_are_told_of_controlled_answers_about_other_snapshots(scene: Scene) -> None:
    """The checks hold an answer against those about its own snapshot; another one may hold the same vehicles."""
    later = DatasetRef(dataset=DATASET.dataset, snapshot=Name("2027q1"))
    scene.keeper(CN).files.freeze(FreezeSnapshot(dataset=later, files=(file_of(CN),)))
    told = {}
    for number, (snapshot, query) in enumerate(
        [(DATASET, plan()), (DATASET, asking.controlled()), (later, asking.controlled()), (later, OTHER)], start=1
    ):
        order = asking.asking(number, query, dataset=snapshot)
        ask(scene, order)
        hand_in(scene, order)
        at_the_slot(scene)
        told |= {item.manifest.order: item.elsewhere for item in scene.keeper(CN).review.waiting().items}
    assert list(told.values()) == [2, 1, 1]  # the one under dp counts for nothing, nor do those about the same snapshot


def test_a_withheld_answer_is_one_notice_at_the_slot_and_costs_what_an_answer_costs(scene: Scene) -> None:
    order = asking.asking(1, asking.controlled())
    ask(scene, order)
    hand_in(scene, order, sums(asking.controlled(), cells=(400, 3)))
    before = len(scene.picture(CN).crossings)
    at_the_slot(scene)
    assert answer_of(scene, order) is None
    assert scene.keeper(CN).review.waiting().items == ()
    new = [_payload(e[2]) for e in scene.picture(CN).crossings[before:]]
    assert [('"kind":"notice"' in text) for text in new] == [True]
    item = scene.keeper(HQ).inbound.deliveries(0).items[-1]
    assert item.code is Code.NOT_RELEASED
    assert hand_in(scene, order, sums(asking.controlled(), cells=(400, 3))).code is Code.NOT_RELEASED
    with scene.border(CN).store.reading() as tx:
        row = tx.row("SELECT bits FROM charge WHERE order_id = ?", order_id(order))
    assert row is not None


def test_what_is_reserved_is_what_the_filter_lets_through_to_the_last_order(scene: Scene) -> None:
    orders = [asking.asking(n, plan(spec(asking.VEHICLES), epsilon_micro=300_000 + n)) for n in range(1, 17)]
    for order in orders:
        scene.give(order)
    scene.carry()
    states = [verdict(scene, order) for order in orders]
    with scene.border(CN).store.reading() as tx:
        rows = tx.execute("SELECT curve FROM question WHERE state = 'reserved'").fetchall()
    total = accounting.zero()
    for row in rows:
        total = accounting.add(total, tuple(json.loads(row["curve"])))
    assert accounting.spent_micro(total, SMALL) == spent(scene) <= SMALL.epsilon_micro
    assert 0 < len(rows) == states.count(("accept", None)) < len(orders)


def test_only_compute_hands_sums_in(scene: Scene) -> None:
    order = asking.asking(1)
    ask(scene, order)
    body = canonical.dump(sums(plan()))
    header = CandidateHeader(
        order=order_id(order), kind=Kind.AGGREGATE, recipient=HQ, slot=0, size=len(body),
        contributors=Contributors(vehicles=1, windows=1),
    )  # fmt: skip
    for role in set(InsideRole) - {InsideRole.COMPUTE}:
        with refusal(Code.FORBIDDEN):
            scene.keeper(CN).submit(role, header, body)


def test_the_mode_of_a_repeat_is_its_own(scene: Scene) -> None:
    """A controlled answer is never given for a question under dp, nor the other way round."""
    first = asking.asking(1)
    ask(scene, first)
    hand_in(scene, first)
    at_the_slot(scene)
    second = asking.asking(2, asking.controlled())
    ask(scene, second)
    hand_in(scene, second)
    at_the_slot(scene)
    (item,) = scene.keeper(CN).review.waiting().items
    assert item.manifest.order == order_id(second)
    assert Mode.DP.value not in {event.mechanism for event in item.manifest.privacy}

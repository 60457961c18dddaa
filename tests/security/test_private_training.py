"""Private trainings at the border: what they take of the vehicles' budget, what crosses, and what a refusal tells."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isthmus.cli import federation
from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.inside import CloseOrder
from isthmus.contracts.ledger import INTERNAL_ENTRY, PrivacyReserved, PrivacySettled
from isthmus.contracts.orders import GRAIN
from isthmus.contracts.queries import PrivacyBudget
from isthmus.contracts.roster import Genesis
from isthmus.kit.clock import ManualClock
from isthmus.learning import weights
from isthmus.privacy.training import noise_of, paid
from isthmus.proof import accounting, canonical
from isthmus.proof.ids import order_id
from security import asking
from security.asking import spent, verdict
from security.private_training import (
    NORM_MICRO,
    VEHICLES,
    begin,
    exact_sum,
    hand_in,
    private_order,
    take_keys,
)
from security.rogue import Rogue, opened_receipt
from security.scene import (
    ALGORITHM,
    CN,
    DAY,
    HQ,
    NOW,
    TENSORS,
    Scene,
    approve_all,
    evaluation,
    model,
    refusal,
    sent_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.contracts.orders import Order

SMALL = PrivacyBudget(epsilon_micro=3_000_000, delta_exponent=6)
"""Holds one training at epsilon 2, and beside it no other and no question at epsilon 1."""
UPDATE_BITS = 8 * len(model())


@pytest.fixture(scope="module")
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("private") / "home"
    asking.set_up(home, SMALL)
    return home


@pytest.fixture
def scene(private_home: Path, tmp_path: Path) -> Iterator[Scene]:
    home = tmp_path / "home"
    shutil.copytree(private_home, home)
    scene = Scene(home)
    yield scene
    scene.close()


def costs(order: Order, rounds: int) -> int:
    """Return what the budget counts where `rounds` of an order's are all that was ever spent."""
    assert order.training is not None
    return accounting.spent_micro(paid(noise_of(order.training).curve, rounds, order.training.rounds), SMALL)


def close(scene: Scene, order: Order, code: Code | None = None) -> None:
    scene.keeper(order.zone).close_order(CloseOrder(order=order_id(order), code=code))


def settled(scene: Scene) -> list[tuple[str, int | None]]:
    return [(e["outcome"], e["rounds"]) for e in scene.picture(CN).events("privacy_settled")]


def told_codes(scene: Scene) -> list[str]:
    """Return the codes of what the zone's border tells the coordinator."""
    scene.carry()
    return [item.code.value for item in scene.keeper(HQ).inbound.deliveries(0).items if item.code]


def updates_sent(scene: Scene) -> list[dict[str, Any]]:
    manifests = [sent_manifest(entry[2]) for entry in scene.picture(CN).crossings if entry[0] == "sent"]
    return [m for m in manifests if m["kind"] == Kind.MODEL_UPDATE.value]


def arrived(scene: Scene) -> list[Any]:
    """Return the updates that the coordinator was handed."""
    scene.carry()
    items = scene.keeper(HQ).inbound.deliveries(0).items
    return [item for item in items if item.kind is Kind.MODEL_UPDATE and item.event == "crossing"]


# ---- the budget


def test_an_accepted_training_reserves_what_all_its_rounds_cost(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    assert verdict(scene, order) == ("accept", None)
    (event,) = scene.picture(CN).events("privacy_reserved")
    entry = INTERNAL_ENTRY.validate_json(json.dumps(event))
    assert isinstance(entry, PrivacyReserved)
    assert (entry.order, entry.epsilon_micro, entry.delta_exponent) == (order_id(order), 2_000_000, 6)
    assert accounting.keeps(entry.curve, entry.epsilon_micro, entry.delta_exponent)
    assert spent(scene) == costs(order, 2)
    assert scene.keeper(CN).statistics.view().trainings == 1


@pytest.mark.parametrize("code", [None, Code.COMPUTE_FAILED])
def test_what_ended_before_its_keys_went_out_comes_back(scene: Scene, code: Code | None) -> None:
    order = private_order(1)
    begin(scene, order)
    close(scene, order, code)
    assert settled(scene) == [("returned", 0)]
    assert spent(scene) == 0
    assert scene.keeper(CN).statistics.view().trainings == 0
    assert told_codes(scene) == ([code.value] if code else [])


def test_an_update_is_paid_for_though_no_key_went_out_for_it(scene: Scene) -> None:
    """Compute that still has the files of an earlier order needs no keys."""
    order = private_order(1, rounds=3)
    begin(scene, order)
    hand_in(scene, order)
    approve_all(scene, CN)
    close(scene, order, Code.COMPUTE_FAILED)
    assert len(updates_sent(scene)) == 1
    assert settled(scene) == [("spent", 2)]
    assert spent(scene) == costs(order, 2)
    assert Code.COMPUTE_FAILED.value not in told_codes(scene)


@pytest.mark.parametrize("ending", ["complete", "failed", "expired"])
@pytest.mark.parametrize(("done", "pays"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_after_the_keys_every_round_is_paid_and_the_first_missing_one(
    scene: Scene, ending: str, done: int, pays: int
) -> None:
    order = private_order(1, rounds=3)
    begin(scene, order)
    take_keys(scene, order)
    for slot in range(done):
        hand_in(scene, order, slot)
    assert spent(scene) == costs(order, 3)
    if ending == "expired":
        scene.clock.advance(DAY + 1)
        later = NOW + 2 * DAY
        begin(scene, asking.asking(2, asking.controlled(), issued_at=NOW + DAY, expires_at=later))
    else:
        close(scene, order, Code.COMPUTE_FAILED if ending == "failed" else None)
    assert settled(scene) == [("spent", pays)]
    assert spent(scene) == costs(order, pays)
    assert scene.keeper(CN).statistics.view().trainings == 1


def test_a_restart_between_the_rounds_and_the_end_loses_nothing_and_pays_nothing_twice(scene: Scene) -> None:
    order = private_order(1, rounds=3)
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order)
    scene.stop(CN)
    assert spent(scene) == costs(order, 3)
    close(scene, order)
    scene.stop(CN)
    close(scene, order)
    assert settled(scene) == [("spent", 2)]
    assert spent(scene) == costs(order, 2)


@pytest.mark.parametrize("first", ["training", "question", "other training"])
def test_trainings_and_questions_draw_from_one_budget(scene: Scene, first: str) -> None:
    training = private_order(1)
    other = private_order(3)
    question = asking.asking(2, asking.plan(epsilon_micro=2_000_000))
    pair = {
        "training": (training, question),
        "question": (question, training),
        "other training": (other, training),
    }[first]
    for order in pair:
        scene.give(order)
    scene.carry()
    assert [verdict(scene, order) for order in pair] == [("accept", None), ("refuse", Code.BUDGET_EXHAUSTED.value)]
    assert spent(scene) <= SMALL.epsilon_micro
    close(scene, pair[0])
    assert spent(scene) == 0
    again = private_order(4) if pair[1] is training else asking.asking(4, asking.plan(epsilon_micro=2_000_000))
    begin(scene, again)
    assert verdict(scene, again) == ("accept", None)


def test_what_a_failed_training_never_began_is_there_for_a_question(scene: Scene) -> None:
    order = private_order(1, rounds=100)
    begin(scene, order)
    take_keys(scene, order)
    question = asking.asking(2, asking.plan(epsilon_micro=1_000_000))
    begin(scene, question)
    assert verdict(scene, question) == ("refuse", Code.BUDGET_EXHAUSTED.value)
    close(scene, order, Code.COMPUTE_FAILED)
    again = asking.asking(3, asking.plan(epsilon_micro=1_000_000))
    begin(scene, again)
    assert verdict(scene, again) == ("accept", None)
    assert spent(scene) <= SMALL.epsilon_micro


def test_a_refusal_for_want_of_budget_is_the_same_whatever_the_data(scene: Scene, tmp_path: Path) -> None:
    """Two zones with other vehicles, whose earlier trainings went otherwise: what is refused next is the same."""
    shutil.copytree(scene.home, tmp_path / "other")
    other = Scene(tmp_path / "other")
    told = []
    for stage, payload in ((scene, exact_sum(500)), (other, b"no sum at all")):
        order = private_order(1)
        begin(stage, order)
        take_keys(stage, order)
        for slot in range(2):
            if payload == b"no sum at all":
                with refusal(Code.SCHEMA_MISMATCH):
                    hand_in(stage, order, slot, payload)
            else:
                hand_in(stage, order, slot, payload)
        close(stage, order)
        begin(stage, private_order(2))
        decided = stage.picture(CN).events("decided")[-1]
        told.append((verdict(stage, private_order(2)), decided["rules"], spent(stage), settled(stage)))
    other.close()
    assert told[0] == told[1]
    assert told[0][0] == ("refuse", Code.BUDGET_EXHAUSTED.value)
    assert told[0][1] == ["statistics.within-privacy-budget"]


def test_a_zone_without_a_budget_takes_no_private_training(tmp_path: Path) -> None:
    federation.create(tmp_path / "home", replace(federation.demo_plan(), algorithms=(ALGORITHM,)), ManualClock(NOW))
    path = tmp_path / "home" / CN / "genesis.json"
    genesis = canonical.load(Genesis, path.read_bytes(), limit=1 << 20)
    path.write_bytes(canonical.dump(genesis.model_copy(update={"privacy": None})))
    scene = Scene(tmp_path / "home")
    scene.ingest(CN)
    order = private_order(1, epsilon_micro=10_000)
    begin(scene, order)
    assert verdict(scene, order) == ("refuse", Code.BUDGET_EXHAUSTED.value)
    scene.close()


def test_releases_outside_the_budget_are_its_evaluations_and_not_its_updates(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order)
    scene.release(order, Kind.AGGREGATE, 0, evaluation())
    approve_all(scene, CN)
    scene.carry()
    assert len(updates_sent(scene)) == 1
    assert scene.keeper(CN).statistics.view().unprotected == 1


# ---- what crosses


def test_what_crosses_is_noised_clipped_and_names_no_contributors(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order, payload=exact_sum(24))
    approve_all(scene, CN)
    (item,) = arrived(scene)
    assert item.contributors is None
    (manifest,) = updates_sent(scene)
    assert manifest["contributors"] is None
    assert manifest["plaintext"] is None
    assert manifest["checks"] == ["clipped", "finite", "noised", "schema"]
    assert {(e["mechanism"], e["parameter"], e["enforced_by"]) for e in manifest["privacy"]} == {
        ("vehicle_clip", NORM_MICRO, "zone"),
        ("differential_privacy", 2_000_000, "border"),
        ("l2_clip", order.clip_norm_micro, "border"),
    }
    update = weights.decode(bytes(scene.keeper(HQ).inbound.payload(item.crossing)), TENSORS)
    assert weights.l2_norm(update) <= order.clip_norm_micro / 1e6
    noise_in_the_rest = np.concatenate([update["bias"].reshape(-1)[1:], update["weight"].reshape(-1)])
    assert np.count_nonzero(noise_in_the_rest) == noise_in_the_rest.size
    assert b"2345" not in json.dumps(scene.keeper(CN).evidence().model_dump(mode="json")).encode(), "windows behind it"


def test_the_noised_update_is_the_mean_and_noise_of_the_planned_size(scene: Scene) -> None:
    order = private_order(1, clip_norm_micro=10**12)
    assert order.training is not None
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order, payload=exact_sum(24))
    approve_all(scene, CN)
    (item,) = arrived(scene)
    update = weights.decode(bytes(scene.keeper(HQ).inbound.payload(item.crossing)), TENSORS)
    unit = NORM_MICRO / 1e6 / GRAIN / VEHICLES
    deviation = noise_of(order.training).deviation_micro / 1e6 * unit
    assert abs(float(update["bias"].reshape(-1)[0]) - 24 * NORM_MICRO / 1e6 / VEHICLES) < 7 * deviation


@pytest.mark.parametrize("vehicles", [0, 1, 9, 11, None])
def test_how_many_vehicles_there_are_changes_nothing_that_can_be_seen(
    scene: Scene, tmp_path: Path, vehicles: int | None
) -> None:
    """A release of so few would be refused without noise; here a refusal by count would tell that count."""
    shutil.copytree(scene.home, tmp_path / "other")
    seen = []
    for stage, count in ((scene, 12), (Scene(tmp_path / "other"), vehicles)):
        order = private_order(1)
        begin(stage, order)
        take_keys(stage, order)
        behind = None if count is None else Contributors(vehicles=count, windows=100 * count)
        status = hand_in(stage, order, payload=exact_sum(count or 0), contributors=behind)
        approve_all(stage, CN)
        (item,) = arrived(stage)
        (manifest,) = updates_sent(stage)
        chance = {key: manifest.pop(key) for key in ("payload", "approvals")}
        seen.append((status, manifest, chance["payload"]["size"], item, spent(stage), told_codes(stage)))
        stage.close()
    assert seen[0] == seen[1]


def test_a_repeat_gives_the_same_status_and_the_same_sealed_bytes(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    first = hand_in(scene, order)
    held = scene.picture(CN)
    assert hand_in(scene, order) == first
    scene.stop(CN)
    assert hand_in(scene, order) == first
    assert scene.picture(CN).internal == held.internal
    assert scene.picture(CN).blobs == held.blobs
    approve_all(scene, CN)
    sent = scene.picture(CN)
    assert hand_in(scene, order).state == "logged"
    assert scene.picture(CN) == sent
    assert len(arrived(scene)) == 1
    assert hand_in(scene, order).state == "receipted"


def test_the_same_sum_many_times_at_once_is_one_release(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    blobs = len(scene.picture(CN).blobs)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: hand_in(scene, order), range(8)))
    assert len(set(told)) == 1
    picture = scene.picture(CN)
    assert len(picture.blobs) == blobs + 2, "the release, and the notice that it waits for officers"
    assert len([e for e in picture.events("drafted") if e["crossing"] == told[0].crossing]) == 1


def test_another_sum_for_a_sealed_round_is_refused(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order)
    approve_all(scene, CN)
    before = scene.picture(CN)
    for other in (exact_sum(25), b"no sum"):
        with refusal(Code.CONFLICTING_PAYLOAD):
            hand_in(scene, order, payload=other)
    after = scene.picture(CN)
    assert (after.crossings, after.budget, after.blobs) == (before.crossings, before.budget, before.blobs)


def test_of_a_held_round_only_the_last_noised_version_ever_leaves(scene: Scene) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order)
    hand_in(scene, order, payload=exact_sum(25))
    approve_all(scene, CN)
    assert len(updates_sent(scene)) == len(arrived(scene)) == 1
    close(scene, order)
    assert settled(scene) == [("spent", 2)]


MALFORMED = {
    "one number too few": exact_sum()[:-4],
    "one number too many": exact_sum() + bytes(4),
    "half a number": exact_sum()[:-1],
    "an update as an open training hands it in": model(),
}


@pytest.mark.parametrize("attack", MALFORMED)
def test_what_is_no_sum_is_withheld_and_paid_for(scene: Scene, attack: str) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    before = scene.picture(CN)
    with refusal(Code.SCHEMA_MISMATCH):
        hand_in(scene, order, payload=MALFORMED[attack])
    after = scene.picture(CN)
    assert [row[3] for row in after.budget] == [row[3] + UPDATE_BITS for row in before.budget]
    assert told_codes(scene) == [Code.NOT_RELEASED.value]
    close(scene, order, Code.SCHEMA_MISMATCH)
    assert settled(scene) == [("spent", 2)]
    assert set(told_codes(scene)) == {Code.NOT_RELEASED.value}
    assert updates_sent(scene) == []


@pytest.mark.parametrize("code", [Code.COMPUTE_FAILED, Code.TOO_FEW_CONTRIBUTORS, Code.NOT_FINITE])
def test_why_a_training_failed_stays_in_the_zone_once_its_keys_are_out(scene: Scene, code: Code) -> None:
    order = private_order(1)
    begin(scene, order)
    take_keys(scene, order)
    close(scene, order, code)
    assert told_codes(scene) == [Code.NOT_RELEASED.value]


def test_officers_see_what_is_promised_and_no_number_of_vehicles(scene: Scene) -> None:
    order = private_order(1)
    assert order.training is not None
    begin(scene, order)
    take_keys(scene, order)
    hand_in(scene, order)
    scene.release(order, Kind.AGGREGATE, 0, evaluation())
    update, figures = scene.keeper(CN).review.waiting().items
    assert update.training == order.training.privacy
    assert update.manifest.contributors is None
    assert "noised" in update.manifest.checks
    assert figures.training is None, "its figures are not under it"
    assert figures.manifest.contributors == Contributors(vehicles=20, windows=2000)


def test_a_coordinator_takes_no_private_update_that_tells_a_number_of_vehicles(scene: Scene) -> None:
    """As a zone's stolen keys would send it."""
    order = private_order(1)
    begin(scene, order)
    rogue = Rogue(scene.home, CN)
    sequence = scene.keeper(HQ).inbound.cursor(CN) + 1
    telling = rogue.crossing(order, Kind.MODEL_UPDATE, sequence=sequence)
    answer = rogue.put(scene, telling)
    assert answer.receipt is not None
    assert opened_receipt(scene, HQ, answer.receipt).code is Code.SCHEMA_MISMATCH
    silent = rogue.crossing(order, Kind.MODEL_UPDATE, sequence=sequence + 1, slot=1, contributors=None)
    taken = rogue.put(scene, silent)
    assert taken.receipt is not None
    assert opened_receipt(scene, HQ, taken.receipt).verdict == "accepted"


def test_the_ledger_alone_tells_what_is_left(scene: Scene) -> None:
    first, second = private_order(1, rounds=4, epsilon_micro=1_000_000), private_order(2, epsilon_micro=500_000)
    for order in (first, second):
        begin(scene, order)
        take_keys(scene, order)
        hand_in(scene, order)
    close(scene, first)
    total, reserved = accounting.zero(), {}
    for event in scene.picture(CN).internal:
        entry = INTERNAL_ENTRY.validate_json(json.dumps(event))
        if isinstance(entry, PrivacyReserved):
            reserved[entry.order] = entry.curve
            total = accounting.add(total, entry.curve)
        if isinstance(entry, PrivacySettled):
            assert entry.rounds is not None
            whole = reserved[entry.order]
            total = accounting.subtract(total, accounting.subtract(whole, paid(whole, entry.rounds, 4)))
    assert accounting.spent_micro(total, SMALL) == spent(scene) > 0

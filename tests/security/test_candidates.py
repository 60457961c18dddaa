"""Hostile candidates, from behind a site's own border: compute that is taken over, a coordinator that relabels.

The border takes nothing of a candidate on trust. What it refuses costs what it would have cost, and whoever ordered it
hears one code that is the same for all reasons.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isthmus.contracts.approvals import APPROVAL_TYPE
from isthmus.contracts.crossings import Contributors, Kind, Manifest
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest, JobId
from isthmus.contracts.inside import CandidateHeader, CloseOrder, InsideRole
from isthmus.learning import weights
from isthmus.proof import canonical
from isthmus.proof.ids import crossing_id, order_id
from security.rogue import Rogue, opened_receipt
from security.scene import (
    CN,
    HQ,
    OFFICERS,
    ROUNDS,
    TENSORS,
    US,
    Scene,
    approve_all,
    evaluation,
    kinds_sent,
    model,
    order_for,
    refusal,
    sent_manifest,
    signed,
    unharmed,
)

if TYPE_CHECKING:
    from isthmus.contracts.orders import Order

ORDER = order_for(CN)
SECOND = JobId("job-00000000000000bb")
UPDATE_BITS = 8 * len(model())


def broken(value: float) -> bytes:
    return weights.encode({spec.name: np.full(spec.shape, value, np.float32) for spec in TENSORS})


UNTOUCHED: dict[str, tuple[Kind, dict[str, Any], Code]] = {
    "to another than who ordered": (Kind.MODEL_UPDATE, {"recipient": US}, Code.RECIPIENT_NOT_NAMED),
    "to itself": (Kind.MODEL_UPDATE, {"recipient": CN}, Code.RECIPIENT_NOT_NAMED),
    "to a site that nobody knows": (Kind.MODEL_UPDATE, {"recipient": "kp-pyongyang"}, Code.RECIPIENT_NOT_NAMED),
    "after the last round": (Kind.MODEL_UPDATE, {"slot": ROUNDS}, Code.SLOT_UNEXPECTED),
    "rows that nobody ordered": (Kind.EXTRACT, {}, Code.SLOT_UNEXPECTED),
    "an order": (Kind.ORDER, {}, Code.FORBIDDEN),
    "a model": (Kind.MODEL, {}, Code.FORBIDDEN),
    "a notice": (Kind.NOTICE, {}, Code.FORBIDDEN),
    "another size than it states": (Kind.MODEL_UPDATE, {"size": 10}, Code.TRUNCATED),
    "words in the place of inputs": (
        Kind.MODEL_UPDATE,
        {"inputs": tuple(sorted(CrossingId.of(word) for word in (b"LSV", b"AX6", b"0E8")))},
        Code.NOT_FOUND,
    ),
    "a crossing that came in as its input": (
        Kind.MODEL_UPDATE,
        {"inputs": (crossing_id(order_id(ORDER), Kind.MODEL, CN, 0),)},
        Code.NOT_FOUND,
    ),
    "under an order that nobody gave": (Kind.MODEL_UPDATE, {"order": order_id(order_for(US))}, Code.ORDER_UNKNOWN),
}


@pytest.mark.parametrize("attack", UNTOUCHED)
def test_compute_cannot_hand_in_what_was_not_asked_for(scene: Scene, attack: str) -> None:
    kind, changes, code = UNTOUCHED[attack]
    values = {
        "order": order_id(ORDER),
        "recipient": HQ,
        "slot": 0,
        "size": len(model()),
        "contributors": Contributors(vehicles=24, windows=2345),
        **changes,
    }
    with unharmed(scene, CN), refusal(code):
        scene.keeper(CN).outbound.submit(InsideRole.COMPUTE, CandidateHeader(kind=kind, **values), model())


CHARGED: dict[str, tuple[Kind, bytes, dict[str, Any], Code]] = {
    "NaN": (Kind.MODEL_UPDATE, broken(float("nan")), {}, Code.NOT_FINITE),
    "infinity": (Kind.MODEL_UPDATE, broken(float("-inf")), {}, Code.NOT_FINITE),
    "no model": (Kind.MODEL_UPDATE, b"{}", {}, Code.TRUNCATED),
    "nobody behind it": (Kind.MODEL_UPDATE, model(), {"contributors": None}, Code.TOO_FEW_CONTRIBUTORS),
    "figures of another slot": (Kind.AGGREGATE, evaluation(2), {}, Code.SLOT_UNEXPECTED),
    "figures and a name": (Kind.AGGREGATE, evaluation()[:-1] + b',"vin":"LSVAX60E8K2012345"}', {}, Code.MALFORMED),
}


@pytest.mark.parametrize("attack", CHARGED)
def test_a_candidate_that_fails_costs_what_one_that_passes_costs(scene: Scene, attack: str) -> None:
    kind, payload, changes, code = CHARGED[attack]
    before = scene.picture(CN)
    with refusal(code):
        scene.release(ORDER, kind, 0, payload, **changes)
    after = scene.picture(CN)
    spent = UPDATE_BITS if kind is Kind.MODEL_UPDATE else 8 * 4096
    assert [row[3] for row in after.budget] == [row[3] + spent for row in before.budget]
    assert [e["code"] for e in after.events("decided") if e["outcome"] == "refuse"] == [code.value]
    sent = [sent_manifest(entry[2]) for entry in after.crossings[len(before.crossings) :]]
    assert [m["kind"] for m in sent] == ["notice"]
    assert said_to_the_coordinator(scene) == [Code.NOT_RELEASED.value], "the reason stays at home"


def test_too_few_vehicles_are_refused_and_the_peer_hears_no_reason(scene: Scene) -> None:
    few = Contributors(vehicles=9, windows=50_000)
    assert scene.release(ORDER, Kind.AGGREGATE, 0, evaluation(), contributors=few).code is Code.TOO_FEW_CONTRIBUTORS
    assert said_to_the_coordinator(scene) == [Code.NOT_RELEASED.value]


def test_what_crosses_is_clipped_and_banded_whatever_compute_says(scene: Scene) -> None:
    scene.release(ORDER, Kind.MODEL_UPDATE, 0, broken(1e30))
    scene.release(ORDER, Kind.AGGREGATE, 0, evaluation(ade_um=123_456_789))
    approve_all(scene, CN)
    scene.carry()
    keeper = scene.keeper(HQ)
    arrived = {
        item.kind: item for item in keeper.inbound.deliveries(0).items if item.sender == CN and item.code is None
    }
    update = weights.decode(bytes(keeper.inbound.payload(arrived[Kind.MODEL_UPDATE].crossing)), TENSORS)
    assert weights.l2_norm(update) <= 10.0
    figures = json.loads(bytes(keeper.inbound.payload(arrived[Kind.AGGREGATE].crossing)))["figures"][0]
    assert figures["ade_um"] == 123_460_000
    assert arrived[Kind.MODEL_UPDATE].contributors == Contributors(vehicles=20, windows=2000)


def test_an_order_that_is_over_lets_nothing_out(scene: Scene) -> None:
    """Not even what officers approve when it is too late."""
    scene.release(ORDER, Kind.MODEL_UPDATE, 0, model())
    (held,) = scene.keeper(CN).review.waiting().items
    scene.keeper(CN).close_order(CloseOrder(order=order_id(ORDER)))
    late = signed(scene, OFFICERS[CN][0], APPROVAL_TYPE, held.single)
    assert scene.keeper(CN).review.approve(late).state == "refused"
    with refusal(Code.ORDER_CLOSED):
        scene.release(ORDER, Kind.AGGREGATE, 0, evaluation())
    assert "model_update" not in kinds_sent(scene, CN)


# ---- a coordinator that relabels


def said_to_the_coordinator(scene: Scene) -> list[str]:
    """Return the codes of what the zone's border tells the coordinator."""
    scene.carry()
    return [item.code.value for item in scene.keeper(HQ).inbound.deliveries(0).items if item.code]


def with_an_update_from(scene: Scene, zone: Any, order: Order) -> CrossingId:
    """Have the coordinator take in an update that `order` allows; return it."""
    rogue = Rogue(scene.home, zone)
    update = rogue.crossing(order, Kind.MODEL_UPDATE, sequence=scene.keeper(HQ).inbound.cursor(zone) + 1)
    answer = rogue.put(scene, update)
    assert answer.receipt is not None
    assert opened_receipt(scene, HQ, answer.receipt).verdict == "accepted"
    return CrossingId(update.crossing)


def closed_job(zone: Any, **changes: Any) -> Order:
    """An order of a second job whose results the coordinator and the Chinese zone keep to themselves."""
    return order_for(zone, job=SECOND, recipients=(CN, HQ), **changes)


def test_a_model_goes_to_nobody_whom_a_contributor_did_not_name(scene: Scene) -> None:
    scene.give(closed_job(CN))
    scene.give(order_for(US, job=SECOND))
    scene.carry()
    assert scene.send_model(order_for(US, job=SECOND), 0, model(1.0)).code is None, "nothing of China is in it yet"
    with_an_update_from(scene, CN, closed_job(CN))
    status = scene.send_model(order_for(US, job=SECOND), 1, model(2.0))
    assert (status.state, status.code) == ("refused", Code.RECIPIENT_NOT_NAMED)
    assert scene.send_model(closed_job(CN), 0, model(2.0)).code is None
    scene.carry()
    before = scene.picture(US).deliveries
    assert not any(json.loads(item)["slot"] == 1 for item in before)


def test_a_rogue_coordinator_cannot_send_such_a_model_past_its_own_border(scene: Scene) -> None:
    """With the keys of the coordinator: the zone that is not among the recipients refuses it."""
    order = order_for(US)
    rogue = Rogue(scene.home, HQ)
    sequence = scene.keeper(US).inbound.cursor(HQ) + 1
    stolen = rogue.crossing(order, Kind.MODEL, slot=1, sequence=sequence, lineage=[CN], recipients=[CN, HQ])
    with unharmed(scene, US, refused=Code.RECIPIENT_NOT_NAMED):
        answer = rogue.offer(scene, US, stolen)
    assert answer.receipt is not None
    assert opened_receipt(scene, US, answer.receipt).code is Code.RECIPIENT_NOT_NAMED


@pytest.mark.parametrize("named", [True, False])
def test_a_model_does_not_lose_its_origin_in_a_new_job(scene: Scene, *, named: bool) -> None:
    """Whether the new job says that it starts from the model, or just sends the same bytes."""
    third = JobId("job-00000000000000cc")
    scene.give(closed_job(CN))
    scene.carry()
    with_an_update_from(scene, CN, closed_job(CN))
    secret = model(3.0)
    assert scene.send_model(closed_job(CN), 1, secret).code is None
    laundered = order_for(US, job=third, base=Digest.of(secret) if named else None)
    scene.give(laundered)
    status = scene.send_model(laundered, 0, secret)
    assert (status.state, status.code) == ("refused", Code.RECIPIENT_NOT_NAMED)


def test_a_model_cannot_leave_out_its_contributors(scene: Scene) -> None:
    update = with_an_update_from(scene, CN, order_for(CN))
    scene.send_model(order_for(US), 1, model(4.0), inputs=())
    assert last_sent(scene).lineage == (CN,)
    with refusal(Code.NOT_FOUND):
        scene.send_model(order_for(CN), 1, model(4.0), inputs=(CrossingId.of(b"made up"),))
    scene.send_model(order_for(CN), 1, model(4.0), inputs=(update,))
    assert last_sent(scene).inputs == (update,)


def last_sent(scene: Scene) -> Manifest:
    return Manifest.model_validate_json(json.dumps(sent_manifest(scene.picture(HQ).crossings[-1][2])))


def test_an_order_of_another_issuer_or_for_another_zone_is_not_given(scene: Scene) -> None:
    for order, recipient in ((order_for(CN, issuer=US), CN), (order_for(CN, job=SECOND), US)):
        body = canonical.dump(order)
        header = CandidateHeader(order=order_id(order), kind=Kind.ORDER, recipient=recipient, slot=0, size=len(body))
        with unharmed(scene, HQ), refusal(Code.WRONG_RECIPIENT):
            scene.keeper(HQ).outbound.submit(InsideRole.SUBMITTER, header, body)


def test_a_second_order_of_a_job_is_not_given(scene: Scene) -> None:
    with unharmed(scene, HQ), refusal(Code.ORDER_DUPLICATE):
        scene.give(order_for(CN, expires_at=ORDER.expires_at + 1))


def test_an_order_that_names_a_stranger_is_not_given(scene: Scene) -> None:
    status = scene.give(order_for(CN, job=SECOND, recipients=(CN, HQ, "kp-pyongyang")))
    assert (status.state, status.code) == ("refused", Code.RECIPIENT_NOT_NAMED)
    scene.carry()
    assert not any(SECOND in item for item in scene.picture(CN).deliveries)

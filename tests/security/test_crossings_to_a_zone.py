"""Hostile crossings from a coordinator whose keys are stolen, over the link that the zone's border dials.

An order that is not accepted brings no key, reserves nothing and reaches nobody; a model that is not accepted is
never delivered.
"""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isthmus.cli.federation import DEMO_QUOTAS
from isthmus.contracts.crossings import HeadProof, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, JobId, Name
from isthmus.contracts.inside import CloseOrder
from isthmus.contracts.ledger import Log
from isthmus.contracts.link import FRAME, HeadsAnswer, Opening
from isthmus.contracts.orders import Algorithm, DatasetRef, Order, TrainingPlan
from isthmus.contracts.raw_table import Group
from isthmus.contracts.tensors import TensorSpec
from isthmus.learning import weights
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from security.rogue import Hostile, Rogue, RogueHub, opened_receipt
from security.scene import (
    ALGORITHM,
    CN,
    DAY,
    HOUR,
    HQ,
    NOW,
    TENSORS,
    US,
    Scene,
    grant_of,
    model,
    order_for,
    refusal,
    unharmed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = JobId("job-00000000000000bb")
ORDER = order_for(CN)
ROWS: dict[str, Any] = {"outputs": (Kind.EXTRACT,), "training": None, "evaluation": None, "tensors": ()}


def new(**changes: Any) -> Order:
    return order_for(CN, **{"job": OTHER, **changes})


def plan(**changes: Any) -> TrainingPlan:
    standard = new().training
    assert standard is not None
    return standard.model_copy(update=changes)


BAD_ORDERS: dict[str, tuple[Order, Code]] = {
    "an unknown algorithm": (
        new(algorithm=Algorithm(name=Name("steal"), digest=ALGORITHM.digest)),
        Code.ALGORITHM_UNKNOWN,
    ),
    "other code under a known name": (
        new(algorithm=Algorithm(name=ALGORITHM.name, digest=Digest.of(b"other code"))),
        Code.ALGORITHM_UNKNOWN,
    ),
    "an unknown dataset": (
        new(dataset=DatasetRef(dataset=Name("secrets"), snapshot=Name("2026q4"))),
        Code.DATASET_UNKNOWN,
    ),
    "a snapshot that is not frozen": (
        new(dataset=DatasetRef(dataset=Name("drives"), snapshot=Name("2027q1"))),
        Code.DATASET_UNKNOWN,
    ),
    "the identity of vehicles": (new(groups=(Group.IDENTITY, Group.MOTION)), Code.POLICY_DENIED),
    "where they drove": (new(groups=(Group.MOTION, Group.PLACE)), Code.POLICY_DENIED),
    "a recipient that nobody knows": (new(recipients=("cn-shanghai", "hq", "kp-pyongyang")), Code.RECIPIENT_NOT_NAMED),
    "rows without a permit": (new(**ROWS), Code.PERMIT_MISSING),
    "rows beside updates": (
        new(outputs=(Kind.AGGREGATE, Kind.EXTRACT, Kind.MODEL_UPDATE)),
        Code.PERMIT_MISSING,
    ),
    "a licence": (new(outputs=(Kind.LICENCE,), training=None, evaluation=None, tensors=()), Code.POLICY_DENIED),
    "more bits than the quota": (
        new(tensors=(TensorSpec(name="huge", shape=(2**26,)),), training=plan(rounds=10_000)),
        Code.QUOTA_EXCEEDED,
    ),
    "an order that expired an hour ago": (new(issued_at=NOW - DAY, expires_at=NOW - HOUR), Code.EXPIRED),
    "an order for another zone": (order_for(US, job=OTHER), Code.ID_MISMATCH),
    "an order of another issuer": (new(issuer=US), Code.ID_MISMATCH),
    "a second order of one job": (new(job=ORDER.job, purpose=Name("second")), Code.ORDER_DUPLICATE),
}


def next_of(scene: Scene) -> int:
    return scene.keeper(CN).inbound.cursor(HQ) + 1


def offered(scene: Scene, order: Order, kind: Kind, plaintext: bytes | None = None, /, **changes: Any) -> Code | None:
    """Offer a crossing to the zone; return the code of its refusal, None where it was accepted."""
    rogue = Rogue(scene.home, HQ)
    hostile = rogue.crossing(order, kind, plaintext, **{"sequence": next_of(scene), **changes})
    answer = rogue.offer(scene, CN, hostile)
    if answer.receipt is None:
        return answer.code
    receipt = opened_receipt(scene, CN, answer.receipt)
    assert receipt.crossing == hostile.crossing
    return receipt.code


@pytest.mark.parametrize("attack", BAD_ORDERS)
def test_an_order_that_asks_too_much_is_refused_and_opens_nothing(scene: Scene, attack: str) -> None:
    order, code = BAD_ORDERS[attack]
    with unharmed(scene, CN, refused=code):
        assert offered(scene, order, Kind.ORDER, recipient=CN) is code
        with refusal(Code.ORDER_UNKNOWN):
            grant_of(scene, CN, order_id(order))
    assert offered(scene, new(job=JobId("job-00000000000000cc")), Kind.ORDER) is None, "a right one still passes"


BAD_MANIFESTS: dict[str, tuple[dict[str, Any], Code]] = {
    "from a clock an hour ahead": ({"issued_at": NOW + HOUR}, Code.NOT_YET_VALID),
    "expired on the way": ({"issued_at": NOW - DAY, "expires_at": NOW - HOUR}, Code.EXPIRED),
    "at another slot": ({"slot": 1}, Code.SLOT_UNEXPECTED),
    "under another id": ({"order": order_id(ORDER), "slot": 7}, Code.ID_MISMATCH),
    "of another job": ({"job": ORDER.job}, Code.ID_MISMATCH),
    "for another purpose": ({"purpose": "resale"}, Code.ID_MISMATCH),
    "with another digest": ({"plaintext": Digest.of(b"another order")}, Code.PAYLOAD_ALTERED),
    "with other bits": ({"information_bits": 8}, Code.SCHEMA_MISMATCH),
}


@pytest.mark.parametrize("attack", BAD_MANIFESTS)
def test_an_order_whose_manifest_lies_is_refused(scene: Scene, attack: str) -> None:
    changes, code = BAD_MANIFESTS[attack]
    with unharmed(scene, CN, refused=code):
        assert offered(scene, new(), Kind.ORDER, **changes) is code
        with refusal(Code.ORDER_UNKNOWN):
            grant_of(scene, CN, order_id(new()))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        canonical.dump(new())[:-1],
        canonical.dump(new()) + b"\n",
        canonical.dump(new())[:-1] + b',"code":"import os"}',
        canonical.dump(new()).replace(b'"version":1', b'"version":2'),
        canonical.dump(new()).replace(b'"epochs":1,', b'"epochs":1.0,'),
        canonical.dump(new()).replace(b'"epochs":1,', b'"epochs":true,'),
        canonical.dump(new()).replace(b'"purpose":', b'"purpose":"x","purpose":'),
        b"[" * 40_000,
    ],
)
def test_an_order_that_is_malformed_is_refused(scene: Scene, body: bytes) -> None:
    with unharmed(scene, CN, refused=Code.MALFORMED):
        assert offered(scene, new(), Kind.ORDER, body) is Code.MALFORMED


def test_an_order_larger_than_any_is_turned_away_unread(scene: Scene) -> None:
    with unharmed(scene, CN, turned_away=Code.TOO_LARGE):
        assert offered(scene, new(), Kind.ORDER, canonical.dump(new()) + bytes(1 << 20)) is Code.TOO_LARGE


def test_a_flood_of_orders_ends_at_the_quota(scene: Scene) -> None:
    """One order is open; as many more fit as the quota has. The others reserve nothing; a closed one makes room."""
    room = DEMO_QUOTAS.open_orders_per_peer - 1
    orders = [new(job=JobId(f"job-{number:016x}")) for number in range(room + 5)]
    for order in orders[:room]:
        assert offered(scene, order, Kind.ORDER) is None
    for order in orders[room:]:
        with unharmed(scene, CN, refused=Code.QUOTA_EXCEEDED):
            assert offered(scene, order, Kind.ORDER) is Code.QUOTA_EXCEEDED
    scene.keeper(CN).close_order(CloseOrder(order=order_id(orders[0])))
    assert offered(scene, new(job=JobId("job-00000000000000dd")), Kind.ORDER) is None


def test_a_clock_that_is_turned_back_opens_no_expired_order(scene: Scene) -> None:
    """Time never runs behind the ledger's: what expired stays expired."""
    scene.clock.advance(2 * DAY)
    assert offered(scene, new(), Kind.ORDER, expires_at=NOW + 3 * DAY) is Code.EXPIRED
    scene.clock.advance(-2 * DAY)
    scene.stop(CN)
    with refusal(Code.EXPIRED):
        grant_of(scene, CN, order_id(ORDER))
    assert offered(scene, new(job=JobId("job-00000000000000ee")), Kind.ORDER, expires_at=NOW + 3 * DAY) is Code.EXPIRED


def test_a_zone_whose_clock_is_an_hour_ahead_keeps_its_own_time(scene: Scene) -> None:
    """It takes what is not yet expired by its own clock, and its peer cannot push that clock forward."""
    scene.clock.advance(HOUR)
    assert offered(scene, new(expires_at=NOW + HOUR - 1), Kind.ORDER) is Code.EXPIRED
    assert offered(scene, new(job=JobId("job-00000000000000ef")), Kind.ORDER) is None


# ---- models


def infinite() -> bytes:
    return weights.encode({spec.name: np.full(spec.shape, np.inf, np.float32) for spec in TENSORS})


BAD_MODELS: dict[str, tuple[bytes | None, dict[str, Any], Code]] = {
    "not finite": (infinite(), {"slot": 1}, Code.NOT_FINITE),
    "of other tensors": (model().replace(b'"bias"', b'"mass"'), {"slot": 1}, Code.SCHEMA_MISMATCH),
    "cut short": (model()[:-4], {"slot": 1}, Code.TRUNCATED),
    "another than its digest": (None, {"slot": 1, "plaintext": Digest.of(b"x")}, Code.PAYLOAD_ALTERED),
    "after the last round": (None, {"slot": 3}, Code.SLOT_UNEXPECTED),
    "for recipients without this zone": (None, {"slot": 1, "recipients": ["hq", "us-texas"]}, Code.RECIPIENT_NOT_NAMED),
    "for nobody": (None, {"slot": 1, "recipients": []}, Code.RECIPIENT_NOT_NAMED),
    "for more than the order names": (
        None,
        {"slot": 1, "recipients": ["cn-shanghai", "de-munich", "hq", "us-texas"]},
        Code.RECIPIENT_NOT_NAMED,
    ),
    "for another purpose": (None, {"slot": 1, "purpose": "resale"}, Code.POLICY_DENIED),
    "sealed to another": (None, {"slot": 1, "sealed_to": US}, Code.PAYLOAD_ALTERED),
    "of another job": (None, {"slot": 1, "job": OTHER}, Code.ID_MISMATCH),
}


@pytest.mark.parametrize("attack", BAD_MODELS)
def test_a_model_that_is_wrong_is_refused(scene: Scene, attack: str) -> None:
    plaintext, changes, code = BAD_MODELS[attack]
    with unharmed(scene, CN, refused=code):
        assert offered(scene, ORDER, Kind.MODEL, plaintext, **changes) is code


def test_a_model_of_no_order_or_a_closed_one_is_refused(scene: Scene) -> None:
    with unharmed(scene, CN, refused=Code.ORDER_UNKNOWN):
        assert offered(scene, new(), Kind.MODEL) is Code.ORDER_UNKNOWN
    scene.keeper(CN).close_order(CloseOrder(order=order_id(ORDER)))
    with unharmed(scene, CN, refused=Code.ORDER_CLOSED):
        assert offered(scene, ORDER, Kind.MODEL, slot=1) is Code.ORDER_CLOSED


@pytest.mark.parametrize("kind", [Kind.MODEL_UPDATE, Kind.AGGREGATE, Kind.EXTRACT, Kind.LICENCE])
def test_a_coordinator_sends_no_releases(scene: Scene, kind: Kind) -> None:
    with unharmed(scene, CN, turned_away=Code.UNKNOWN_KIND):
        assert offered(scene, ORDER, kind) is Code.UNKNOWN_KIND


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipient": US}, Code.WRONG_RECIPIENT),
        ({"sender": US}, Code.SENDER_UNKNOWN),
        ({"sequence": 9}, Code.OUT_OF_SEQUENCE),
        ({"sequence": 1}, Code.REPLAYED),
        ({"slot": 0}, Code.CONFLICTING_PAYLOAD),
    ],
)
def test_what_is_not_the_next_crossing_for_this_zone_is_turned_away(
    scene: Scene, changes: dict[str, Any], code: Code
) -> None:
    with unharmed(scene, CN, turned_away=code):
        assert offered(scene, ORDER, Kind.MODEL, **{"slot": 1, **changes}) is code
    assert offered(scene, ORDER, Kind.MODEL, slot=1) is None


def test_an_envelope_of_another_zone_is_turned_away(scene: Scene) -> None:
    forged = Rogue(scene.home, US).crossing(ORDER, Kind.MODEL, sequence=next_of(scene), sender=HQ, recipient=CN)
    with unharmed(scene, CN, turned_away=Code.SIGNATURE_INVALID):
        assert Rogue(scene.home, HQ).offer(scene, CN, forged).code is Code.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: p[:-1], Code.PAYLOAD_ALTERED),
        (lambda _: b"", Code.PAYLOAD_ALTERED),
        (lambda p: p[:60] + bytes([p[60] ^ 4]) + p[61:], Code.PAYLOAD_ALTERED),
    ],
)
def test_a_payload_that_is_not_the_signed_one_decides_nothing(
    scene: Scene, change: Callable[[bytes], bytes], code: Code
) -> None:
    rogue = Rogue(scene.home, HQ)
    right = rogue.crossing(ORDER, Kind.MODEL, sequence=next_of(scene), slot=1)
    with unharmed(scene, CN, turned_away=code):
        answer = rogue.offer(scene, CN, Hostile(right.envelope, change(right.payload), right.crossing))
        assert answer.code is code
    assert rogue.offer(scene, CN, right).receipt is not None


def test_more_bytes_than_were_signed_are_not_even_read(scene: Scene) -> None:
    rogue = Rogue(scene.home, HQ)
    right = rogue.crossing(ORDER, Kind.MODEL, sequence=next_of(scene), slot=1)
    with unharmed(scene, CN):
        answer = rogue.offer(scene, CN, Hostile(right.envelope, right.payload + bytes(FRAME), right.crossing))
        assert answer.code is Code.TOO_LARGE


def test_the_same_offer_again_brings_the_same_receipt(scene: Scene) -> None:
    rogue = Rogue(scene.home, HQ)
    right = rogue.crossing(ORDER, Kind.MODEL, sequence=next_of(scene), slot=1)
    first = rogue.offer(scene, CN, right)
    scene.stop(CN)
    with unharmed(scene, CN):
        assert rogue.offer(scene, CN, right) == first


# ---- a hub that answers what it likes


@pytest.mark.parametrize(
    "answers",
    [
        {"opening": b"{}"},
        {"opening": b"\xff\xfe"},
        {"heads": b'{"cosigned":{},"heads":{}} '},
        {"heads": b"<html>"},
        {"heads": canonical.dump(HeadsAnswer(cosigned={Log.CROSSINGS: "not a note"}, heads={}))},
        {
            "heads": canonical.dump(
                HeadsAnswer(
                    cosigned={},
                    heads={Log.CROSSINGS: HeadProof(checkpoint="isthmus/hq/crossings\n1\n\n", base=0, consistency=())},
                )
            )
        },
        {"heads": b'{"cosigned":{},"heads":{"crossings":{"base":0,"checkpoint":"","consistency":["QR=="]}}}'},
        {"heads": b"[" * 300_000},
    ],
)
def test_the_dialer_outlives_whatever_it_is_answered(scene: Scene, answers: dict[str, Any]) -> None:
    """It ends the link with a code, having noted nothing, and can dial again."""
    with unharmed(scene, CN):
        assert asyncio.run(RogueHub(None, **answers).serve(scene, CN)).code is not None
    right = Rogue(scene.home, HQ).crossing(ORDER, Kind.MODEL, sequence=next_of(scene), slot=1)
    assert Rogue(scene.home, HQ).offer(scene, CN, right).receipt is not None


def test_a_compressed_answer_is_not_blown_up(scene: Scene) -> None:
    """A few kilobytes that would become a gigabyte of spaces are never unpacked."""
    bomb = gzip.compress(bytes(1 << 26))
    hub = RogueHub(None, heads=bomb, headers={"content-encoding": "gzip"})
    hub.opening = canonical.dump(Opening(version=1, site=HQ, peer=CN, cosigned={}, cursor=0, at=NOW))
    with unharmed(scene, CN):
        assert asyncio.run(hub.serve(scene, CN)).code is Code.MALFORMED

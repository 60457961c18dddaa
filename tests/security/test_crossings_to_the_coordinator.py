"""Hostile crossings from a zone whose keys are stolen: the coordinator's border takes none of them.

What cannot be a crossing is turned away with one note; what is one, and wrong, is one refused entry with a receipt.
Either way nothing is delivered, charged or kept on disk.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isthmus.border.gate import outside
from isthmus.border.gate.framing import message_in, padded, padded_payload
from isthmus.contracts.bands import band_evaluation
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, JobId, OrderId
from isthmus.contracts.link import FRAME, Heads, LinkProblem, Parcel
from isthmus.contracts.orders import Evaluation
from isthmus.learning import weights
from isthmus.proof import canonical, sealing
from isthmus.proof.ids import crossing_id, order_id
from security.rogue import Hostile, Rogue, opened_receipt
from security.scene import (
    BAND_UM,
    CLIP,
    CN,
    HOUR,
    HQ,
    NOW,
    TENSORS,
    US,
    Scene,
    evaluation,
    model,
    order_for,
    refusal,
    unharmed,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx2

UPDATE, AGGREGATE = Kind.MODEL_UPDATE, Kind.AGGREGATE
ORDER = order_for(CN)
MODEL_HEADER = len(weights.header_bytes(TENSORS))


def update(plaintext: bytes | None = None, /, **changes: Any) -> Callable[[Rogue, int], Hostile]:
    return lambda rogue, sequence: rogue.crossing(ORDER, UPDATE, plaintext, **{"sequence": sequence, **changes})


def aggregate(plaintext: bytes, **changes: Any) -> Callable[[Rogue, int], Hostile]:
    return lambda rogue, sequence: rogue.crossing(ORDER, AGGREGATE, plaintext, **{"sequence": sequence, **changes})


def of_kind(kind: Kind, **changes: Any) -> Callable[[Rogue, int], Hostile]:
    return lambda rogue, sequence: rogue.crossing(ORDER, kind, model(), **{"sequence": sequence, **changes})


def with_number(value: float) -> bytes:
    data = bytearray(model())
    data[-4:] = np.float32(value).tobytes()
    return bytes(data)


def overlapping() -> bytes:
    """Both tensors over the same bytes, under a header of the right length."""
    described = {
        "bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "weight": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]},
    }
    text = json.dumps(described, separators=(",", ":")).encode().ljust(MODEL_HEADER - 8)
    return len(text).to_bytes(8, "little") + text + bytes(60)


def renamed() -> bytes:
    return model().replace(b'"bias"', b'"mass"')


def reshaped() -> bytes:
    return model().replace(b"[4,3]", b"[3,4]")


def huge_header() -> bytes:
    return (2**40).to_bytes(8, "little") + model()[8:]


def too_large() -> bytes:
    value = 1.01 * CLIP / np.sqrt(15)
    return weights.encode({spec.name: np.full(spec.shape, value, np.float32) for spec in TENSORS})


def banded(slot: int = 0) -> bytes:
    return canonical.dump(band_evaluation(canonical.load(Evaluation, evaluation(slot)), BAND_UM))


REFUSED: dict[str, tuple[Callable[[Rogue, int], Hostile], Code]] = {
    "NaN": (update(with_number(float("nan"))), Code.NOT_FINITE),
    "infinity": (update(with_number(float("inf"))), Code.NOT_FINITE),
    "minus infinity": (update(with_number(float("-inf"))), Code.NOT_FINITE),
    "a header that overlaps": (update(overlapping()), Code.MALFORMED),
    "a header with a huge length": (update(huge_header()), Code.TOO_LARGE),
    "other tensors": (update(renamed()), Code.SCHEMA_MISMATCH),
    "another shape": (update(reshaped()), Code.SCHEMA_MISMATCH),
    "half a model": (update(model()[:-8]), Code.TRUNCATED),
    "a pickle": (update(b"\x80\x05cposix\nsystem\n" + bytes(100)), Code.TOO_LARGE),
    "larger than its norm": (update(too_large()), Code.SCHEMA_MISMATCH),
    "a slot after the last": (update(slot=2), Code.SLOT_UNEXPECTED),
    "a slot far away": (update(slot=2**53), Code.SLOT_UNEXPECTED),
    "finer than the band": (aggregate(evaluation()), Code.SCHEMA_MISMATCH),
    "an evaluation of another slot": (aggregate(banded(2)), Code.SLOT_UNEXPECTED),
    "an evaluation where none is asked for": (aggregate(banded(1), slot=1), Code.SLOT_UNEXPECTED),
    "an evaluation with NaN": (aggregate(banded().replace(b"510000", b"NaN")), Code.MALFORMED),
    "an evaluation with a float": (aggregate(banded().replace(b"510000", b"51e4")), Code.MALFORMED),
    "an evaluation in a second spelling": (aggregate(banded() + b" "), Code.MALFORMED),
    "an evaluation with a second key": (aggregate(banded()[:-1] + b',"slot":0}'), Code.MALFORMED),
    "an evaluation with more in it": (aggregate(banded()[:-1] + b',"vin":"LSV"}'), Code.MALFORMED),
    "rows": (of_kind(Kind.EXTRACT), Code.SLOT_UNEXPECTED),
    "sealed to another site": (update(sealed_to=US), Code.PAYLOAD_ALTERED),
    "a content key of the wrong length": (update(content_key=b"k" * 16), Code.PAYLOAD_ALTERED),
    "a wrapped key that is too short": (update(payload={"wrapped_key": "QUJD"}), Code.PAYLOAD_ALTERED),
    "more bits than it says": (update(information_bits=8), Code.SCHEMA_MISMATCH),
    "fewer bits than it says": (update(information_bits=8 * len(model()) + 7), Code.SCHEMA_MISMATCH),
    "from a clock an hour ahead": (update(issued_at=NOW + HOUR), Code.NOT_YET_VALID),
    "expired an hour ago": (update(issued_at=NOW - 2 * HOUR, expires_at=NOW - HOUR), Code.EXPIRED),
    "another job": (update(job="job-00000000000000bb"), Code.ID_MISMATCH),
    "another purpose": (update(purpose="resale"), Code.POLICY_DENIED),
    "a lineage without its sender": (update(lineage=[]), Code.RECIPIENT_NOT_NAMED),
    "a lineage of another zone": (update(lineage=[US]), Code.RECIPIENT_NOT_NAMED),
    "recipients that the order does not name": (
        update(recipients=["cn-shanghai", "hq", "xx"]),
        Code.RECIPIENT_NOT_NAMED,
    ),
    "a notice that is none": (of_kind(Kind.NOTICE, contributors=None), Code.MALFORMED),
}

TURNED_AWAY: dict[str, tuple[Callable[[Rogue, int], Hostile], Code]] = {
    "a larger shape": (update(weights.encode({"a": np.zeros((400, 400), np.float32)})), Code.TOO_LARGE),
    "a size that no order allows": (update(payload={"size": 2**40}), Code.TOO_LARGE),
    "for another recipient": (update(recipient=US), Code.WRONG_RECIPIENT),
    "from another sender": (update(sender=US), Code.SENDER_UNKNOWN),
    "to itself": (update(recipient=CN), Code.MALFORMED),
    "an order": (of_kind(Kind.ORDER), Code.UNKNOWN_KIND),
    "a model": (of_kind(Kind.MODEL), Code.UNKNOWN_KIND),
    "a licence": (of_kind(Kind.LICENCE), Code.UNKNOWN_KIND),
    "a kind that does not exist": (update(kind="telemetry"), Code.MALFORMED),
    "a field that does not exist": (update(note="hello"), Code.MALFORMED),
    "another id": (update(crossing=Digest.of(b"another")), Code.ID_MISMATCH),
    "the id of another slot": (update(crossing=crossing_id(order_id(ORDER), UPDATE, HQ, 0), slot=1), Code.ID_MISMATCH),
    "exact contributors": (update(contributors={"vehicles": 23, "windows": 2345}), Code.MALFORMED),
    "no vehicle": (update(contributors={"vehicles": 0, "windows": 1000}), Code.MALFORMED),
    "a gap in the sequence": (lambda r, n: r.crossing(ORDER, UPDATE, sequence=n + 1), Code.OUT_OF_SEQUENCE),
    "an order that nobody gave": (update(order=OrderId.of(b"none")), Code.ORDER_UNKNOWN),
    "the order of another zone": (update(order=order_id(order_for(US))), Code.ORDER_UNKNOWN),
    "signed as something else": (update(envelope_type="application/json"), Code.SIGNATURE_INVALID),
    "a plaintext digest of data": (update(plaintext=Digest.of(model())), Code.MALFORMED),
    "a second spelling of a key": (update(payload={"wrapped_key": "QR=="}), Code.MALFORMED),
}


def next_of(scene: Scene) -> int:
    return scene.keeper(HQ).inbound.cursor(CN) + 1


def accepted(scene: Scene, rogue: Rogue) -> None:
    """Show that what is right in all still passes: the refusals before it were for their reasons."""
    answer = rogue.put(scene, rogue.crossing(ORDER, UPDATE, sequence=next_of(scene)))
    assert answer.receipt is not None
    assert opened_receipt(scene, HQ, answer.receipt).verdict == "accepted"


@pytest.mark.parametrize("attack", REFUSED)
def test_what_is_wrong_is_refused_once(scene: Scene, attack: str) -> None:
    make, code = REFUSED[attack]
    rogue = Rogue(scene.home, CN)
    hostile = make(rogue, next_of(scene))
    with unharmed(scene, HQ, refused=code):
        answer = rogue.put(scene, hostile)
        assert rogue.put(scene, hostile) == answer, "the same bytes again bring the same receipt"
    assert answer.receipt is not None
    receipt = opened_receipt(scene, HQ, answer.receipt)
    assert (receipt.verdict, receipt.code, receipt.crossing) == ("refused", code, hostile.crossing)


@pytest.mark.parametrize("attack", TURNED_AWAY)
def test_what_cannot_be_a_crossing_is_turned_away(scene: Scene, attack: str) -> None:
    make, code = TURNED_AWAY[attack]
    rogue = Rogue(scene.home, CN)
    hostile = make(rogue, next_of(scene))
    with unharmed(scene, HQ, turned_away=code):
        assert rogue.put(scene, hostile).code is code
    accepted(scene, rogue)


def test_an_envelope_of_another_site_is_turned_away(scene: Scene) -> None:
    stolen = Rogue(scene.home, US).crossing(order_for(US), UPDATE, sequence=1)
    with unharmed(scene, HQ, turned_away=Code.SIGNATURE_INVALID):
        assert Rogue(scene.home, CN).put(scene, stolen).code is Code.SIGNATURE_INVALID


@pytest.mark.parametrize("flip", [30, 400, 3000, 5000, 9000])
def test_a_flipped_byte_of_an_envelope_is_turned_away(scene: Scene, flip: int) -> None:
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    letters = bytearray(right.envelope)
    at = min(flip, len(letters) - 60)
    letters[at] = ord("A") if letters[at] != ord("A") else ord("B")
    before = scene.picture(HQ)
    answer = rogue.put(scene, Hostile(bytes(letters), right.payload, right.crossing))
    assert answer.code in {Code.SIGNATURE_INVALID, Code.MALFORMED}
    after = scene.picture(HQ)
    assert (after.crossings, after.deliveries, after.budget, after.blobs) == (
        before.crossings,
        before.deliveries,
        before.budget,
        before.blobs,
    )


@pytest.mark.parametrize(
    "envelope", ["", "{}", "null", "[]", '{"payload":"","payloadType":"","signatures":[]}', "\u0000", "x" * 65_536]
)
def test_what_is_no_envelope_is_turned_away(scene: Scene, envelope: str) -> None:
    with unharmed(scene, HQ, turned_away=Code.MALFORMED):
        answer = Rogue(scene.home, CN).put(scene, Hostile(envelope.encode(), b"", Digest.of(b"")))
        assert answer.code is Code.MALFORMED


def test_an_envelope_larger_than_any_is_turned_away_unread(scene: Scene) -> None:
    """The gate has refused it already as part of a parcel; the keeper looks again."""
    with unharmed(scene, HQ, turned_away=Code.TOO_LARGE), refusal(Code.TOO_LARGE):
        scene.keeper(HQ).inbound.examine(CN, b"{" * (64 * 1024 + 1))
    too_long = Hostile(b"x" * 65_537, b"", Digest.of(b""))
    body = canonical.encode({"envelope": too_long.envelope.decode(), "heads": {"heads": {}, "seen": {}}})
    with unharmed(scene, HQ):
        path = f"/link/{CN}/crossings/{too_long.crossing}"
        answer = Rogue(scene.home, CN).put_bytes(scene, padded(body), path=path)
        assert answer.code is Code.MALFORMED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.TRUNCATED),
        (b"\x00\x00", Code.TRUNCATED),
        (struct.pack(">I", 100) + b"{}", Code.TRUNCATED),
        (struct.pack(">I", 2) + b"{}", Code.TRUNCATED),
        (padded(b"{}")[:-1], Code.TRUNCATED),
        (padded(b""), Code.MALFORMED),
        (padded(b"{}"), Code.MALFORMED),
        (padded(b"{}")[:-1] + b"\x01", Code.MALFORMED),
        (struct.pack(">I", 2**32 - 1) + b"{}", Code.TOO_LARGE),
        (padded(b'{"a":'), Code.MALFORMED),
    ],
)
def test_what_is_no_parcel_leaves_no_trace(scene: Scene, body: bytes, code: Code) -> None:
    path = f"/link/{CN}/crossings/{Digest.of(b'')}"
    with unharmed(scene, HQ):
        assert Rogue(scene.home, CN).put_bytes(scene, body, path=path).code is code


@pytest.mark.parametrize(
    ("change", "code", "noted"),
    [
        (lambda p: p[:-1], Code.PAYLOAD_ALTERED, True),
        (lambda p: p[: (len(p) - 1) // FRAME * FRAME], Code.TRUNCATED, False),
        (lambda _: b"", Code.TRUNCATED, False),
        (lambda p: p + b"\x01", Code.MALFORMED, False),
        (lambda p: p + bytes(FRAME), Code.TOO_LARGE, False),
        (lambda p: bytes([p[0] ^ 1]) + p[1:], Code.PAYLOAD_ALTERED, True),
        (lambda p: p[:-1] + bytes([p[-1] ^ 128]), Code.PAYLOAD_ALTERED, True),
    ],
)
def test_a_payload_that_is_not_the_signed_one_decides_nothing(
    scene: Scene, change: Callable[[bytes], bytes], code: Code, *, noted: bool
) -> None:
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    with unharmed(scene, HQ, turned_away=code if noted else None):
        assert rogue.put(scene, Hostile(right.envelope, change(right.payload), right.crossing)).code is code
    assert rogue.put(scene, right).receipt is not None, "cut off and sent again, it passes"


def test_a_path_that_names_another_crossing_decides_nothing(scene: Scene) -> None:
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    with unharmed(scene, HQ):
        assert rogue.put(scene, right, crossing=Digest.of(b"another")).code is Code.ID_MISMATCH


# ---- once is once


@pytest.mark.parametrize("restarted", [False, True])
def test_a_repeat_brings_the_same_receipt_and_one_effect(scene: Scene, *, restarted: bool) -> None:
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    first = rogue.put(scene, right)
    assert first.receipt is not None
    if restarted:
        scene.stop(HQ)
    with unharmed(scene, HQ):
        assert rogue.put(scene, right) == first


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("later", [0, 1])
def test_a_crossing_signed_anew_is_a_replay(scene: Scene, *, restarted: bool, later: int) -> None:
    """The same sealed bytes, under a fresh signature, with the old sequence number or the next."""
    rogue = Rogue(scene.home, CN)
    sequence = next_of(scene)
    content_key = sealing.new_content_key()
    right = rogue.crossing(ORDER, UPDATE, sequence=sequence, content_key=content_key)
    assert rogue.put(scene, right).receipt is not None
    if restarted:
        scene.stop(HQ)
    kept = {"digest": Digest.of(right.payload), "size": len(right.payload)}
    again = rogue.crossing(ORDER, UPDATE, sequence=sequence + later, payload=kept)
    with unharmed(scene, HQ, turned_away=Code.REPLAYED):
        assert rogue.put(scene, Hostile(again.envelope, right.payload, right.crossing)).code is Code.REPLAYED


@pytest.mark.parametrize("restarted", [False, True])
def test_another_payload_under_an_id_is_refused_and_the_first_stands(scene: Scene, *, restarted: bool) -> None:
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    assert rogue.put(scene, right).receipt is not None
    if restarted:
        scene.stop(HQ)
    other = rogue.crossing(ORDER, UPDATE, model(0.25), sequence=next_of(scene))
    with unharmed(scene, HQ, turned_away=Code.CONFLICTING_PAYLOAD):
        assert rogue.put(scene, other).code is Code.CONFLICTING_PAYLOAD
    assert bytes(scene.keeper(HQ).inbound.payload(right.crossing)) == model()  # type: ignore[arg-type]  # it is one


def test_sealed_bytes_that_are_used_again_cannot_destroy_the_crossing_they_came_with(scene: Scene) -> None:
    """The bytes of an accepted crossing, sent once more under another slot, are a replay; the first stays readable."""
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    assert rogue.put(scene, right).receipt is not None
    kept = {"digest": Digest.of(right.payload), "size": len(right.payload)}
    again = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene), slot=1, payload=kept)
    with unharmed(scene, HQ, turned_away=Code.REPLAYED):
        assert rogue.put(scene, Hostile(again.envelope, right.payload, again.crossing)).code is Code.REPLAYED
    other = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene), slot=1)
    with unharmed(scene, HQ, turned_away=Code.PAYLOAD_ALTERED):
        answer = rogue.put(scene, Hostile(other.envelope, right.payload, other.crossing))
        assert answer.code is Code.PAYLOAD_ALTERED
    assert bytes(scene.keeper(HQ).inbound.payload(right.crossing)) == model()  # type: ignore[arg-type]  # it is one


def test_a_zone_cannot_take_the_place_of_another_zones_crossing(scene: Scene) -> None:
    """The id of what the other zone will send can be worked out: taking it in advance changes nothing for that zone."""
    squatter = Rogue(scene.home, CN)
    theirs = order_for(US)
    squat = squatter.crossing(theirs, UPDATE, sequence=next_of(scene))
    with unharmed(scene, HQ, turned_away=Code.ORDER_UNKNOWN):
        assert squatter.put(scene, squat).code is Code.ORDER_UNKNOWN
    rightful = Rogue(scene.home, US)
    right = rightful.crossing(theirs, UPDATE, sequence=scene.keeper(HQ).inbound.cursor(US) + 1)
    answer = rightful.put(scene, right)
    assert answer.receipt is not None
    assert opened_receipt(scene, HQ, answer.receipt).verdict == "accepted"


def test_rows_are_not_taken_in_even_where_an_order_asks_for_them(scene: Scene) -> None:
    """The coordinator has nowhere to hold raw data: its own border keeps it so."""
    wanted = order_for(
        CN, job=JobId("job-00000000000000cc"), outputs=(Kind.EXTRACT,), training=None, evaluation=None, tensors=()
    )
    scene.give(wanted)
    rogue = Rogue(scene.home, CN)
    with unharmed(scene, HQ, refused=Code.UNKNOWN_KIND):
        answer = rogue.put(scene, rogue.crossing(wanted, Kind.EXTRACT, b"rows", sequence=next_of(scene)))
    assert answer.receipt is not None
    assert opened_receipt(scene, HQ, answer.receipt).code is Code.UNKNOWN_KIND


def test_an_upload_that_stands_still_does_not_hold_up_the_next(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was cut in mid-payload says nothing: the border hears silence, and then the zone's next try."""
    monkeypatch.setattr(outside, "SILENCE_S", 0.3)
    rogue = Rogue(scene.home, CN)
    right = rogue.crossing(ORDER, UPDATE, sequence=next_of(scene))
    parcel = Parcel(envelope=right.envelope.decode(), heads=Heads(heads={}, seen={}))
    body = padded(canonical.dump(parcel)) + b"".join(padded_payload([right.payload], len(right.payload)))

    async def cut() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        await asyncio.Event().wait()

    async def both() -> list[httpx2.Response]:
        path = f"/link/{CN}/crossings/{right.crossing}"
        async with rogue.client(scene) as http:
            return await asyncio.gather(http.put(path, content=cut()), http.put(path, content=body))

    stuck, whole = asyncio.run(both())
    assert message_in(LinkProblem, stuck.content, FRAME).code is Code.TRUNCATED
    assert whole.status_code == 200

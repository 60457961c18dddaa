"""Envelopes: only the whole, unchanged, of this type and by this key, is handed out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.proof import canonical
from isthmus.proof.signing import SigningKey, parse_envelope, verify

TYPE = "application/vnd.isthmus.crossing+json"
KEY = SigningKey.from_seeds(b"\x01" * 32, b"\x02" * 32)
OTHER = SigningKey.from_seeds(b"\x03" * 32, b"\x04" * 32)
PAYLOAD = b'{"kind":"aggregate","sequence":7}'
ENVELOPE = KEY.sign(TYPE, PAYLOAD)
quick = settings(deadline=None, max_examples=100)


def refusal(data: bytes, type_: str = TYPE, key: SigningKey = KEY) -> Code:
    with pytest.raises(Refusal) as refused:
        verify(data, type_, key.verify_key)
    return refused.value.code


def changed(**parts: Any) -> bytes:
    return canonical.encode(json.loads(ENVELOPE) | parts)


def signatures() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(ENVELOPE)["signatures"]
    return found


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=300), st.text(max_size=20).filter(lambda t: t.isascii()))
def test_a_payload_comes_back(payload: bytes, payload_type: str) -> None:
    data = KEY.sign(payload_type, payload)
    assert verify(data, payload_type, KEY.verify_key) == payload
    parsed = parse_envelope(data)
    assert (parsed.payload, parsed.payload_type, parsed.keyid) == (payload, payload_type, KEY.verify_key.keyid)
    assert parsed.to_bytes() == data


@settings(deadline=None, max_examples=400)
@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_refused(place: int, flip: int) -> None:
    data = bytearray(ENVELOPE)
    data[place] ^= flip
    assert refusal(bytes(data)) in {Code.MALFORMED, Code.SIGNATURE_INVALID}


@quick
@given(st.integers(0, len(ENVELOPE) - 1))
def test_an_envelope_cut_short_is_refused(length: int) -> None:
    assert refusal(ENVELOPE[:length]) is Code.MALFORMED


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("bit", [0, 7, 100])
def test_either_signature_alone_is_not_enough(part: int, bit: int) -> None:
    both = signatures()
    raw = bytearray(canonical.from_base64(both[part]["sig"]))
    raw[bit % len(raw)] ^= 1
    both[part]["sig"] = canonical.to_base64(bytes(raw))
    assert refusal(changed(signatures=both)) is Code.SIGNATURE_INVALID


@pytest.mark.parametrize("part", [0, 1])
def test_one_signature_by_another_key_is_refused(part: int) -> None:
    both = signatures()
    both[part]["sig"] = json.loads(OTHER.sign(TYPE, PAYLOAD))["signatures"][part]["sig"]
    assert refusal(changed(signatures=both)) is Code.SIGNATURE_INVALID


def test_one_signature_over_another_payload_is_refused() -> None:
    both = signatures()
    both[1]["sig"] = json.loads(KEY.sign(TYPE, b"{}"))["signatures"][1]["sig"]
    assert refusal(changed(signatures=both)) is Code.SIGNATURE_INVALID


def test_another_type_is_refused_whether_asked_for_or_written_in() -> None:
    assert refusal(ENVELOPE, type_="application/vnd.isthmus.receipt+json") is Code.SIGNATURE_INVALID
    renamed = changed(payloadType="application/vnd.isthmus.receipt+json")
    assert refusal(renamed) is Code.SIGNATURE_INVALID
    assert refusal(renamed, type_="application/vnd.isthmus.receipt+json") is Code.SIGNATURE_INVALID


def test_bytes_cannot_move_between_type_and_payload() -> None:
    moved = changed(payloadType=TYPE + " 1", payload=canonical.to_base64(PAYLOAD))
    assert refusal(moved, type_=TYPE + " 1") is Code.SIGNATURE_INVALID


def test_another_key_is_refused_even_under_the_name_of_this_one() -> None:
    assert refusal(ENVELOPE, key=OTHER) is Code.SIGNATURE_INVALID
    posing = json.loads(OTHER.sign(TYPE, PAYLOAD))
    for theirs, ours in zip(posing["signatures"], signatures(), strict=True):
        theirs["keyid"] = ours["keyid"]
    assert refusal(canonical.encode(posing)) is Code.SIGNATURE_INVALID


def test_signatures_under_the_name_of_another_key_are_refused() -> None:
    renamed = [s | {"keyid": s["keyid"].replace(KEY.verify_key.keyid, OTHER.verify_key.keyid)} for s in signatures()]
    assert refusal(changed(signatures=renamed)) is Code.SIGNATURE_INVALID


def test_mldsa_signs_under_its_own_context() -> None:
    message = b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(PAYLOAD), PAYLOAD)
    public = MLDSA65PublicKey.from_public_bytes(KEY.verify_key.mldsa65_bytes)
    signature = parse_envelope(ENVELOPE).mldsa65
    public.verify(signature, message, context=b"isthmus/v1")
    with pytest.raises(InvalidSignature):
        public.verify(signature, message)


def _swapped() -> bytes:
    return changed(signatures=signatures()[::-1])


def _contents_swapped() -> bytes:
    ed25519, mldsa65 = signatures()
    return changed(signatures=[ed25519 | {"sig": mldsa65["sig"]}, mldsa65 | {"sig": ed25519["sig"]}])


def _two_keys_named() -> bytes:
    ed25519, mldsa65 = signatures()
    return changed(signatures=[ed25519, mldsa65 | {"keyid": OTHER.verify_key.keyid + ":mldsa65"}])


def _unpadded() -> bytes:
    value = json.loads(KEY.sign(TYPE, b"x"))
    assert value["payload"].endswith("==")
    return canonical.encode(value | {"payload": value["payload"][:-2]})


def _stray_bits() -> bytes:
    value = json.loads(KEY.sign(TYPE, b"x"))
    return canonical.encode(value | {"payload": value["payload"][:1] + "B=="})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff" * 50,
        ENVELOPE + b"\n",
        json.dumps(json.loads(ENVELOPE)).encode(),
        changed(extra=1),
        changed(signatures=[]),
        changed(signatures=signatures()[:1]),
        changed(signatures=signatures()[1:]),
        changed(signatures=[*signatures(), signatures()[0]]),
        changed(signatures=[signatures()[0], signatures()[0]]),
        changed(signatures=[s | {"extra": 1} for s in signatures()]),
        changed(signatures=[{"sig": s["sig"]} for s in signatures()]),
        changed(signatures="none"),
        changed(payload=1),
        changed(payload="not base64!"),
        changed(payloadType=None),
        _swapped(),
        _contents_swapped(),
        _two_keys_named(),
        _unpadded(),
        _stray_bits(),
    ],
)
def test_what_is_not_an_envelope_in_its_one_spelling_is_refused(data: bytes) -> None:
    assert refusal(data) is Code.MALFORMED


def test_an_envelope_over_the_limit_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        verify(ENVELOPE, TYPE, KEY.verify_key, limit=len(ENVELOPE) - 1)
    assert refused.value.code is Code.TOO_LARGE
    assert verify(ENVELOPE, TYPE, KEY.verify_key, limit=len(ENVELOPE)) == PAYLOAD


@quick
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert refusal(data) is Code.MALFORMED

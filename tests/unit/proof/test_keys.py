"""A public key is refused when it is not exactly one: wrong length, second spelling, an order anyone can sign for."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.keys import HpkeKey, HybridKey
from isthmus.proof import canonical, sealing
from isthmus.proof.signing import SigningKey

P = 2**255 - 19
# The y coordinates of all points of order 1, 2, 4 and 8: 1, -1, 0, and two of order 8 (each for two signs of x).
ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
SMALL = [1, P - 1, 0, int.from_bytes(bytes.fromhex(ORDER_8), "little")]
SMALL.append(P - SMALL[3])


@pytest.mark.parametrize("sign", [0, 1 << 255])
@pytest.mark.parametrize("y", [*SMALL, P, P + 1, P + 3, 2**255 - 1])
def test_a_key_of_small_order_or_unreduced_is_refused(y: int, sign: int) -> None:
    with pytest.raises(ValidationError):
        HybridKey.from_bytes((y | sign).to_bytes(32, "little"), bytes(1952))


@pytest.mark.parametrize(("ed25519", "mldsa65"), [(31, 1952), (33, 1952), (32, 1951), (32, 1953), (0, 0)])
def test_a_key_of_another_length_is_refused(ed25519: int, mldsa65: int) -> None:
    with pytest.raises(ValidationError):
        HybridKey.from_bytes(b"\x07" * ed25519, b"\x07" * mldsa65)


def test_a_second_spelling_of_a_key_is_refused() -> None:
    spelled = base64.b64encode(SigningKey.generate().verify_key.ed25519_bytes).decode()
    stray = spelled[:-2] + chr(ord(spelled[-2]) + 1) + "="
    assert base64.b64decode(stray) == base64.b64decode(spelled)
    with pytest.raises(ValidationError):
        HybridKey(ed25519=stray, mldsa65=base64.b64encode(bytes(1952)).decode())


def test_the_key_id_is_that_of_the_canonical_bytes() -> None:
    key = SigningKey.generate().verify_key
    assert key.keyid == "hybrid:" + canonical.digest(key).removeprefix("sha256:")[:32]


@pytest.mark.parametrize("size", [0, 1215, 1217])
def test_a_sealing_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValidationError):
        HpkeKey.from_bytes(bytes(size))


@pytest.mark.parametrize("tail", [bytes(32), b"\x01" + bytes(31)])
def test_nothing_is_wrapped_to_a_point_of_small_order(tail: bytes) -> None:
    good = sealing.SealingKey.generate().public.raw
    with pytest.raises(Refusal) as refused:
        sealing.wrap(bytes(32), HpkeKey.from_bytes(good[:-32] + tail), context=b"")
    assert refused.value.code is Code.MALFORMED


def test_nothing_is_wrapped_to_an_mlkem_key_that_is_not_reduced() -> None:
    good = sealing.SealingKey.generate().public.raw
    with pytest.raises(Refusal):
        sealing.wrap(bytes(32), HpkeKey.from_bytes(b"\xff" * 1184 + good[-32:]), context=b"")


def test_private_keys_come_back_from_their_bytes() -> None:
    signing, opening = SigningKey.generate(), sealing.SealingKey.generate()
    assert SigningKey.from_seeds(*signing.to_seeds()).verify_key == signing.verify_key
    assert sealing.SealingKey.from_bytes(opening.to_bytes()).public == opening.public


@pytest.mark.parametrize("size", [0, 95, 97])
def test_a_private_sealing_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="96 bytes"):
        sealing.SealingKey.from_bytes(bytes(size))


def test_private_keys_do_not_show_in_their_text() -> None:
    signing, opening = SigningKey.generate(), sealing.SealingKey.generate()
    shown = repr(signing) + repr(opening) + str(signing) + str(opening)
    for secret in (*signing.to_seeds(), opening.to_bytes()[:32], opening.to_bytes()[-32:]):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown

"""Frames on the link: whole ones, of one size, with nothing in their padding, in whatever pieces they come."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.border.gate.framing import (
    Unframer,
    framed,
    framed_size,
    padded,
    padded_payload,
    unpadded,
    unpadded_payload,
)
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.link import FRAME, Heads, HeadsAnswer, Opening, Parcel
from isthmus.proof import canonical
from security.rogue import Rogue
from security.scene import CN, HQ, NOW, Scene, order_for, unharmed

if TYPE_CHECKING:
    import httpx2

    from isthmus.contracts.wire import Wire

PARCEL = Parcel(envelope="an envelope", heads=Heads(heads={}, seen={}))


def refused(code: Code) -> pytest.RaisesExc[Refusal]:
    return pytest.RaisesExc(Refusal, check=lambda refusal: refusal.code is code)


async def collected(parcel: Parcel, payload: bytes) -> bytes:
    return b"".join([piece async for piece in framed(parcel, [payload], len(payload))])


@given(st.binary(max_size=3 * FRAME))
def test_a_message_comes_back_and_only_its_frames_are_seen(message: bytes) -> None:
    body = padded(message)
    assert len(body) % FRAME == 0
    assert len(body) - len(message) <= FRAME + 3
    assert unpadded(body, 4 * FRAME) == message


@given(size=st.integers(0, 3 * FRAME), cuts=st.lists(st.integers(0, 5 * FRAME), max_size=6))
def test_a_parcel_comes_back_in_whatever_pieces_it_comes(size: int, cuts: list[int]) -> None:
    payload = bytes(i % 251 + 1 for i in range(size))
    body = asyncio.run(collected(PARCEL, payload))
    assert len(body) == framed_size(PARCEL, size)
    assert len(body) % FRAME == 0
    unframer = Unframer()
    edges = [0, *sorted(cuts), len(body)]
    for start, end in pairwise(edges):
        unframer.feed(body[start:end])
        unframer.require_at_most(size)
    assert unframer.parcel == PARCEL
    assert b"".join(unframer.payload(size)) == payload


@given(place=st.integers(0, FRAME - 1), value=st.integers(1, 255))
def test_padding_that_says_something_is_refused(place: int, value: int) -> None:
    """Wherever it stands, in a message's frames and in a payload's, on either side."""
    message, payload = b"message", bytes([7]) * (FRAME + 100)
    body = bytearray(padded(message))
    if place >= 4 + len(message):
        body[place] = value
        with refused(Code.MALFORMED):
            unpadded(bytes(body), FRAME)
    frames = bytearray(b"".join(padded_payload([payload], len(payload))))
    if place >= 100:
        frames[FRAME + place] = value
        with refused(Code.MALFORMED):
            unpadded_payload(frames, len(payload))
        unframer = Unframer()
        unframer.feed(padded(canonical.dump(PARCEL)) + frames)
        with refused(Code.MALFORMED):
            unframer.payload(len(payload))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.TRUNCATED),
        (b"\x00\x00\x00", Code.TRUNCATED),
        (padded(b"x")[:-1], Code.TRUNCATED),
        (padded(b"x") + b"\x00", Code.MALFORMED),
        (padded(b"x") + bytes(FRAME), Code.MALFORMED),
        (struct.pack(">I", 2**32 - 1) + bytes(FRAME - 4), Code.TOO_LARGE),
        (struct.pack(">I", FRAME) + bytes(FRAME - 4), Code.TRUNCATED),
    ],
)
def test_a_body_that_is_not_its_own_frames_is_refused(body: bytes, code: Code) -> None:
    with refused(code):
        unpadded(body, 2 * FRAME)


def test_a_zone_refuses_a_payload_whose_padding_says_something(scene: Scene) -> None:
    """The coordinator hides a byte behind the payload: the zone takes nothing in."""
    order = order_for(CN)
    rogue = Rogue(scene.home, HQ)
    right = rogue.crossing(order, Kind.MODEL, sequence=scene.keeper(CN).inbound.cursor(HQ) + 1, slot=1)
    hidden = type(right)(right.envelope, right.payload + b"\x01", right.crossing)
    with unharmed(scene, CN):
        assert rogue.offer(scene, CN, hidden).code is Code.MALFORMED


@pytest.mark.parametrize("message", [
    Opening(version=1, site=CN, peer=HQ, cosigned={}, cursor=0, at=NOW), Heads(heads={}, seen={}), None,
])  # fmt: skip
def test_all_answers_of_the_link_look_alike(scene: Scene, message: Wire | None) -> None:
    """Right, empty or refused: one frame, and a head that holds its length alone."""
    rogue = Rogue(scene.home, CN)
    verb = "open" if isinstance(message, Opening) else "heads"
    body = padded(canonical.dump(message) if message else b"{}")

    async def ask() -> httpx2.Response:
        async with rogue.client(scene) as http:
            return await http.post(f"/link/{CN}/{verb}", content=body)

    answer = asyncio.run(ask())
    assert len(answer.content) == FRAME
    assert dict(answer.headers) == {"content-length": str(FRAME)}
    assert (answer.status_code == 200) is (message is not None)
    if message is not None:
        canonical.load(type(message) if verb == "open" else HeadsAnswer, unpadded(answer.content, FRAME))

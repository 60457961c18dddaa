"""Frames: every body on the link fills whole frames of one size, so that its length says as little as can be.

1. A control message is four bytes of length (big-endian), its canonical bytes, and zeros to the end of the frame.
2. A sealed payload begins at a frame and is followed by zeros to the end of its last. Its own size stands in the
   manifest.
3. Whoever receives padding holds it to be zero: nothing travels in it between honest borders, and one honest side is
   enough to notice.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.link import FRAME, LENGTH, Parcel, filled
from isthmus.contracts.wire import Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

MAX_PARCEL = 128 * 1024
PIECE = 256 * 1024
_ZEROS = bytes(FRAME)

Model = TypeVar("Model", bound=Wire)


def padded(message: bytes) -> bytes:
    """Return a control message in its frames."""
    size = LENGTH + len(message)
    return struct.pack(">I", len(message)) + message + _ZEROS[: filled(size) - size]


def unpadded(body: bytes, limit: int) -> bytes:
    """Return the control message in `body`.

    Raises:
        Refusal: it is longer than `limit` bytes (`TOO_LARGE`), not whole (`TRUNCATED`), or not in frames of its own
            with nothing but zeros after it (`MALFORMED`).
    """
    end = _end(body, limit)
    if end is None or len(body) < filled(end):
        raise Refusal(Code.TRUNCATED, "The message is not whole.")
    if len(body) > filled(end):
        raise Refusal(Code.MALFORMED, "The message is followed by further frames.")
    _require_zero(memoryview(body)[end:])
    return body[LENGTH:end]


def message_in(model: type[Model], body: bytes, limit: int) -> Model:
    """Return the control message in `body` as `model`.

    Raises:
        Refusal: as `unpadded`, or it is no such message.
    """
    return canonical.load(model, unpadded(body, limit), limit=limit)


def padded_payload(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[bytes]:
    """Yield a payload of `size` bytes in pieces, then its padding."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])
    if filled(size) > size:
        yield _ZEROS[: filled(size) - size]


def unpadded_payload(body: bytearray, size: int) -> memoryview:
    """Return the payload of `size` bytes that fills `body`; all there is where it does not fill it.

    A payload that is too short is the keeper's to refuse: it notes who sent what.

    Raises:
        Refusal: there are more frames than it needs, or they end in other bytes than zeros.
    """
    if len(body) > filled(size):
        raise Refusal(Code.TOO_LARGE, "More bytes came than the manifest states.")
    _require_zero(memoryview(body)[size:])
    return memoryview(body)[:size]


async def framed(parcel: Parcel, payload: Iterable[bytes], size: int) -> AsyncIterator[bytes]:
    """Yield a parcel's frames, then those of its sealed payload of `size` bytes."""
    yield padded(canonical.dump(parcel))
    for piece in padded_payload(payload, size):
        yield piece


def framed_size(parcel: Parcel, size: int) -> int:
    """Return how many bytes `framed` yields for a payload of `size`."""
    return filled(LENGTH + len(canonical.dump(parcel))) + filled(size)


class Unframer:
    """Takes a parcel apart as it arrives. Push-parser: feed it chunks; it never holds more than it is allowed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._payload: list[memoryview] = []
        self._size = 0
        self.parcel: Parcel | None = None

    def feed(self, chunk: bytes) -> Parcel | None:
        """Take a chunk; return the parcel at the moment its frames are whole."""
        if self.parcel is not None:
            self._keep(memoryview(chunk))
            return None
        self._buffer += chunk
        end = _end(self._buffer, MAX_PARCEL)
        if end is None or len(self._buffer) < filled(end):
            return None
        frames = bytes(self._buffer[: filled(end)])
        rest = bytes(self._buffer[filled(end) :])
        self._buffer.clear()
        self.parcel = message_in(Parcel, frames, MAX_PARCEL)
        if rest:
            self._keep(memoryview(rest))
        return self.parcel

    def payload(self, size: int) -> list[memoryview]:
        """Return the payload, without its padding.

        Raises:
            Refusal: its frames are not whole (`TRUNCATED`), or their padding is not zero (`MALFORMED`).
        """
        if self._size < filled(size):
            raise Refusal(Code.TRUNCATED, f"The payload's frames hold {self._size} bytes of {filled(size)}.")
        kept, left = [], size
        for piece in self._payload:
            kept.append(piece[:left])
            _require_zero(piece[left:])
            left = max(0, left - len(piece))
        return kept

    def require_at_most(self, size: int) -> None:
        """Refuse a payload that has grown past the frames of `size` bytes."""
        if self._size > filled(size):
            raise Refusal(Code.TOO_LARGE, "More bytes came than the manifest states.")

    def _keep(self, chunk: memoryview) -> None:
        self._payload.append(chunk)
        self._size += len(chunk)


def _end(body: bytes | bytearray, limit: int) -> int | None:
    """Return where the message ends that `body` begins with; None while its length is not whole."""
    if len(body) < LENGTH:
        return None
    length: int = struct.unpack_from(">I", body)[0]
    if length > limit:
        raise Refusal(Code.TOO_LARGE, f"A message is larger than {limit} bytes.")
    return LENGTH + length


def _require_zero(padding: memoryview) -> None:
    """Refuse padding that says something. A payload piece is compared in frames, so its size is no limit."""
    for start in range(0, len(padding), FRAME):
        piece = padding[start : start + FRAME]
        if piece != _ZEROS[: len(piece)]:
            raise Refusal(Code.MALFORMED, "The padding is not zero.")

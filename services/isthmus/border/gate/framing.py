"""A parcel on the wire: four bytes of length (big-endian), the parcel's canonical bytes, the sealed payload."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.link import Parcel
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

MAX_PARCEL = 128 * 1024
PIECE = 256 * 1024
LENGTH = 4


async def framed(parcel: Parcel, payload: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield a parcel and its sealed payload, in pieces."""
    head = canonical.dump(parcel)
    yield struct.pack(">I", len(head)) + head
    for piece in payload:
        view = memoryview(piece)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])


def framed_size(parcel: Parcel, size: int) -> int:
    """Return how many bytes `framed` yields for a payload of `size`."""
    return LENGTH + len(canonical.dump(parcel)) + size


class Unframer:
    """Takes a parcel apart as it arrives. Push-parser: feed it chunks; it never holds more than it is allowed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._payload: list[bytes] = []
        self._size = 0
        self.parcel: Parcel | None = None

    def feed(self, chunk: bytes) -> Parcel | None:
        """Take a chunk; return the parcel at the moment it is whole."""
        if self.parcel is not None:
            self._keep(chunk)
            return None
        self._buffer += chunk
        if len(self._buffer) < LENGTH:
            return None
        length = struct.unpack_from(">I", self._buffer)[0]
        if length > MAX_PARCEL:
            raise Refusal(Code.TOO_LARGE, "A parcel is too large.")
        if len(self._buffer) < LENGTH + length:
            return None
        self.parcel = canonical.load(Parcel, bytes(self._buffer[LENGTH : LENGTH + length]))
        rest = bytes(self._buffer[LENGTH + length :])
        self._buffer.clear()
        if rest:
            self._keep(rest)
        return self.parcel

    def payload(self, size: int) -> list[bytes]:
        """Return the payload.

        Raises:
            Refusal: fewer bytes came than `size`.
        """
        if self._size < size:
            raise Refusal(Code.TRUNCATED, f"The payload has {self._size} bytes of {size}.")
        return self._payload

    def require_at_most(self, size: int) -> None:
        """Refuse a payload that has grown past `size` bytes."""
        if self._size > size:
            raise Refusal(Code.TOO_LARGE, "More bytes came than the manifest states.")

    def _keep(self, chunk: bytes) -> None:
        self._payload.append(chunk)
        self._size += len(chunk)

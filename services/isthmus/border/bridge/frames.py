"""Frames between gate and keeper: four bytes of length (big-endian), a canonical head, then its parts as they are.

Bytes that are large (payloads, evidence) are parts: never base64, and read straight into the buffer that is kept. Every
size is stated first and bounded by whoever reads, before a byte of it is taken.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.wire import Count, Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    Buffer = bytes | bytearray | memoryview

LENGTH = struct.Struct(">I")
MAX_HEAD = 64 * 1024
MAX_WORD = 8192
DONE, REFUSAL, FAULT = "done", "refusal", "fault"
"""What an answer is: its parts, or an error whose four words are code, what, why and remedy."""
CALLS, NEWS = "calls", "news"
"""What a connection is for, as its first frame says; that frame's one word is the gate's number."""
RUNG, STILL = "rung", "still"
"""News: the keeper's bell has rung; or the connection still stands."""
ASKED, ANSWERED = "asked", "answered"
"""Whether the heads that came with a receipt ask for own ones."""


class Head(Wire):
    """What a frame is, its words, and how many bytes each of its parts has."""

    name: Annotated[str, Field(max_length=64)]
    words: Annotated[tuple[Annotated[str, Field(max_length=MAX_WORD)], ...], Field(max_length=8)] = ()
    sizes: Annotated[tuple[Count, ...], Field(max_length=4)] = ()


class Gone(ConnectionError):
    """The other end has closed, or says what no frame is: nothing more is read from it."""


def write(sock: socket.socket, head: Head, pieces: Iterable[Buffer] = ()) -> None:
    """Send a frame: `pieces` are its parts, one after the other.

    Raises:
        OSError: the other end is gone, or the pieces are not as many bytes as the head says: the connection is lost.
    """
    told = canonical.dump(head)
    sock.sendall(LENGTH.pack(len(told)) + told)
    left = sum(head.sizes)
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
        sock.sendall(piece)
    if left:
        raise Gone("the parts are not as large as was said")


def read_head(sock: socket.socket) -> Head:
    """Read a frame's head.

    Raises:
        OSError: the other end is gone, or it is no head.
    """
    (length,) = LENGTH.unpack(read_part(sock, LENGTH.size))
    if length > MAX_HEAD:
        raise Gone("the head is too large")
    try:
        return canonical.load(Head, bytes(read_part(sock, length)), limit=MAX_HEAD)
    except Refusal as refusal:
        raise Gone("the head cannot be read") from refusal


def read_part(sock: socket.socket, size: int) -> bytearray:
    """Read exactly `size` bytes, which the caller has found to be few enough."""
    part = bytearray(size)
    view, filled = memoryview(part), 0
    while filled < size:
        count = sock.recv_into(view[filled:])
        if count == 0:
            raise Gone("the other end has closed")
        filled += count
    return part


def problem(error: IsthmusError) -> Head:
    """Return the frame that tells of `error`: it stays inside the border, so it is told whole."""
    words = tuple(text[:MAX_WORD] for text in (error.code.value, error.what, error.why, error.remedy))
    return Head(name=REFUSAL if isinstance(error, Refusal) else FAULT, words=words)


def error_of(head: Head) -> IsthmusError | None:
    """Return the error that a frame tells of, None where it tells of none.

    Raises:
        OSError: it is no answer.
    """
    if head.name == DONE:
        return None
    try:
        kind = {REFUSAL: Refusal, FAULT: Fault}[head.name]
        code, what, why, remedy = head.words
        return kind(Code(code), what, why=why, remedy=remedy)
    except (KeyError, ValueError) as error:
        raise Gone("the answer cannot be read") from error

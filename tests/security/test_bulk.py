"""Fetching many bytes from a peer that answers what it likes: it ends in a refusal or a fault, and the next works."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from isthmus.client.bulk import ThreadedBulk
from isthmus.client.problems import error_of
from isthmus.contracts.errors import Code
from security.scene import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"

BAD: dict[str, tuple[bytes, Code]] = {
    "no length": (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbody", Code.PEER_UNREACHABLE),
    "a negative length": (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Code.PEER_UNREACHABLE),
    "a length that is no number": (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Code.PEER_UNREACHABLE),
    "a length beyond all memory": (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999\r\n\r\n", Code.TOO_LARGE),
    "a length of ten thousand digits": (
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 10_000 + b"\r\n\r\n",
        Code.PEER_UNREACHABLE,
    ),
    "one byte too many": (b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n" + bytes(101), Code.TOO_LARGE),
    "fewer bytes than it says": (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", Code.PEER_UNREACHABLE),
    "more in chunks than it says": (
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
            b"4\r\ngood\r\n5\r\nextra\r\n0\r\n\r\n"
        ),
        Code.PEER_UNREACHABLE,
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Code.PEER_UNREACHABLE),
    "nothing": (b"", Code.PEER_UNREACHABLE),
    "an error that cannot be read": (b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\noops", Code.PEER_UNREACHABLE),
}


@contextmanager
def peer(*connections: list[bytes]) -> Iterator[str]:
    """Serve, on each connection in turn, one canned answer to each request; close it after the last."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answers in connections:
                accepted, _ = listener.accept()
                with accepted:
                    for answer in answers:
                        request = b""
                        while not request.endswith(b"\r\n\r\n"):
                            piece = accepted.recv(4096)
                            if not piece:
                                break
                            request += piece
                        accepted.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def fetched(bulk: ThreadedBulk) -> bytes:
    return bytes(asyncio.run(bulk.get("/payload", {}, limit=100, error_of=error_of)))


@pytest.mark.parametrize("attack", BAD)
def test_a_bad_answer_is_a_code(attack: str) -> None:
    answer, code = BAD[attack]
    with peer([answer], [GOOD]) as url:
        bulk = ThreadedBulk(url)
        with refusal(code):
            fetched(bulk)
        assert fetched(bulk) == b"good"
        bulk.close()


@pytest.mark.parametrize("attack", BAD)
def test_a_bad_answer_on_a_connection_that_was_good_is_a_code(attack: str) -> None:
    """It is asked once more over a new connection, unless what it said was a refusal."""
    answer, code = BAD[attack]
    final = code is Code.TOO_LARGE or b"500" in answer
    with peer([GOOD, answer], *([] if final else [[answer]])) as url:
        bulk = ThreadedBulk(url)
        assert fetched(bulk) == b"good"
        with refusal(code):
            fetched(bulk)
        bulk.close()

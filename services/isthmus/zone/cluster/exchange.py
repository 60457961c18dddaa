"""The way gradients go between the shards of one run: a connection from each shard to the one that leads.

A call of Ray's takes a millisecond or more, a step of training less. So calls start a training and end it, and what
goes to and fro at every step in between goes straight.

Rules:
1. Each connection has a key of its own, drawn by the shard that leads and handed over in a call of Ray's, which takes
   the cluster's token. Who does not show it is hung up on. It is good for one run. Ray's calls are plain text: the key
   keeps out who can reach a port, and not who listens to the nodes' network.
2. What is sent is encrypted and authenticated (AES-256-GCM, NIST SP 800-38D) under its direction and number, which are
   not sent: what is changed, repeated, left out or turned round does not open.
3. Numbers alone are sent: weights, gradients, and which batch is meant. Nothing of it is unpickled.
4. The shard that leads listens, on a port of the cluster's block, and only until all others are there.
5. Whatever goes wrong ends the connection and the run with it (`RunLost`).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

KEY_BITS = 256
TAG = 16
LONGEST = 1 << 30
"""Bytes of a frame: far more than a model of this release."""
GREETING_S = 2.0
"""How long a caller may take to name its key, and again to show it: in all, however it deals its bytes out."""
SILENT_S = 60
"""How long a machine that is cut off may keep quiet before a connection to it counts as gone."""
LOOK_S = 1.0
"""How long an answer is waited for before it is asked whether the other shard still works."""

_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">I")
_BATCH = struct.Struct(">II")
_NONCE = struct.Struct(">IQ")


def new_key() -> bytes:
    """Return a key for one connection, from the operating system's generator."""
    return AESGCM.generate_key(KEY_BITS)


class Line:
    """One end of a connection: frames in order, both ways."""

    def __init__(self, link: socket.socket, key: bytes, *, leads: bool) -> None:
        """Take a connection and its key; `leads` is true at one end of the two."""
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
        self._link = link
        self._cipher = AESGCM(key)
        self._mine, self._theirs = (0, 1) if leads else (1, 0)
        self._sent = self._received = 0

    def send(self, *parts: bytes) -> None:
        """Send one frame, of the parts joined.

        Raises:
            RunLost: the connection is gone.
        """
        plain = b"".join(parts)
        frame = bytearray(_LENGTH.size + len(plain) + TAG)
        _LENGTH.pack_into(frame, 0, len(plain) + TAG)
        nonce = _NONCE.pack(self._mine, self._sent)
        self._cipher.encrypt_into(nonce, plain, None, memoryview(frame)[_LENGTH.size :])
        self._sent += 1
        with self._unbroken():
            self._link.settimeout(None)
            self._link.sendall(frame)

    def receive(
        self, looking: Callable[[], None] | None = None, within_s: float | None = None, longest: int = LONGEST
    ) -> bytearray:
        """Return the next frame.

        Args:
            looking: called every second of waiting; what it raises ends the wait.
            within_s: how long to wait for the whole of it; as long as it takes where None.
            longest: bytes of a frame, tag included. Its length is read before anything shows who sent it.

        Raises:
            RunLost: the connection is gone, or the frame does not open.
        """
        until = None if within_s is None else time.monotonic() + within_s
        with self._unbroken():
            self._link.settimeout(LOOK_S if looking else within_s)
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size, looking, until))
            if not TAG <= length <= longest:
                raise ConnectionError
            sealed = self._read(length, looking, until)
            plain = bytearray(length - TAG)
            self._cipher.decrypt_into(_NONCE.pack(self._theirs, self._received), sealed, None, plain)
        self._received += 1
        return plain

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._link.close()

    def _read(self, length: int, looking: Callable[[], None] | None, until: float | None) -> bytearray:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            if until is not None:
                self._link.settimeout(_left(until))
            try:
                count = self._link.recv_into(rest)
            except TimeoutError:
                if looking is None:
                    raise
                looking()
                continue
            if count == 0:
                raise ConnectionError
            rest = rest[count:]
        return data

    @contextlib.contextmanager
    def _unbroken(self) -> Iterator[None]:
        try:
            yield
        except (OSError, InvalidTag) as error:
            self.close()
            raise RunLost("The connection between two shards is gone.", why=type(error).__name__) from None


class Meeting:
    """Where the others come to: a port that is open until they are all there."""

    def __init__(self, address: str, ports: Iterable[int]) -> None:
        """Listen on the first of `ports` that is free.

        Raises:
            RunLost: none is.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in ports:
            with contextlib.suppress(OSError):
                self._listener = socket.create_server((address, port), family=family)
                self.place = (address, port)
                return
        remedy = "See that nothing else listens in the cluster's block of ports on this node."
        raise RunLost("A shard finds no free port for the others.", remedy=remedy)

    def gather(self, keys: Sequence[bytes], within_s: float) -> list[Line]:
        """Return a line for each of `keys`, in their order. Whoever else calls is hung up on.

        Raises:
            RunLost: they have not all come in time.
        """
        came: dict[int, Line] = {}
        deadline = time.monotonic() + within_s
        try:
            while len(came) < len(keys):
                self._listener.settimeout(_left(deadline))
                link, _ = self._listener.accept()
                with contextlib.suppress(RunLost, OSError, IndexError, struct.error):
                    number, line = _greeted(link, keys)
                    if came.setdefault(number, line) is not line:
                        line.close()
        except OSError as error:
            for line in came.values():
                line.close()
            remedy = "Open the cluster's block of ports between the nodes."
            raise RunLost("A shard does not reach another.", why=type(error).__name__, remedy=remedy) from None
        return [came[number] for number in range(len(keys))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def join(place: tuple[str, int], number: int, key: bytes, within_s: float) -> Line:
    """Come to a meeting as the holder of its key number `number`.

    Raises:
        RunLost: it is not reached in time.
    """
    try:
        link = socket.create_connection(place, timeout=within_s)
        link.sendall(_NUMBER.pack(number))
    except OSError as error:
        remedy = "Open the cluster's block of ports between the nodes."
        raise RunLost("A shard does not reach another.", why=type(error).__name__, remedy=remedy) from None
    line = Line(link, key, leads=False)
    line.send(b"")
    return line


def _greeted(link: socket.socket, keys: Sequence[bytes]) -> tuple[int, Line]:
    """Have a caller show its key; hang up where it does not."""
    try:
        link.settimeout(GREETING_S)
        (number,) = _NUMBER.unpack(link.recv(_NUMBER.size))
        line = Line(link, keys[number], leads=True)
        line.receive(within_s=GREETING_S, longest=TAG)
    except BaseException:
        link.close()
        raise
    return number, line


def _left(deadline: float) -> float:
    """Return how many seconds are left.

    Raises:
        TimeoutError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def asked(line: Line, flat: NDArray[np.float32], epoch: int, step: int) -> None:
    """Ask for a shard's term of one batch's gradient at the weights `flat`, float32 [parameters]."""
    line.send(_BATCH.pack(epoch, step), flat.tobytes())


def over(line: Line) -> None:
    """Say that a training is over."""
    line.send(b"")


def term_of(line: Line, looking: Callable[[], None]) -> NDArray[np.float32]:
    """Return what was asked for, float32 [parameters]."""
    return np.frombuffer(line.receive(looking), np.float32)


def answer_all(line: Line, gradient: Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]) -> None:
    """Answer every question on a line with `gradient` of weights, epoch and step, until the training is over."""
    while frame := line.receive():
        epoch, step = _BATCH.unpack_from(frame)
        line.send(gradient(np.frombuffer(frame, np.float32, offset=_BATCH.size), epoch, step).tobytes())

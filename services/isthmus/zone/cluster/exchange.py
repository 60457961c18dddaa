"""The way gradients go between the shards of one run: a connection from each shard to each other one.

A call of Ray's takes a millisecond or more, a step of training less. So calls start a training and end it, and what
is said at every step in between goes straight: each shard sends its term of the gradient to all others at once, adds
up the same terms in the same order, and takes the step itself. Nobody waits for somebody who adds up for all.

Rules:
1. Each connection has a key of its own, drawn by the shard that listens, good for one run. Ray's calls are plain text,
   so it goes over sealed (HPKE, `proof.sealing`) to a key that the other shard makes for this alone and drops at once.
   Who listens to the nodes' network does not get it, and who does not show it is hung up on.
2. What is sent is encrypted and authenticated (AES-256-GCM, NIST SP 800-38D) under its direction and number, and the
   step of the training that it is of, none of which are sent: what is changed, repeated, left out or turned round does
   not open, nor what a shard says that is at another training or step.
3. Numbers alone are sent: gradients. Nothing of it is unpickled.
4. Of two shards the first one listens, on a port of the cluster's block, and only until all later ones are there.
5. Whatever goes wrong ends the connection and the run with it (`RunLost`).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from typing import TYPE_CHECKING, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isthmus.proof.sealing import wrap
from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from isthmus.contracts.keys import HpkeKey
    from isthmus.proof.sealing import SealingKey

    Buffer = bytes | bytearray | memoryview

KEY_BITS = 256
TAG = 16
LONGEST = 1 << 30
"""Bytes of a frame: far more than a model of this release."""
GREETING_S = 2.0
"""How long a caller may take to name its key, and again to show it: in all, however it deals its bytes out."""
AT_ONCE = 1 << 20
"""Bytes that are taken in at a time."""
SILENT_S = 60
"""How long a machine that is cut off may keep quiet before a connection to it counts as gone.

So does one to a shard that leaves what it was sent unread for as long: longer than a step and its compilation take."""
LOOK_S = 1.0
"""How long an answer is waited for before it is asked whether the other shard still works."""

_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE
_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">I")
_NONCE = struct.Struct(">IQ")


def new_key() -> bytes:
    """Return a key for one connection, from the operating system's generator."""
    return AESGCM.generate_key(KEY_BITS)


def handed_over(key: bytes, to: HpkeKey, number: int) -> bytes:
    """Return a connection's key, sealed to the shard that is to come as number `number`."""
    return wrap(key, to, context=_context(number))


def taken(sealed: bytes, own: SealingKey, number: int) -> bytes:
    """Return the connection's key that `handed_over` sealed.

    Raises:
        Refusal: `PAYLOAD_ALTERED`: it was changed, or sealed to another key or for another number.
    """
    return own.open(sealed, context=_context(number))


def _context(number: int) -> bytes:
    return f"line-between-shards|{number}".encode()


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
        self._early = bytearray()

    def fileno(self) -> int:
        """Return the connection's number, to wait for it among others."""
        return self._link.fileno()

    def send(self, plain: Buffer) -> None:
        """Send one frame that is of no step.

        Raises:
            RunLost: the connection is gone.
        """
        frame = self.sealed(plain)
        with self._unbroken():
            self._link.settimeout(None)
            self._link.sendall(frame)

    def sealed(self, plain: Buffer, step: bytes = b"") -> bytearray:
        """Return the next frame to send, of this step. Each must be sent, in the order in which they were made."""
        frame = bytearray(_LENGTH.size + len(plain) + TAG)
        _LENGTH.pack_into(frame, 0, len(plain) + TAG)
        nonce = _NONCE.pack(self._mine, self._sent)
        self._cipher.encrypt_into(nonce, plain, step, memoryview(frame)[_LENGTH.size :])
        self._sent += 1
        return frame

    def push(self, frame: memoryview) -> int:
        """Send as much of a frame as goes without waiting; return how many bytes that were.

        Raises:
            RunLost: the connection is gone.
        """
        with self._unbroken():
            self._link.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                return self._link.send(frame)
        return 0

    def take_in(self) -> None:
        """Take in what has come, for a later `receive`.

        Raises:
            RunLost: the connection is gone.
        """
        with self._unbroken():
            self._link.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                came = self._link.recv(AT_ONCE)
                if not came or len(self._early) > LONGEST:
                    raise ConnectionError
                self._early += came

    def receive(
        self,
        looking: Callable[[], None] | None = None,
        within_s: float | None = None,
        longest: int = LONGEST,
        step: bytes = b"",
    ) -> bytearray:
        """Return the next frame.

        Args:
            looking: called every second of waiting; what it raises ends the wait.
            within_s: how long to wait for the whole of it; as long as it takes where None.
            longest: bytes of a frame, tag included. Its length is read before anything shows who sent it.
            step: which it has to be of.

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
            self._cipher.decrypt_into(_NONCE.pack(self._theirs, self._received), sealed, step, plain)
        self._received += 1
        return plain

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._link.close()

    def _read(self, length: int, looking: Callable[[], None] | None, until: float | None) -> bytearray:
        data = bytearray(length)
        early, self._early = self._early[:length], self._early[length:]
        data[: len(early)] = early
        rest = memoryview(data)[len(early) :]
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

    def gather(self, keys: Sequence[bytes], within_s: float, looking: Callable[[], None] | None = None) -> list[Line]:
        """Return a line for each of `keys`, in their order. Whoever else calls is hung up on.

        Args:
            keys: of those who are to come.
            within_s: how long to wait for them.
            looking: called every second of waiting; what it raises ends the wait.

        Raises:
            RunLost: they have not all come in time.
        """
        came: dict[int, Line] = {}
        deadline = time.monotonic() + within_s
        try:
            while len(came) < len(keys):
                if (link := self._caller(_left(deadline))) is None:
                    if looking is not None:
                        looking()
                    continue
                with contextlib.suppress(RunLost, OSError, IndexError, struct.error):
                    number, line = _greeted(link, keys)
                    if came.setdefault(number, line) is not line:
                        line.close()
        except BaseException as error:
            for line in came.values():
                line.close()
            if isinstance(error, OSError):
                raise _unreached(error) from None
            raise
        return [came[number] for number in range(len(keys))]

    def _caller(self, within_s: float) -> socket.socket | None:
        """Return who calls next; None where nobody does for the time after which one looks."""
        self._listener.settimeout(min(within_s, LOOK_S))
        try:
            return self._listener.accept()[0]
        except TimeoutError:
            return None

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
        raise _unreached(error) from None
    line = Line(link, key, leads=False)
    line.send(b"")
    return line


def _unreached(error: OSError) -> RunLost:
    remedy = "Open the cluster's block of ports between the nodes."
    return RunLost("A shard does not reach another.", why=type(error).__name__, remedy=remedy)


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


class Exchange:
    """One shard's lines to all others of its run."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lines: dict[int, Line] = {}

    def add(self, shard: int, line: Line) -> None:
        """Take the line to the shard with this number."""
        self._lines[shard] = line

    def summed(
        self, own: int, term: NDArray[np.float32], looking: Callable[[], None] | None = None, step: bytes = b""
    ) -> NDArray[np.float32]:
        """Send a term to all others, and return its sum with theirs, added in the order of the shards' numbers.

        Args:
            own: this shard's number.
            term: float32, of as many numbers for every shard.
            looking: called every second of waiting; what it raises ends the wait.
            step: what tells this step from every other of the run: the terms of all others have to be of it too.

        Raises:
            RunLost: a connection is gone, or another shard sends something else, or is at another step.
        """
        self._send(term, looking, step)
        terms = {own: term}
        for shard, line in self._lines.items():
            theirs = line.receive(looking, step=step)
            if len(theirs) != term.nbytes:
                raise RunLost("Another shard trains another model.")
            terms[shard] = np.frombuffer(theirs, np.float32)
        first, *rest = (terms[shard] for shard in sorted(terms))
        return sum(rest, start=first)

    def close(self) -> None:
        """Hang up on all."""
        for line in self._lines.values():
            line.close()

    def _send(self, term: NDArray[np.float32], looking: Callable[[], None] | None, step: bytes) -> None:
        """Send to all; what they send meanwhile is taken in, so that nobody waits for somebody who waits."""
        plain = term.tobytes()
        frames = [(line, memoryview(line.sealed(plain, step))) for line in self._lines.values()]
        unsent = {line: rest for line, frame in frames if (rest := frame[line.push(frame) :])}
        if not unsent:
            return
        with selectors.DefaultSelector() as waiting:
            for line in self._lines.values():
                waiting.register(line, _BOTH if line in unsent else selectors.EVENT_READ, line)
            while unsent:
                ready = waiting.select(LOOK_S)
                for key, events in ready:
                    line = key.data
                    if events & selectors.EVENT_READ:
                        line.take_in()
                    if events & selectors.EVENT_WRITE:
                        unsent[line] = unsent[line][line.push(unsent[line]) :]
                        if not unsent[line]:
                            del unsent[line]
                            waiting.modify(line, selectors.EVENT_READ, line)
                if looking is not None and not ready:
                    looking()

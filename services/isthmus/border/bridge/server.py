"""The keeper's end of the bridge: a unix socket in a folder that gate and keeper share, and nobody else.

Rules:
1. The kernel says whose process is at the other end (`SO_PEERCRED`): one of another user is hung up on.
2. One gate at a time (`bridge.turns`): a new one waits for what the one before had asked, and that one is out.
3. What is too large is refused by its stated size; at most `LARGE_AT_ONCE` large bodies are held at the same time.
4. The bell's rings are sent as they come: a gate never asks by an interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

import structlog

from isthmus.border.bridge import calls, frames
from isthmus.border.bridge.turns import Turns
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.border.bridge.calls import Answer, Call
    from isthmus.border.bridge.frames import Head
    from isthmus.border.halves import KeeperHalf
    from isthmus.kit.bell import Bell

STILL_S = 20.0
"""How often a connection for news says that it still stands, when the bell does not ring."""
MAX_CONNECTIONS = 128
LARGE = 1 << 20
LARGE_AT_ONCE = 4
DRAIN_S = 4.0
CREDENTIALS = struct.Struct("3i")

log = structlog.get_logger(__name__)


class Bridge:
    """Serves a keeper to one gate. Use it as a context manager.

    Args:
        half: the keeper.
        bell: what its changes ring.
        path: where the socket is made.
        gate_user: the user id of the gate's process; None for this process's own.

    Raises (on entry):
        Fault: `CONFIGURATION`: the socket cannot be made, or another keeper listens there.
    """

    def __init__(self, half: KeeperHalf, bell: Bell, path: Path, gate_user: int | None = None) -> None:
        self._half = half
        self._bell = bell
        self._path = path
        self._gate_user = os.getuid() if gate_user is None else gate_user
        self._mode = 0o600 if self._gate_user == os.getuid() else 0o660
        self._turns = Turns()
        self._large = threading.BoundedSemaphore(LARGE_AT_ONCE)
        self._guard = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        """Listen."""
        try:
            self._require_unused()
        except IsthmusError:
            self._listener.close()
            raise
        try:
            self._path.unlink(missing_ok=True)
            before = os.umask(0o777 & ~self._mode)
            try:
                self._listener.bind(str(self._path))
            finally:
                os.umask(before)
            self._listener.listen(MAX_CONNECTIONS)
        except OSError as error:
            self._listener.close()
            raise Fault(
                Code.CONFIGURATION,
                f"The keeper's socket {self._path} cannot be made.",
                why=str(error),
                remedy="Its folder must be there, and its path shorter than 100 letters.",
            ) from error
        threading.Thread(target=self._accept, name="bridge", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no call any more, let those under way end, hang up."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        if not self._turns.drain(DRAIN_S):
            log.warning("calls_cut_off")
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            _hang_up(connection)

    def _require_unused(self) -> None:
        """Refuse to take the place of a keeper that listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._path))
            except OSError:
                return  # nothing, or what a keeper that was killed has left
        raise Fault(
            Code.CONFIGURATION,
            f"Another keeper listens at {self._path}.",
            remedy="Stop it first: one keeper for each ledger.",
        )

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._guard:
                full = self._closing.is_set() or len(self._connections) >= MAX_CONNECTIONS
                if not full:
                    self._connections.add(connection)
            if full:
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="bridge call", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one connection to its end."""
        try:
            with connection:
                if self._is_gate(connection):
                    self._greet(connection)
        except OSError:
            pass  # the gate has gone; it asks again
        finally:
            with self._guard:
                self._connections.discard(connection)

    def _is_gate(self, connection: socket.socket) -> bool:
        shown = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        process, user, _ = CREDENTIALS.unpack(shown)
        if user != self._gate_user:
            log.warning("stranger_at_the_bridge", user=user, process=process)
            return False
        return True

    def _greet(self, connection: socket.socket) -> None:
        hello = frames.read_head(connection)
        if hello.name not in {frames.CALLS, frames.NEWS} or len(hello.words) != 1 or hello.sizes:
            return
        gate = hello.words[0]
        try:
            self._turns.let_in(gate)
        except Refusal as refusal:
            frames.write(connection, frames.problem(refusal))
            return
        frames.write(connection, frames.Head(name=frames.DONE))
        if hello.name == frames.NEWS:
            self._tell_news(connection)
        else:
            while self._answer(connection, gate):
                pass

    def _tell_news(self, connection: socket.socket) -> None:
        """Send a frame for every ring; the first at once, since something may have changed while nobody looked."""
        name = frames.RUNG
        with asyncio.Runner() as runner:
            while not self._bell.closed:
                ticket = self._bell.ticket()
                frames.write(connection, frames.Head(name=name))
                name = frames.RUNG if runner.run(self._bell.wait(ticket, STILL_S)) else frames.STILL

    def _answer(self, connection: socket.socket, gate: str) -> bool:
        """Answer one call; return whether the connection can take another."""
        head = frames.read_head(connection)
        try:
            call = calls.of(head)
            route = call.guarded(head.words)
            if route is not None:
                self._half.admit(head.words[0], route)
        except IsthmusError as error:
            frames.write(connection, frames.problem(error))
            return not head.sizes  # the parts were not read
        with self._room(head):
            parts = [frames.read_part(connection, size) for size in head.sizes]
            try:
                with self._turns.call(gate):
                    answer = self._do(call, head, parts)
                    # A blob is read as it is sent, while nothing lets it go: that needs the peer's receipt.
            except IsthmusError as error:
                frames.write(connection, frames.problem(error))
                return True
            frames.write(
                connection, frames.Head(name=frames.DONE, words=answer.words, sizes=answer.sizes), answer.pieces
            )
        return True

    def _do(self, call: Call, head: Head, parts: list[bytearray]) -> Answer:
        try:
            return call.do(self._half, head.words, parts)
        except IsthmusError:
            raise
        except ValueError as error:
            log.warning("call_malformed", call=head.name, error=type(error).__name__)
            raise Refusal(Code.MALFORMED, "A word of the call is not what it should be.") from error
        except Exception as error:
            # A fault in one call must not end the keeper's other calls; the trace stays in the keeper's own log.
            log.exception("call_failed", call=head.name, error=type(error).__name__)
            raise Fault(Code.LEDGER_UNAVAILABLE, "The keeper failed.", remedy="See its log.") from error

    @contextlib.contextmanager
    def _room(self, head: Head) -> Iterator[None]:
        """Hold a place among the few whose parts are large."""
        if sum(head.sizes) <= LARGE:
            yield
            return
        with self._large:
            yield


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)

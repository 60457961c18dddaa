"""The gate's end of the bridge: the keeper's calls over a unix socket, made from the gate's worker threads.

Rules:
1. A call waits as long as the keeper lives: that it took long is no answer. When the keeper dies, the call fails at
   once with `PEER_UNREACHABLE`, and whoever asked asks again: every call is one that can be made twice.
2. A call is never made again here: only who asked knows whether it may be.
3. The keeper's bell rings the gate's, and rings once whenever the keeper is back.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Self

import structlog

from isthmus.border.bridge import frames
from isthmus.border.halves import SealedCrossing
from isthmus.contracts.crossings import Manifest
from isthmus.contracts.errors import Code, Fault, IsthmusError
from isthmus.contracts.identifiers import CrossingId, Digest
from isthmus.contracts.inside import CandidateStatus, LedgerView
from isthmus.contracts.link import Heads, HeadsAnswer, Opening
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from isthmus.border.bridge.frames import Buffer
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import CandidateHeader
    from isthmus.contracts.ledger import Log
    from isthmus.kit.bell import Bell

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
MAX_ANSWER = 1 << 30
SLICE = 1 << 20

log = structlog.get_logger(__name__)


class RemoteKeeper:
    """The `KeeperHalf` whose keeper is another process. Use it as a context manager.

    Args:
        path: the keeper's socket.
        bell: rung whenever the keeper's is.
    """

    def __init__(self, path: Path, bell: Bell) -> None:
        self._path = path
        self._bell = bell
        self._gate = secrets.token_hex(16)
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._idle: list[socket.socket] = []
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        """Listen for news, from now on and whenever the keeper is there."""
        threading.Thread(target=self._listen, name="keeper's news", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._closed.set()
        with self._guard:
            connections, self._idle = list(self._open), []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            self._drop(connection)

    # ---- for the own site

    def admit(self, token: str, route: str) -> None:
        """Ask whether the token's role may use the route."""
        self._call("admit", (token, route))

    def ask(self, token: str, route: str, words: tuple[str, ...] = (), body: bytes = b"") -> bytes:
        """Have the keeper do what the route is for."""
        _, (answer,) = self._call("ask", (token, route, *words), (len(body),), (body,), expect=1)
        return bytes(answer)

    def payload(self, token: str, crossing: CrossingId) -> bytearray:
        """Return the plaintext of an accepted crossing."""
        _, (plain,) = self._call("payload", (token, crossing), expect=1)
        return plain

    def submit(self, token: str, header: CandidateHeader, data: Buffer) -> CandidateStatus:
        """Hand a candidate on."""
        told = canonical.dump(header).decode()
        _, (status,) = self._call("submit", (token, told), (len(data),), (data,), expect=1)
        return canonical.load(CandidateStatus, bytes(status))

    # ---- for the link

    def ledger(self) -> LedgerView:
        """Return both logs' signed heads."""
        return canonical.load(LedgerView, self._one("ledger"))

    def opening(self, peer: SiteId) -> Opening:
        """Return what this side states when the link opens."""
        return canonical.load(Opening, self._one("opening", peer))

    def opened(self, peer: SiteId, theirs: Opening) -> None:
        """Have the peer's memory of our heads compared with our ledger."""
        body = canonical.dump(theirs)
        self._call("opened", (peer,), (len(body),), (body,))

    def heads(self, peer: SiteId, logs: tuple[Log, ...]) -> Heads:
        """Return own heads of `logs`."""
        return canonical.load(Heads, self._one("heads", peer, *logs))

    def answered(self, peer: SiteId, answer: HeadsAnswer) -> None:
        """Hand on the peer's cosignatures and heads."""
        body = canonical.dump(answer)
        self._call("answered", (peer,), (len(body),), (body,))

    def exchange(self, peer: SiteId, theirs: Heads) -> HeadsAnswer:
        """Have the peer's heads cosigned; return own ones."""
        body = canonical.dump(theirs)
        _, (answer,) = self._call("exchange", (peer,), (len(body),), (body,), expect=1)
        return canonical.load(HeadsAnswer, bytes(answer))

    def next_for(self, peer: SiteId) -> SealedCrossing | None:
        """Return the first crossing to `peer` that it has not receipted."""
        words, parts = self._call("next_for", (peer,))
        if not parts:
            return None
        crossing, sequence, payload, size = words
        return SealedCrossing(CrossingId(crossing), int(sequence), bytes(parts[0]), Digest(payload), int(size))

    def blob(self, peer: SiteId, digest: Digest) -> tuple[int, Iterator[bytes]]:
        """Return a sealed payload for `peer`."""
        _, (blob,) = self._call("blob", (peer, digest), expect=1)
        return len(blob), _slices(blob)

    def examine(self, peer: SiteId, envelope: bytes) -> tuple[Manifest, bytes | None]:
        """Have an envelope checked before its payload is fetched."""
        _, (manifest, *receipt) = self._call("examine", (peer,), (len(envelope),), (envelope,), expect=1)
        return canonical.load(Manifest, bytes(manifest)), bytes(receipt[0]) if receipt else None

    def receive(self, peer: SiteId, envelope: bytes, pieces: Iterable[Buffer]) -> bytes:
        """Hand on a crossing with its sealed payload; return the signed receipt."""
        payload = tuple(pieces)
        sizes = (len(envelope), sum(len(piece) for piece in payload))
        _, (receipt,) = self._call("receive", (peer,), sizes, (envelope, *payload), expect=1)
        return bytes(receipt)

    def acknowledged(self, peer: SiteId, receipt: bytes, theirs: Heads | HeadsAnswer) -> HeadsAnswer | None:
        """Hand on a receipt and the heads that came with it."""
        which = frames.ASKED if isinstance(theirs, Heads) else frames.ANSWERED
        heads = canonical.dump(theirs)
        _, parts = self._call("acknowledged", (peer, which), (len(receipt), len(heads)), (receipt, heads))
        return canonical.load(HeadsAnswer, bytes(parts[0])) if parts else None

    # ---- the socket

    def _one(self, name: str, *words: str) -> bytes:
        _, (answer,) = self._call(name, words, expect=1)
        return bytes(answer)

    def _call(
        self,
        name: str,
        words: tuple[str, ...],
        sizes: tuple[int, ...] = (),
        pieces: Sequence[Buffer] = (),
        *,
        expect: int = 0,
    ) -> tuple[tuple[str, ...], list[bytearray]]:
        """Make one call; return the words and parts of its answer, `expect` of them at least.

        Raises:
            IsthmusError: what the keeper says.
            Fault: `PEER_UNREACHABLE`: the keeper is not there, or died before it had answered.
        """
        connection: socket.socket | None = None
        try:
            connection = self._taken() or self._connect(frames.CALLS)
            head, parts = self._exchanged(connection, frames.Head(name=name, words=words, sizes=sizes), pieces)
            error = frames.error_of(head)
            if error is None and len(parts) < expect:
                raise frames.Gone("the answer is not whole")
        except OSError as gone:
            if connection is not None:
                self._drop(connection)
            raise _away(gone) from gone
        if error is not None:
            self._drop(connection) if sizes else self._put_back(connection)
            raise error
        self._put_back(connection)
        return head.words, parts

    def _exchanged(
        self, connection: socket.socket, asked: frames.Head, pieces: Sequence[Buffer]
    ) -> tuple[frames.Head, list[bytearray]]:
        """Send a call and read its answer: also where the keeper says no before it has taken everything."""
        try:
            frames.write(connection, asked, pieces)
        except (BrokenPipeError, ConnectionResetError):
            if not asked.sizes:
                raise
        head = frames.read_head(connection)
        if sum(head.sizes) > MAX_ANSWER:
            raise frames.Gone("the answer is too large")
        return head, [frames.read_part(connection, size) for size in head.sizes]

    def _connect(self, purpose: str) -> socket.socket:
        """Return a connection on which the keeper has let this gate in."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
            with self._guard:
                self._open.add(connection)
            frames.write(connection, frames.Head(name=purpose, words=(self._gate,)))
            if (error := frames.error_of(frames.read_head(connection))) is not None:
                raise error
        except (OSError, IsthmusError):
            self._drop(connection)
            raise
        return connection

    def _taken(self) -> socket.socket | None:
        """Take an idle connection that still stands."""
        while True:
            with self._guard:
                connection = self._idle.pop() if self._idle else None
            if connection is None or _stands(connection):
                return connection
            self._drop(connection)

    def _put_back(self, connection: socket.socket) -> None:
        with self._guard:
            if not self._closed.is_set():
                self._idle.append(connection)
                return
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        with self._guard:
            self._open.discard(connection)
        connection.close()

    def _listen(self) -> None:
        """Ring the gate's bell whenever the keeper's rings, and once whenever the keeper is back."""
        pause, told = FIRST_PAUSE_S, False
        while not self._closed.is_set():
            connection: socket.socket | None = None
            try:
                connection = self._connect(frames.NEWS)
                pause, told = FIRST_PAUSE_S, False
                while True:
                    if frames.read_head(connection).name == frames.RUNG:
                        self._bell.ring()
            except (OSError, IsthmusError) as error:
                if not told and not self._closed.is_set():
                    log.warning("keeper_away", error=type(error).__name__, why=str(error))
                    told = True
            if connection is not None:
                self._drop(connection)
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _stands(connection: socket.socket) -> bool:
    """Tell whether the keeper still holds an idle connection: it says nothing unasked, so whatever comes is its end."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _slices(blob: bytearray) -> Iterator[bytes]:
    view = memoryview(blob)
    for start in range(0, len(view), SLICE):
        yield bytes(view[start : start + SLICE])


def _away(error: OSError) -> Fault:
    return Fault(
        Code.PEER_UNREACHABLE,
        "The border's keeper does not answer.",
        why=error.strerror or str(error),
        remedy="See whether it runs (`isthmus serve keeper`), and its log. What was asked is asked again.",
    )

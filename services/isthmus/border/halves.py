"""The keeper as the gate sees it: a few calls on bytes and ids, the same in one process and across a socket.

Rules:
1. What the site behind the border asks carries the bearer token that was shown, and the keeper looks at the token: a
   gate holds none and can make none up.
2. What a peer sends carries the name of the peer whose pinned certificate the gate saw. The keeper takes nothing on
   that word but whom to answer: envelopes, receipts and heads are verified by the peer's signing keys.
3. Nothing here is a key, and no call returns one but sealed to its reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import CrossingId, Digest, SiteId
    from isthmus.contracts.inside import CandidateHeader, CandidateStatus, LedgerView
    from isthmus.contracts.ledger import Log
    from isthmus.contracts.link import Heads, HeadsAnswer, Opening

    Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class SealedCrossing:
    """A crossing whose manifest is signed and stands in the ledger. Only the keeper makes one; nothing else is sent."""

    crossing: CrossingId
    sequence: int
    envelope: bytes
    payload: Digest
    size: int


class KeeperHalf(Protocol):
    """What the keeper does for the gate. Every call may block, and may be made from any thread.

    Raises (every method):
        Refusal: a rule said no, with its code.
        Fault: the machine said no; `PEER_UNREACHABLE` where the keeper itself is away.
    """

    # ---- for the own site: `token` is the bearer token that was shown, `route` a route of `border.routes`

    def admit(self, token: str, route: str) -> None:
        """Say whether the token's role may use the route, before anything of the request is read.

        Raises:
            Refusal: nobody holds this token (`UNAUTHENTICATED`), or its role may not (`FORBIDDEN`).
        """
        ...

    def ask(self, token: str, route: str, words: tuple[str, ...] = (), body: bytes = b"") -> bytes:
        """Do what the route is for, with the words of its path and query and the request's body.

        Returns:
            The answer's canonical bytes.
        """
        ...

    def payload(self, token: str, crossing: CrossingId) -> bytearray:
        """Return the plaintext of an accepted crossing."""
        ...

    def submit(self, token: str, header: CandidateHeader, data: Buffer) -> CandidateStatus:
        """Take a candidate: its payload is `data`."""
        ...

    # ---- for the link: `peer` is the site whose pinned certificate was shown

    def ledger(self) -> LedgerView:
        """Return both logs' signed heads: what any peer is shown."""
        ...

    def opening(self, peer: SiteId) -> Opening:
        """Return what this side states when the link opens."""
        ...

    def opened(self, peer: SiteId, theirs: Opening) -> None:
        """Compare the peer's memory of our heads with our ledger."""
        ...

    def heads(self, peer: SiteId, logs: tuple[Log, ...]) -> Heads:
        """Return own heads of `logs`, and what was seen of the peer's."""
        ...

    def answered(self, peer: SiteId, answer: HeadsAnswer) -> None:
        """Take in the peer's cosignatures and heads."""
        ...

    def exchange(self, peer: SiteId, theirs: Heads) -> HeadsAnswer:
        """Cosign the peer's heads and return own ones."""
        ...

    def next_for(self, peer: SiteId) -> SealedCrossing | None:
        """Return the first crossing to `peer` that it has not receipted."""
        ...

    def blob(self, peer: SiteId, digest: Digest) -> tuple[int, Iterator[bytes]]:
        """Return the size of a sealed payload for `peer`, and its bytes."""
        ...

    def examine(self, peer: SiteId, envelope: bytes) -> tuple[Manifest, bytes | None]:
        """Check an envelope before its payload is fetched; return the receipt too, where it was decided before."""
        ...

    def receive(self, peer: SiteId, envelope: bytes, pieces: Iterable[Buffer]) -> bytes:
        """Take in a crossing with its sealed payload; return the signed receipt."""
        ...

    def acknowledged(self, peer: SiteId, receipt: bytes, theirs: Heads | HeadsAnswer) -> HeadsAnswer | None:
        """Take in a receipt and the heads that came with it; return own heads where they are asked for."""
        ...

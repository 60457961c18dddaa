"""The keeper's side of the interface between the halves: whoever asks for the own site shows a role's token.

A gate, however it was taken over, cannot submit, take keys, read a payload or hand in an approval by its own word: each
of these calls looks at the token first. The link's calls need none: they take what a peer has signed, and give out what
is sealed to a peer or signed for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from isthmus.border import routes
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId
from isthmus.contracts.inside import (
    CloseOrder,
    FreezeSnapshot,
    KeyRequest,
    PseudonymRequest,
    RegisterFiles,
    SessionRequest,
    SignedStatement,
)
from isthmus.contracts.ledger import Log
from isthmus.contracts.wire import MAX_INTEGER, Wire
from isthmus.kit.tokens import holder_of
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from isthmus.border.halves import SealedCrossing
    from isthmus.border.keeper.keeper import Keeper
    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import Digest, SiteId
    from isthmus.contracts.inside import CandidateHeader, CandidateStatus, InsideRole, LedgerView
    from isthmus.contracts.link import Heads, HeadsAnswer, Opening
    from isthmus.proof.sealing import Buffer

    Handler = Callable[[tuple[str, ...], bytes], Wire]

Asked = TypeVar("Asked", bound=Wire)


class GuardedKeeper:
    """A keeper that asks for tokens. It is the `KeeperHalf` of a border in one process, and of the keeper's process.

    Args:
        keeper: who does the work.
        tokens: each role's token.
    """

    def __init__(self, keeper: Keeper, tokens: Mapping[InsideRole, str]) -> None:
        self._keeper = keeper
        self._tokens = dict(tokens)
        self._handlers: dict[str, Handler] = {
            routes.DELIVERIES: lambda words, _: keeper.inbound.deliveries(_cursor(words[0])),
            routes.DELIVERED: lambda words, _: keeper.inbound.delivered(_crossing(words[0])),
            routes.ENTRIES: lambda words, _: keeper.entries(_log(words[0]), _cursor(words[1])),
            "GET /v1/review": lambda *_: keeper.review.waiting(),
            "GET /v1/ledger": lambda *_: keeper.ledger(),
            "GET /v1/evidence": lambda *_: keeper.evidence(),
            "GET /v1/usage": lambda *_: keeper.usage(),
            "GET /v1/privacy": lambda *_: keeper.statistics.view(),
        }
        self._takes("POST /v1/keys", KeyRequest, keeper.files.grant)
        self._takes("POST /v1/orders/close", CloseOrder, keeper.close_order)
        self._takes("POST /v1/ingest/sessions", SessionRequest, keeper.files.start_session)
        self._takes("POST /v1/ingest/pseudonyms", PseudonymRequest, keeper.files.pseudonyms)
        self._takes("POST /v1/ingest/files", RegisterFiles, keeper.files.register)
        self._takes("POST /v1/ingest/snapshots", FreezeSnapshot, keeper.files.freeze)
        self._takes("POST /v1/review/approvals", SignedStatement, keeper.review.approve)
        self._takes("POST /v1/review/rejections", SignedStatement, keeper.review.reject)

    # ---- for the own site

    def admit(self, token: str, route: str) -> None:
        """Say whether the token's role may use the route."""
        self._role(token, route)

    def ask(self, token: str, route: str, words: tuple[str, ...] = (), body: bytes = b"") -> bytes:
        """Do what the route is for."""
        self._role(token, route)
        handler = self._handlers.get(route)
        if handler is None:
            raise Refusal(Code.NOT_FOUND, "There is no such route or method.")
        try:
            answer = handler(words, body)
        except IndexError as error:
            raise Refusal(Code.MALFORMED, "A word of the route is missing.") from error
        return canonical.dump(answer)

    def payload(self, token: str, crossing: CrossingId) -> bytearray:
        """Return the plaintext of an accepted crossing."""
        self._role(token, routes.PAYLOAD)
        return self._keeper.inbound.payload(crossing)

    def submit(self, token: str, header: CandidateHeader, data: Buffer) -> CandidateStatus:
        """Take a candidate."""
        return self._keeper.submit(self._role(token, routes.CANDIDATES), header, data)

    # ---- for the link

    def ledger(self) -> LedgerView:
        """Return both logs' signed heads."""
        return self._keeper.ledger()

    def opening(self, peer: SiteId) -> Opening:
        """Return what this side states when the link opens."""
        return self._keeper.opening(peer)

    def opened(self, peer: SiteId, theirs: Opening) -> None:
        """Compare the peer's memory of our heads with our ledger."""
        self._keeper.heads.opened(peer, theirs)

    def heads(self, peer: SiteId, logs: tuple[Log, ...]) -> Heads:
        """Return own heads of `logs`."""
        return self._keeper.heads.heads(peer, logs)

    def answered(self, peer: SiteId, answer: HeadsAnswer) -> None:
        """Take in the peer's cosignatures and heads."""
        self._keeper.heads.answered(peer, answer)

    def exchange(self, peer: SiteId, theirs: Heads) -> HeadsAnswer:
        """Cosign the peer's heads and return own ones."""
        return self._keeper.exchange(peer, theirs)

    def next_for(self, peer: SiteId) -> SealedCrossing | None:
        """Return the first crossing to `peer` that it has not receipted."""
        return self._keeper.next_for(peer)

    def blob(self, peer: SiteId, digest: Digest) -> tuple[int, Iterator[bytes]]:
        """Return a sealed payload for `peer`."""
        return self._keeper.blob(peer, digest)

    def examine(self, peer: SiteId, envelope: bytes) -> tuple[Manifest, bytes | None]:
        """Check an envelope of a peer whose link is open."""
        self._keeper.heads.require_open(peer)
        return self._keeper.inbound.examine(peer, envelope)

    def receive(self, peer: SiteId, envelope: bytes, pieces: Iterable[Buffer]) -> bytes:
        """Take in a crossing of a peer whose link is open, whoever says that it was examined."""
        self._keeper.heads.require_open(peer)
        return self._keeper.inbound.receive(peer, envelope, pieces)

    def acknowledged(self, peer: SiteId, receipt: bytes, theirs: Heads | HeadsAnswer) -> HeadsAnswer | None:
        """Take in a receipt and the heads that came with it."""
        return self._keeper.acknowledged(peer, receipt, theirs)

    def _takes(self, route: str, model: type[Asked], call: Callable[[Asked], Wire | None]) -> None:
        """Let a route take a body of `model`; what has no answer of its own answers what was asked."""

        def handler(_: tuple[str, ...], body: bytes) -> Wire:
            asked = canonical.load(model, body, limit=routes.limit_of(route))
            answer = call(asked)
            return asked if answer is None else answer

        self._handlers[route] = handler

    def _role(self, token: str, route: str) -> InsideRole:
        """Return the role that shows `token`.

        Raises:
            Refusal: it is no role's, or that role may not use the route.
        """
        role = holder_of(token, self._tokens)
        if role not in routes.ROUTES.get(route, frozenset()):
            raise Refusal(Code.FORBIDDEN, f"The role {role} may not use {route}.")
        return role


def _cursor(text: str) -> int:
    """Return a cursor that the ledger can be asked for: past its end is past its end."""
    try:
        return max(0, min(int(text), MAX_INTEGER))
    except ValueError as error:
        raise Refusal(Code.MALFORMED, "This is not a cursor.") from error


def _log(text: str) -> Log:
    try:
        return Log(text)
    except ValueError as error:
        raise Refusal(Code.NOT_FOUND, "There is no such log.") from error


def _crossing(text: str) -> CrossingId:
    try:
        return CrossingId(text)
    except ValueError as error:
        raise Refusal(Code.NOT_FOUND, "This is not a crossing's id.") from error

"""The calls as frames, on the keeper's side: by name, each with what it takes and how large that may be.

Tokens are looked at before the parts are read: a gate that shows none has no byte of a body taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border import routes
from isthmus.border.bridge import frames
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, SiteId
from isthmus.contracts.inside import CandidateHeader
from isthmus.contracts.ledger import Log
from isthmus.contracts.link import Heads, HeadsAnswer, Opening
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from isthmus.border.bridge.frames import Buffer, Head
    from isthmus.border.halves import KeeperHalf

    Words = tuple[str, ...]
    Parts = list[bytearray]

SMALL = 128 * 1024
"""Most bytes of an envelope, a receipt, an opening or heads."""
SLICE = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call answers: words, and parts of these sizes, in pieces."""

    words: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    pieces: Iterable[Buffer] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One call: how many words and how large parts it takes, and what it does."""

    words: range
    parts: Callable[[Words], tuple[int, ...]]
    do: Callable[[KeeperHalf, Words, Parts], Answer]
    guarded: Callable[[Words], str | None] = lambda _: None
    """The route for which the first word must be a token, before any part is read."""


def of(head: Head) -> Call:
    """Return the call that a head names, its words and sizes being what the call takes.

    Raises:
        Refusal: there is none such (`MALFORMED`), or a part is larger than it may be (`TOO_LARGE`).
    """
    call = CALLS.get(head.name)
    if call is None or len(head.words) not in call.words:
        raise Refusal(Code.MALFORMED, "The keeper has no such call.")
    limits = call.parts(head.words)
    if len(limits) != len(head.sizes):
        raise Refusal(Code.MALFORMED, "The call takes another number of parts.")
    if any(size > limit for size, limit in zip(head.sizes, limits, strict=True)):
        raise Refusal(Code.TOO_LARGE, "A part of the call is too large.")
    return call


def _one(*parts: Buffer, words: Words = ()) -> Answer:
    return Answer(words, tuple(len(part) for part in parts), parts)


def _admit(half: KeeperHalf, words: Words, _: Parts) -> Answer:
    half.admit(words[0], words[1])
    return Answer()


def _ask(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    return _one(half.ask(words[0], words[1], words[2:], bytes(parts[0])))


def _payload(half: KeeperHalf, words: Words, _: Parts) -> Answer:
    return _one(half.payload(words[0], CrossingId(words[1])))


def _submit(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    header = canonical.load(CandidateHeader, words[1].encode())
    return _one(canonical.dump(half.submit(words[0], header, parts[0])))


def _ledger(half: KeeperHalf, _: Words, __: Parts) -> Answer:
    return _one(canonical.dump(half.ledger()))


def _opening(half: KeeperHalf, words: Words, _: Parts) -> Answer:
    return _one(canonical.dump(half.opening(SiteId(words[0]))))


def _opened(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    half.opened(SiteId(words[0]), canonical.load(Opening, bytes(parts[0])))
    return Answer()


def _heads(half: KeeperHalf, words: Words, _: Parts) -> Answer:
    return _one(canonical.dump(half.heads(SiteId(words[0]), tuple(Log(word) for word in words[1:]))))


def _answered(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    half.answered(SiteId(words[0]), canonical.load(HeadsAnswer, bytes(parts[0])))
    return Answer()


def _exchange(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    return _one(canonical.dump(half.exchange(SiteId(words[0]), canonical.load(Heads, bytes(parts[0])))))


def _next(half: KeeperHalf, words: Words, _: Parts) -> Answer:
    found = half.next_for(SiteId(words[0]))
    if found is None:
        return Answer()
    told = (found.crossing, str(found.sequence), found.payload, str(found.size))
    return _one(found.envelope, words=told)


def _blob(half: KeeperHalf, words: Words, _: Parts) -> Answer:
    size, pieces = half.blob(SiteId(words[0]), Digest(words[1]))
    return Answer((), (size,), pieces)


def _examine(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    manifest, receipt = half.examine(SiteId(words[0]), bytes(parts[0]))
    known = () if receipt is None else (receipt,)
    return _one(canonical.dump(manifest), *known)


def _receive(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    view = memoryview(parts[1])
    pieces = (view[start : start + SLICE] for start in range(0, len(view), SLICE))
    return _one(half.receive(SiteId(words[0]), bytes(parts[0]), pieces))


def _acknowledged(half: KeeperHalf, words: Words, parts: Parts) -> Answer:
    theirs: Heads | HeadsAnswer
    if words[1] == frames.ASKED:
        theirs = canonical.load(Heads, bytes(parts[1]))
    else:
        theirs = canonical.load(HeadsAnswer, bytes(parts[1]))
    heads = half.acknowledged(SiteId(words[0]), bytes(parts[0]), theirs)
    return Answer() if heads is None else _one(canonical.dump(heads))


def _small(count: int) -> Callable[[Words], tuple[int, ...]]:
    return lambda _: (SMALL,) * count


CALLS: Mapping[str, Call] = {
    "admit": Call(range(2, 3), _small(0), _admit),
    "ask": Call(range(2, 6), lambda words: (routes.limit_of(words[1]),), _ask, lambda words: words[1]),
    "payload": Call(range(2, 3), _small(0), _payload),
    "submit": Call(range(2, 3), lambda _: (routes.MAX_CANDIDATE,), _submit, lambda _: routes.CANDIDATES),
    "ledger": Call(range(1), _small(0), _ledger),
    "opening": Call(range(1, 2), _small(0), _opening),
    "opened": Call(range(1, 2), _small(1), _opened),
    "heads": Call(range(1, 4), _small(0), _heads),
    "answered": Call(range(1, 2), _small(1), _answered),
    "exchange": Call(range(1, 2), _small(1), _exchange),
    "next_for": Call(range(1, 2), _small(0), _next),
    "blob": Call(range(2, 3), _small(0), _blob),
    "examine": Call(range(1, 2), _small(1), _examine),
    "receive": Call(range(1, 2), lambda _: (SMALL, routes.MAX_CANDIDATE), _receive),
    "acknowledged": Call(range(2, 3), _small(2), _acknowledged),
}
"""Every call. What is not here cannot be asked."""

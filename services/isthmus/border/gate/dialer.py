"""The link's client side: a zone's border dials out, polls, and uploads. Nobody calls it.

Polling and uploading use separate connections; whatever carries heads goes one at a time, so that each proof starts
where the one before ended. Waiting is woken by an event or by the peer, never by an interval, except after a failure
and for the fixed cadence at which both logs' heads are cosigned.

Every request has the same few headers and whole frames as its body; answers are held to whole frames too.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

import httpx2
import structlog
from fastapi.concurrency import run_in_threadpool

from isthmus.border.gate.framing import framed, framed_size, message_in, padded, unpadded, unpadded_payload
from isthmus.client.bulk import StreamedBulk
from isthmus.client.problems import reaching
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.ledger import Log
from isthmus.contracts.link import (
    CADENCE_S,
    HOST,
    POLL_S,
    HeadsAnswer,
    LinkProblem,
    Opening,
    Parcel,
    ParcelAnswer,
    ReceiptParcel,
    filled,
)
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator

    from isthmus.border.halves import KeeperHalf, SealedCrossing
    from isthmus.client.bulk import Bulk
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.wire import Wire
    from isthmus.kit.bell import Bell

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
POLL_TIMEOUT_S = 60.0
EARLY_S = 1.0
"""A poll that ends by so much before its time was let go."""
LET_GO_PAUSE_S = 1.0
MAX_ANSWER = 256 * 1024
SLICE = 1 << 20
MAX_ENVELOPE = 128 * 1024
MAX_PROBLEM = 1024
BULK_HEADERS = {"host": HOST, "accept-encoding": "identity"}
"""Given whole, so that no client adds its own."""
BOTH = (Log.CROSSINGS, Log.INTERNAL)
LATEST = (Log.CROSSINGS,)

Model = TypeVar("Model", bound="Wire")

log = structlog.get_logger(__name__)


class Dialer:
    """Keeps the link from this border to `peer` up, for as long as it runs."""

    def __init__(
        self,
        keeper: KeeperHalf,
        site: SiteId,
        peer: SiteId,
        http: httpx2.AsyncClient,
        bell: Bell,
        *,
        cadence_s: float = CADENCE_S,
        bulk: Bulk | None = None,
    ) -> None:
        self._keeper = keeper
        self._site = site
        self._peer = peer
        self._http = http
        self._bulk = bulk or StreamedBulk(http)
        self._bell = bell
        self._cadence_s = cadence_s
        self._heads = asyncio.Lock()

    async def run(self) -> None:
        """Hold the link until cancelled; open it again after every failure.

        Each pause is twice the one before. They start short again when a link that stood has lost its peer, which
        restarts, or its place in the peer's log, which opening it again finds.
        """
        pause = FIRST_PAUSE_S
        while True:
            stood, failure = await self._until_it_fails()
            log.warning("link_down", peer=self._peer, code=failure.code.value, what=failure.what, why=failure.why)
            if stood and failure.code in {Code.PEER_UNREACHABLE, Code.HEAD_BEHIND}:
                pause = FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _until_it_fails(self) -> tuple[bool, IsthmusError]:
        """Open the link and work on it; return whether it stood, and what ended it."""
        stood = False
        failure: IsthmusError = Fault(Code.PEER_UNREACHABLE, "The link ended.")
        try:
            await self.open()
            stood = True
            await self._work()
        except* IsthmusError as group:
            failure = _first(group)
        return stood, failure

    async def open(self) -> None:
        """Compare both sides' memories, then exchange heads of both logs."""
        mine = await run_in_threadpool(self._keeper.opening, self._peer)
        theirs = await self._post(Opening, "open", mine)
        await run_in_threadpool(self._keeper.opened, self._peer, theirs)
        await self.exchange()

    async def exchange(self) -> None:
        """Have both logs' heads cosigned, and cosign the peer's."""
        async with self._heads:
            heads = await run_in_threadpool(self._keeper.heads, self._peer, BOTH)
            answer = await self._post(HeadsAnswer, "heads", heads)
            await run_in_threadpool(self._keeper.answered, self._peer, answer)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._upload())
            group.create_task(self._at_cadence())

    async def _at_cadence(self) -> None:
        while True:
            await asyncio.sleep(self._cadence_s)
            await self.exchange()

    async def _poll(self) -> None:
        """Fetch, take in and receipt what the peer has for this border, one crossing after the other."""
        loop = asyncio.get_running_loop()
        while True:
            asked_at = loop.time()
            status, body = await self._ask("GET", "next", limit=filled(MAX_ENVELOPE))
            if status == httpx2.codes.NO_CONTENT:
                if loop.time() - asked_at < POLL_S - EARLY_S:
                    # The peer lets go of its polls: it stops, and its connections end in a moment.
                    await asyncio.sleep(LET_GO_PAUSE_S)
                continue
            receipt = await self.take(unpadded(body, MAX_ENVELOPE))
            async with self._heads:
                heads = await run_in_threadpool(self._keeper.heads, self._peer, LATEST)
                parcel = ReceiptParcel(receipt=receipt.decode(), heads=heads)
                answer = await self._post(HeadsAnswer, "receipts", parcel)
                await run_in_threadpool(self._keeper.answered, self._peer, answer)

    async def take(self, envelope: bytes) -> bytes:
        """Fetch the payload of an envelope and take both in; return the receipt, the known one for a repeat.

        Raises:
            Refusal: it cannot be the peer's next crossing.
        """
        manifest, known = await run_in_threadpool(self._keeper.examine, self._peer, envelope)
        if known is not None:
            return known
        path = self._path(f"blob/{manifest.payload.digest}")
        size = manifest.payload.size
        body = await self._bulk.get(path, BULK_HEADERS, limit=filled(size), error_of=_problem)
        pieces = _slices(unpadded_payload(body, size))
        return await run_in_threadpool(self._keeper.receive, self._peer, envelope, pieces)

    async def _upload(self) -> None:
        """Send what this border has logged for the peer, in sequence."""
        while True:
            ticket = self._bell.ticket()
            crossing = await run_in_threadpool(self._keeper.next_for, self._peer)
            if crossing is None:
                await self._bell.wait(ticket, POLL_TIMEOUT_S)
                continue
            await self.send(crossing)

    async def send(self, crossing: SealedCrossing) -> None:
        """Send one crossing and hold the peer to its receipt. This is the only place from which a zone sends."""
        async with self._heads:
            heads = await run_in_threadpool(self._keeper.heads, self._peer, LATEST)
            parcel = Parcel(envelope=crossing.envelope.decode(), heads=heads)
            _, pieces = await run_in_threadpool(self._keeper.blob, self._peer, crossing.payload)
            _, body = await self._ask(
                "PUT",
                f"crossings/{crossing.crossing}",
                framed(parcel, pieces, crossing.size),
                framed_size(parcel, crossing.size),
            )
            answer = message_in(ParcelAnswer, body, MAX_ANSWER)
            await run_in_threadpool(self._keeper.acknowledged, self._peer, answer.receipt.encode(), answer.heads)

    async def _post(self, model: type[Model], path: str, request: Wire) -> Model:
        content = padded(canonical.dump(request))
        _, body = await self._ask("POST", path, content, len(content))
        return message_in(model, body, MAX_ANSWER)

    async def _ask(
        self,
        method: str,
        path: str,
        content: bytes | AsyncIterable[bytes] | None = None,
        size: int | None = None,
        *,
        limit: int = filled(MAX_ANSWER),
    ) -> tuple[int, bytes]:
        """Ask the peer, and read its answer as it came: nothing is unpacked, and no more than `limit` bytes is kept.

        What the HTTP library would say of itself is left out: a request's head holds what it needs, and no more.

        Raises:
            Refusal: the peer refused, with its code, or says more than `limit` bytes (`TOO_LARGE`).
            Fault: it does not answer.
        """
        pieces: list[bytes] = []
        came = 0
        with reaching("The peer"):
            request = self._http.build_request(method, self._path(path), content=content, timeout=POLL_TIMEOUT_S)
            request.headers = httpx2.Headers({"host": HOST} | ({} if size is None else {"content-length": str(size)}))
            response = await self._http.send(request, stream=True)
            async with contextlib.aclosing(response):
                async for piece in response.aiter_raw():
                    came += len(piece)
                    if came > limit:
                        raise Refusal(Code.TOO_LARGE, f"The peer's answer has more than {limit} bytes.")
                    pieces.append(piece)
        if response.status_code not in {httpx2.codes.OK, httpx2.codes.NO_CONTENT}:
            raise _problem(response.status_code, b"".join(pieces))
        return response.status_code, b"".join(pieces)

    def _path(self, rest: str) -> str:
        return f"/link/{self._site}/{rest}"


def _slices(payload: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(payload), SLICE):
        yield payload[start : start + SLICE]


def _problem(status: int, content: bytes) -> IsthmusError:
    """Return the error that a peer's code stands for."""
    try:
        code = message_in(LinkProblem, content, MAX_PROBLEM).code
    except Refusal:
        return Fault(Code.PEER_UNREACHABLE, f"The peer answered {status} with nothing that can be read.")
    return Refusal(code, f"The peer refused: {code.value}.")


def _first(group: BaseExceptionGroup[IsthmusError]) -> IsthmusError:
    """Return the first error in a group, however deep."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error

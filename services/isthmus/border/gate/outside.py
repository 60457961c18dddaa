"""The outside face: the link's server side. Only a coordinator's border listens; zone borders dial it.

Who asks is settled by the pinned certificate alone. The only text that goes out is a code. Every body fills whole
frames, and an answer's head holds its status and its length, nothing that varies otherwise.

What a site asked takes effect in the order in which it came in whole, even when who asked has died since: the head that
came with it must not be looked at after a later one, or an honest restart would pass for a fork.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from isthmus.border.gate.framing import Unframer, message_in, padded, padded_payload
from isthmus.border.gate.identity import peer_of
from isthmus.contracts.errors import Code, IsthmusError, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.link import POLL_S, Heads, LinkProblem, Opening, Parcel, ParcelAnswer, ReceiptParcel, filled
from isthmus.kit import web
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from isthmus.border.halves import KeeperHalf
    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.roster import Roster
    from isthmus.contracts.wire import Wire
    from isthmus.kit.bell import Bell

MAX_OPENING = 64 * 1024

Model = TypeVar("Model", bound="Wire")

SILENCE_S = 20.0
"""How long a body may stand still: less than a peer waits for an answer, so that its next try finds the way free."""

log = structlog.get_logger(__name__)


def outside_app(keeper: KeeperHalf, roster: Roster, bell: Bell, version: str) -> FastAPI:  # noqa: C901 - a list of routes
    """Return the outside face of `keeper`."""
    app = FastAPI(title="Isthmus link", version=version, openapi_url=None, docs_url=None, redoc_url=None)
    one_at_a_time: defaultdict[SiteId, asyncio.Lock] = defaultdict(asyncio.Lock)
    in_turn: defaultdict[SiteId, asyncio.Lock] = defaultdict(asyncio.Lock)

    def peer(request: Request) -> SiteId:
        return peer_of(request.scope, request.path_params["site"], roster)

    @app.post("/link/{site}/open")
    async def open_link(request: Request) -> Response:
        site = peer(request)
        theirs = await _message(request, Opening, MAX_OPENING)
        async with in_turn[site]:
            await run_in_threadpool(keeper.opened, site, theirs)
            return _answer(await run_in_threadpool(keeper.opening, site))

    @app.post("/link/{site}/heads")
    async def exchange_heads(request: Request) -> Response:
        site = peer(request)
        theirs = await _message(request, Heads, MAX_OPENING)
        async with in_turn[site]:
            return _answer(await run_in_threadpool(keeper.exchange, site, theirs))

    @app.get("/link/{site}/next")
    async def next_crossing(request: Request) -> Response:
        site = peer(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + POLL_S
        while True:
            ticket = bell.ticket()
            found = await run_in_threadpool(keeper.next_for, site)
            if found is not None:
                return Response(padded(found.envelope))
            left = deadline - loop.time()
            if left <= 0 or bell.closed or not await bell.wait(ticket, left):
                return Response(status_code=204)

    @app.get("/link/{site}/blob/{digest}")
    async def blob(request: Request, digest: str) -> StreamingResponse:
        site = peer(request)
        size, pieces = await run_in_threadpool(keeper.blob, site, _digest(digest))
        return StreamingResponse(
            _sent(padded_payload(pieces, size)),
            headers={"content-length": str(filled(size))},
        )

    @app.put("/link/{site}/crossings/{crossing}")
    async def put_crossing(request: Request, crossing: str) -> Response:
        site = peer(request)
        async with one_at_a_time[site]:
            return await _take(keeper, site, request, crossing, in_turn[site])

    @app.post("/link/{site}/receipts")
    async def take_receipt(request: Request) -> Response:
        site = peer(request)
        parcel = await _message(request, ReceiptParcel, MAX_OPENING * 2)
        async with in_turn[site]:
            heads = await run_in_threadpool(keeper.acknowledged, site, parcel.receipt.encode(), parcel.heads)
        return _answer(heads) if heads else Response(status_code=204)

    app.add_exception_handler(IsthmusError, _code_only)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _nothing)
    return app


async def _sent(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a blob's pieces; each is a read from the page cache, shorter than a hop to a thread."""
    for piece in pieces:
        yield piece


async def _message(request: Request, model: type[Model], limit: int) -> Model:
    """Read the control message that is the request's body."""
    async with _not_for_ever():
        body = await web.body(request, filled(limit))
    return message_in(model, body, limit)


@asynccontextmanager
async def _not_for_ever() -> AsyncIterator[None]:
    """Give a read up that brings nothing: a line that was cut says nothing of it, and who reads may hold others up."""
    try:
        async with asyncio.timeout(SILENCE_S):
            yield
    except TimeoutError:
        raise Refusal(Code.TRUNCATED, f"Nothing came for {SILENCE_S:g} s, and more was due.") from None


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body's chunks as they come."""
    stream = request.stream()
    while True:
        async with _not_for_ever():
            chunk = await anext(stream, None)
        if chunk is None:
            return
        yield chunk


def _answer(model: Wire, status: int = 200) -> Response:
    """Return `model` in its frames."""
    return Response(padded(canonical.dump(model)), status)


async def _take(keeper: KeeperHalf, site: SiteId, request: Request, crossing: str, in_turn: asyncio.Lock) -> Response:
    """Take in one crossing: the envelope is examined before its payload is read."""
    unframer = Unframer()
    manifest: Manifest | None = None
    known: bytes | None = None
    async for chunk in _chunks(request):
        parcel = unframer.feed(chunk)
        if parcel is not None:
            manifest, known = await run_in_threadpool(_examine, keeper, site, parcel, crossing)
        if manifest is not None:
            unframer.require_at_most(manifest.payload.size)
    if manifest is None or unframer.parcel is None:
        raise Refusal(Code.TRUNCATED, "The parcel is not whole.")
    envelope = unframer.parcel.envelope.encode()
    async with in_turn:
        if known is None:
            pieces = unframer.payload(manifest.payload.size)
            known = await run_in_threadpool(keeper.receive, site, envelope, pieces)
        heads = await run_in_threadpool(keeper.exchange, site, unframer.parcel.heads)
    return _answer(ParcelAnswer(receipt=known.decode(), heads=heads))


def _examine(keeper: KeeperHalf, site: SiteId, parcel: Parcel, crossing: str) -> tuple[Manifest, bytes | None]:
    manifest, known = keeper.examine(site, parcel.envelope.encode())
    if manifest.crossing != crossing:
        raise Refusal(Code.ID_MISMATCH, "The path names another crossing than the envelope.")
    return manifest, known


async def _code_only(request: Request, error: Exception) -> Response:
    """Answer with the code; the rest stays in the log at home."""
    if not isinstance(error, IsthmusError):
        return await _nothing(request, error)
    log.warning("link_refused", path=request.url.path, code=error.code.value, what=error.what, why=error.why)
    return _answer(LinkProblem(code=error.code), web.status_of(error))


async def _no_route(_: Request, error: Exception) -> Response:
    """Answer a path or a method that the link does not have."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _answer(LinkProblem(code=Code.NOT_FOUND), status)


async def _nothing(request: Request, error: Exception) -> Response:
    log.error("link_failed", path=request.url.path, error=type(error).__name__, exc_info=error)
    return _answer(LinkProblem(code=Code.LEDGER_UNAVAILABLE), 503)


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except ValueError as error:
        raise Refusal(Code.MALFORMED, "This is not a digest.") from error

"""The inside face: HTTP for the border's own site. One table says which role may use which route.

Answers carry the whole error; nothing of this face is reachable from abroad.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId
from isthmus.contracts.inside import (
    CandidateHeader,
    CloseOrder,
    FreezeSnapshot,
    InsideRole,
    KeyRequest,
    PseudonymRequest,
    RegisterFiles,
    SessionRequest,
    SignedStatement,
)
from isthmus.contracts.ledger import Log
from isthmus.contracts.wire import MAX_INTEGER
from isthmus.kit import web
from isthmus.kit.tokens import holder_of
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from isthmus.border.keeper.keeper import Keeper
    from isthmus.contracts.wire import Wire
    from isthmus.kit.bell import Bell

Request_ = TypeVar("Request_", bound="Wire")

ALL = frozenset(InsideRole)
SITE = frozenset({InsideRole.COMPUTE, InsideRole.SUBMITTER})
INGEST = frozenset({InsideRole.INGEST})
COMPUTE = frozenset({InsideRole.COMPUTE})
OFFICER = frozenset({InsideRole.OFFICER})
EVIDENCE = frozenset({InsideRole.AUDITOR, InsideRole.OFFICER})

ROUTES: Mapping[str, frozenset[InsideRole]] = {
    "GET /v1/health": ALL,
    "GET /v1/deliveries": SITE,
    "GET /v1/crossings/{crossing}/payload": SITE,
    "POST /v1/crossings/{crossing}/delivered": SITE,
    "POST /v1/candidates": SITE,
    "POST /v1/keys": COMPUTE,
    "POST /v1/orders/close": COMPUTE,
    "POST /v1/ingest/sessions": INGEST,
    "POST /v1/ingest/pseudonyms": INGEST,
    "POST /v1/ingest/files": INGEST,
    "POST /v1/ingest/snapshots": INGEST,
    "GET /v1/review": OFFICER,
    "POST /v1/review/approvals": OFFICER,
    "POST /v1/review/rejections": OFFICER,
    "GET /v1/ledger": EVIDENCE,
    "GET /v1/ledger/{log}/entries": EVIDENCE,
    "GET /v1/evidence": EVIDENCE,
    "GET /v1/usage": EVIDENCE,
}
"""Every route, and the roles that may use it. A route that is not here cannot be made."""

LENGTH = 4
MAX_CANDIDATE = 512 << 20
MAX_HEADER = 16 * 1024
MAX_REGISTRATION = 64 << 20
PIECE = 256 * 1024
LONGEST_POLL_S = 25.0


def inside_app(  # noqa: C901, PLR0915 - one route after the other, nothing nested
    keeper: Keeper, tokens: Mapping[InsideRole, str], bell: Bell, version: str
) -> FastAPI:
    """Return the inside face of `keeper`."""
    app = web.make_app(
        title="Isthmus border, inside face",
        version=version,
        description="What a border's own site may ask of it.",
        bell=bell,
        described=False,
    )

    async def allowed(request: Request) -> InsideRole:
        role = holder_of(web.bearer(request), tokens)
        route = f"{request.method} {request.scope['route'].path}"
        if role not in ROUTES[route]:
            raise Refusal(Code.FORBIDDEN, f"The role {role} may not use {route}.")
        return role

    def route(name: str, handler: Callable[..., object]) -> None:
        if name not in ROUTES:
            raise KeyError(name)
        method, path = name.split(" ")
        app.add_api_route(path, handler, methods=[method], dependencies=[Depends(allowed)], response_model=None)

    def takes(
        name: str, model: type[Request_], call: Callable[[Request_], Wire | None], limit: int = web.MAX_BODY
    ) -> None:
        async def handler(request: Request) -> Response:
            asked = await web.parsed(request, model, limit)
            answer = await run_in_threadpool(call, asked)
            return web.answer(answer if answer is not None else asked)

        route(name, handler)

    def gives(name: str, call: Callable[[], Wire]) -> None:
        async def handler() -> Response:
            return web.answer(await run_in_threadpool(call))

        route(name, handler)

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def deliveries(after: int = 0, wait: float = 0.0) -> Response:
        after = _within(after)
        ticket = bell.ticket()
        found = await run_in_threadpool(keeper.inbound.deliveries, after)
        remaining = min(wait, LONGEST_POLL_S)
        while not found.items and remaining > 0 and not bell.closed:
            if not await bell.wait(ticket, remaining):
                break
            ticket = bell.ticket()
            found = await run_in_threadpool(keeper.inbound.deliveries, after)
        return web.answer(found)

    async def payload(crossing: str) -> StreamingResponse:
        plain = await run_in_threadpool(keeper.inbound.payload, _crossing(crossing))
        return StreamingResponse(
            _pieces(plain),
            media_type="application/octet-stream",
            headers={"content-length": str(len(plain))},
        )

    async def delivered(crossing: str) -> Response:
        return web.answer(await run_in_threadpool(keeper.inbound.delivered, _crossing(crossing)))

    async def candidates(request: Request) -> Response:
        role = holder_of(web.bearer(request), tokens)
        header, data = await _candidate(request)
        return web.answer(await run_in_threadpool(keeper.outbound.submit, role, header, data))

    async def entries(log: str, start: int = 0) -> Response:
        return web.answer(await run_in_threadpool(keeper.entries, _log(log), _within(start)))

    route("GET /v1/health", health)
    route("GET /v1/deliveries", deliveries)
    route("GET /v1/crossings/{crossing}/payload", payload)
    route("POST /v1/crossings/{crossing}/delivered", delivered)
    route("POST /v1/candidates", candidates)
    route("GET /v1/ledger/{log}/entries", entries)
    takes("POST /v1/keys", KeyRequest, keeper.files.grant)
    takes("POST /v1/orders/close", CloseOrder, keeper.close_order)
    takes("POST /v1/ingest/sessions", SessionRequest, keeper.files.start_session)
    takes("POST /v1/ingest/pseudonyms", PseudonymRequest, keeper.files.pseudonyms, 2 << 20)
    takes("POST /v1/ingest/files", RegisterFiles, keeper.files.register, MAX_REGISTRATION)
    takes("POST /v1/ingest/snapshots", FreezeSnapshot, keeper.files.freeze, 8 << 20)
    takes("POST /v1/review/approvals", SignedStatement, keeper.review.approve)
    takes("POST /v1/review/rejections", SignedStatement, keeper.review.reject)
    gives("GET /v1/review", keeper.review.waiting)
    gives("GET /v1/ledger", keeper.ledger)
    gives("GET /v1/evidence", keeper.evidence)
    gives("GET /v1/usage", keeper.usage)
    return app


async def _candidate(request: Request) -> tuple[CandidateHeader, memoryview]:
    """Read a length-prefixed header, then exactly as many payload bytes as it states."""
    head = bytearray()
    header: CandidateHeader | None = None
    payload, filled = memoryview(b""), 0
    async for chunk in request.stream():
        rest = memoryview(chunk)
        if header is None:
            head += chunk
            header, start = _header(head)
            if header is None:
                continue
            payload, rest = memoryview(bytearray(header.size)), memoryview(head)[start:]
        if filled + len(rest) > len(payload):
            raise Refusal(Code.TOO_LARGE, "More bytes came than the candidate's header states.")
        payload[filled : filled + len(rest)] = rest
        filled += len(rest)
    if header is None:
        raise Refusal(Code.TRUNCATED, "The candidate's header is not whole.")
    return header, payload[:filled]


def _header(head: bytearray) -> tuple[CandidateHeader | None, int]:
    """Return the header and where the payload starts; None until it is whole."""
    if len(head) < LENGTH:
        return None, 0
    start = LENGTH + struct.unpack_from(">I", head)[0]
    if start > LENGTH + MAX_HEADER:
        raise Refusal(Code.TOO_LARGE, "The candidate's header is too large.")
    if len(head) < start:
        return None, 0
    header = canonical.load(CandidateHeader, bytes(head[LENGTH:start]))
    if header.size > MAX_CANDIDATE:
        raise Refusal(Code.TOO_LARGE, f"A candidate has at most {MAX_CANDIDATE} bytes.")
    return header, start


async def _pieces(plain: bytearray) -> AsyncIterator[bytes]:
    """Yield in pieces; a plain iterator would hop to a thread for each."""
    view = memoryview(plain)
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])


def _within(cursor: int) -> int:
    """Return a cursor that the ledger can be asked for: past its end is past its end."""
    return max(0, min(cursor, MAX_INTEGER))


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

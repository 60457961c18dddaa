"""The inside face: HTTP for the border's own site. One table says which role may use which route (`border.routes`).

The gate knows no token: it hands on the one that was shown, and the keeper looks at it, before a body is read and again
when it does what was asked.
Answers carry the whole error; nothing of this face is reachable from abroad.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from isthmus.border import routes
from isthmus.border.routes import ROUTES
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId
from isthmus.contracts.inside import CandidateHeader, Deliveries
from isthmus.kit import web
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from isthmus.border.halves import KeeperHalf
    from isthmus.kit.bell import Bell

LENGTH = 4
MAX_HEADER = 16 * 1024
PIECE = 256 * 1024
LONGEST_POLL_S = 25.0
OWN = frozenset(
    {"GET /v1/health", routes.DELIVERIES, routes.PAYLOAD, routes.DELIVERED, routes.CANDIDATES, routes.ENTRIES}
)
"""Routes with a path, a query or a payload of their own. Every other hands its body to the keeper as it came."""
NOTHING = canonical.dump(Deliveries(items=()))


def inside_app(keeper: KeeperHalf, bell: Bell, version: str) -> FastAPI:  # noqa: C901 - one route after the other
    """Return the inside face of `keeper`, which looks at every token itself."""
    app = web.make_app(
        title="Isthmus border, inside face",
        version=version,
        description="What a border's own site may ask of it.",
        bell=bell,
        described=False,
    )

    async def allowed(request: Request) -> None:
        name = f"{request.method} {request.scope['route'].path}"
        await run_in_threadpool(keeper.admit, web.bearer(request), name)

    def route(name: str, handler: Callable[..., object]) -> None:
        if name not in ROUTES:
            raise KeyError(name)
        method, path = name.split(" ")
        app.add_api_route(path, handler, methods=[method], dependencies=[Depends(allowed)], response_model=None)

    async def ask(request: Request, name: str, *words: str, body: bytes = b"") -> bytes:
        return await run_in_threadpool(keeper.ask, web.bearer(request), name, words, body)

    def asks(name: str) -> None:
        limit = routes.limit_of(name) if name.startswith("POST ") else 0

        async def handler(request: Request) -> Response:
            return _answer(await ask(request, name, body=await web.body(request, limit)))

        route(name, handler)

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def deliveries(request: Request, after: int = 0, wait: float = 0.0) -> Response:
        ticket = bell.ticket()
        found = await ask(request, routes.DELIVERIES, str(after))
        remaining = min(wait, LONGEST_POLL_S)
        while found == NOTHING and remaining > 0 and not bell.closed:
            if not await bell.wait(ticket, remaining):
                break
            ticket = bell.ticket()
            found = await ask(request, routes.DELIVERIES, str(after))
        return _answer(found)

    async def payload(request: Request, crossing: str) -> StreamingResponse:
        plain = await run_in_threadpool(keeper.payload, web.bearer(request), _crossing(crossing))
        return StreamingResponse(
            _pieces(plain),
            media_type="application/octet-stream",
            headers={"content-length": str(len(plain))},
        )

    async def delivered(request: Request, crossing: str) -> Response:
        return _answer(await ask(request, routes.DELIVERED, _crossing(crossing)))

    async def candidates(request: Request) -> Response:
        header, data = await _candidate(request)
        return web.answer(await run_in_threadpool(keeper.submit, web.bearer(request), header, data))

    async def entries(request: Request, log: str, start: int = 0) -> Response:
        return _answer(await ask(request, routes.ENTRIES, log, str(start)))

    route("GET /v1/health", health)
    route(routes.DELIVERIES, deliveries)
    route(routes.PAYLOAD, payload)
    route(routes.DELIVERED, delivered)
    route(routes.CANDIDATES, candidates)
    route(routes.ENTRIES, entries)
    for name in ROUTES:
        if name not in OWN:
            asks(name)
    return app


def _answer(body: bytes) -> Response:
    """Return what the keeper answered, as it is."""
    return Response(body, media_type="application/json")


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
    if header.size > routes.MAX_CANDIDATE:
        raise Refusal(Code.TOO_LARGE, f"A candidate has at most {routes.MAX_CANDIDATE} bytes.")
    return header, start


async def _pieces(plain: bytearray) -> AsyncIterator[bytes]:
    """Yield in pieces; a plain iterator would hop to a thread for each."""
    view = memoryview(plain)
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])


def _crossing(text: str) -> CrossingId:
    try:
        return CrossingId(text)
    except ValueError as error:
        raise Refusal(Code.NOT_FOUND, "This is not a crossing's id.") from error

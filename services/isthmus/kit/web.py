"""The web shell that every service shares: error answers, bearer tokens, body limits.

One table turns a code into an HTTP status. An unexpected exception becomes a `fault` with no text of its own: what
went wrong is in the log at home.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.inside import Problem
from isthmus.contracts.wire import Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from isthmus.kit.bell import Bell

STATUS: dict[Code, int] = {
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.POLICY_DENIED: 403,
    Code.PERMIT_MISSING: 403,
    Code.GROUP_NOT_IN_ORDER: 403,
    Code.ACCELERATOR_NOT_PERMITTED: 403,
    Code.APPROVAL_INVALID: 403,
    Code.NOT_FOUND: 404,
    Code.ORDER_UNKNOWN: 404,
    Code.DATASET_UNKNOWN: 404,
    Code.ALREADY_EXISTS: 409,
    Code.STATE_CONFLICT: 409,
    Code.CONFLICTING_PAYLOAD: 409,
    Code.HEAD_BEHIND: 409,
    Code.LINK_HALTED: 409,
    Code.TOO_LARGE: 413,
    Code.QUOTA_EXCEEDED: 429,
}
"""HTTP status of a code that is not a plain 422 (refused) or 503 (the machine said no)."""

HEALTH = "/v1/health"
MAX_BODY = 1 << 20

Model = TypeVar("Model", bound=Wire)

log = structlog.get_logger(__name__)


def status_of(error: IsthmusError) -> int:
    """Return the HTTP status for `error`."""
    return STATUS.get(error.code, 503 if isinstance(error, Fault) else 422)


def answer(model: Wire, status: int = 200) -> Response:
    """Return `model` as canonical JSON."""
    return Response(canonical.dump(model), status, media_type="application/json")


def problem(error: IsthmusError) -> Response:
    """Return the answer that tells a caller inside the site about `error`."""
    return answer(Problem(code=error.code, what=error.what, why=error.why, remedy=error.remedy), status_of(error))


async def body(request: Request, limit: int = MAX_BODY) -> bytes:
    """Read the whole body, at most `limit` bytes.

    Raises:
        Refusal: it is larger.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise Refusal(Code.TOO_LARGE, f"The body is larger than {limit} bytes.")
    return bytes(data)


async def parsed(request: Request, model: type[Model], limit: int = MAX_BODY) -> Model:
    """Read the body as canonical JSON of `model`."""
    return canonical.load(model, await body(request, limit), limit=limit)


def bearer(request: Request) -> str:
    """Return the bearer token of the request, empty where there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def make_app(
    *,
    title: str,
    version: str,
    description: str,
    bell: Bell | None = None,
    on_stop: Callable[[], None] | None = None,
    described: bool = True,
) -> FastAPI:
    """Return an app that answers every error as a `Problem`, and ends its long polls when it stops.

    Where it is `described`, it serves its description to whoever asks, without a token.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if bell:
            bell.close()
        if on_stop:
            on_stop()

    app = FastAPI(
        title=title,
        version=version,
        description=description,
        lifespan=lifespan,
        openapi_url="/openapi.json" if described else None,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(IsthmusError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unknown)
    return app


async def _on_known(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, IsthmusError) else Fault(Code.COMPUTE_FAILED, "An unexpected failure.")
    if not _is_probe(request):
        log.info("refused", path=request.url.path, code=known.code.value)
    return problem(known)


def _is_probe(request: Request) -> bool:
    """Tell whether somebody only looks if the service answers. Whoever shows a token wants more, and is logged."""
    return request.url.path == HEALTH and "authorization" not in request.headers


async def _on_invalid(_: Request, error: Exception) -> Response:
    """Name the field, never its value: a value may be personal or hostile."""
    first: dict[str, Any] = next(iter(error.errors()), {}) if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    return problem(
        Refusal(Code.INPUT_INVALID, f"The request is not valid at `{where}`.", why=str(first.get("type", "")))
    )


async def _on_http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    refusal = Refusal(
        Code.NOT_FOUND if status == STATUS[Code.NOT_FOUND] else Code.INPUT_INVALID, "There is no such route or method."
    )
    return answer(Problem(code=refusal.code, what=refusal.what), status)


async def _on_unknown(request: Request, error: Exception) -> Response:
    log.error("unexpected", path=request.url.path, error=type(error).__name__, exc_info=error)
    return answer(Problem(code=Code.COMPUTE_FAILED, what="The service failed.", remedy="See its log."), 500)

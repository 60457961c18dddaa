"""The routes of questions. Who may call them stands in `people.ROUTES`; the work is done in `queries`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.security import HTTPBearer

from isthmus.contracts.answers import Explanation, QueryList, QueryRequest, QueryView
from isthmus.contracts.inside import Problem
from isthmus.coordinator.requests import LIMIT, Key, Wait, described_body, job_of
from isthmus.kit import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.coordinator.queries import Queries

BEARER = HTTPBearer(scheme_name="token", description="A person's own token.", auto_error=False)
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "The key stands for another job."}}


def add_routes(
    app: FastAPI, queries: Queries, admit: Callable[[Request], None], errors: dict[int | str, dict[str, Any]]
) -> None:
    """Add the routes of questions to `app`."""
    work = asyncio.to_thread
    body = described_body(QueryRequest)
    options: dict[str, Any] = {
        "dependencies": [Security(BEARER), Depends(admit)],
        "responses": errors,
        "tags": ["questions"],
    }
    created: dict[str, Any] = {**options, "responses": {**errors, **CONFLICT}}

    @app.post(
        "/v1/queries", status_code=201, response_model=QueryView, summary="Ask a question",
        openapi_extra=body, **created,
    )  # fmt: skip
    async def ask(request: Request, idempotency_key: Key = None) -> Response:
        """Record a question and return it. With an `Idempotency-Key`, the same again is the same question."""
        text = await web.body(request, LIMIT)
        return web.answer(await work(queries.ask, request.state.caller, text, idempotency_key), 201)

    @app.post(
        "/v1/queries/explain", response_model=Explanation, summary="See what a question would cost and bring",
        openapi_extra=body, **options,
    )  # fmt: skip
    async def explain(request: Request) -> Response:
        """Check a question and say what it would cost. No zone is asked; no budget is touched."""
        return web.answer(await work(queries.explain, await web.body(request, LIMIT)))

    @app.get("/v1/queries", response_model=QueryList, summary="List questions, newest first", **options)
    async def list_queries() -> Response:
        return web.answer(QueryList(items=await work(queries.list)))

    @app.get("/v1/queries/{job_id}", response_model=QueryView, summary="Show a question and its answers", **options)
    async def show_query(job_id: str, wait: Wait = 0) -> Response:
        """Return a question; with `wait`, as soon as it is over, or when the wait is."""
        return web.answer(await queries.watch(job_of(job_id), wait))

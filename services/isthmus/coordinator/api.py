"""The jobs API: what an engineer asks for and sees. All of it has crossed or never left.

Every route is in `people.ROUTES`; every error is a `Problem`. A long poll is woken by the event it waits for.
"""

from __future__ import annotations

import asyncio
import secrets
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.security import HTTPBearer

from isthmus.contracts.answers import QueryRequest
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, JobId
from isthmus.contracts.inside import Problem
from isthmus.contracts.jobs import (
    JobEvents,
    JobList,
    JobRequest,
    JobResults,
    JobState,
    JobView,
    ModelList,
    ModelRecord,
)
from isthmus.contracts.wire import Wire
from isthmus.coordinator.people import Caller, admit
from isthmus.coordinator.plans import make_orders
from isthmus.coordinator.queries_api import add_routes
from isthmus.coordinator.requests import LIMIT, SCHEMAS, Key, Wait, described_body, job_of, read_request
from isthmus.kit import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.contracts.identifiers import Name, PersonId, SiteId
    from isthmus.coordinator.people import Credential
    from isthmus.coordinator.plans import Recipe
    from isthmus.coordinator.queries import Queries
    from isthmus.coordinator.registry import Registry
    from isthmus.coordinator.store import Store
    from isthmus.kit.bell import Bell
    from isthmus.kit.clock import Clock

DESCRIPTION = """Submit training jobs over data that stays in its zone, watch them, fetch models and results.
Ask questions of all zones at once.

Send your own token as `Authorization: Bearer <token>`. Every error is a `Problem` with a stable code.
"""
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No token, or an unknown one."},
    403: {"model": Problem, "description": "The role does not allow it."},
    404: {"model": Problem, "description": "There is no such thing."},
    422: {"model": Problem, "description": "The request is not valid; the place is named."},
    503: {"model": Problem, "description": "The machine could not do it; trying again may help."},
}
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "The key stands for another job."}}
REQUEST_BODY = described_body(JobRequest)
BEARER = HTTPBearer(scheme_name="token", description="A person's own token.", auto_error=False)
"""Describes how a caller shows who they are; `people.admit` alone decides."""
WEIGHTS = {200: {"content": {"application/vnd.safetensors": {"schema": {"type": "string", "format": "binary"}}}}}


class Health(Wire):
    """Says that the service answers; nothing of any job."""

    service: str
    version: str


After = Annotated[int, Query(ge=0, description="Ordinal of the last event that is known.")]


class JobsApi:
    """The routes' work, over a store and a registry."""

    def __init__(
        self,
        *,
        site: SiteId,
        store: Store,
        registry: Registry,
        recipes: dict[Name, Recipe],
        people: Mapping[PersonId, Credential],
        bell: Bell,
        clock: Clock,
    ) -> None:
        self._site = site
        self._store = store
        self._registry = registry
        self._recipes = recipes
        self._people = people
        self._bell = bell
        self._clock = clock

    def admit(self, request: Request) -> None:
        """Note who calls, or refuse (see `people.admit`)."""
        route = request.scope["route"].path
        request.state.caller = admit(request.method, route, web.bearer(request), self._people)

    def submit(self, caller: Caller, text: bytes, key: str | None) -> JobView:
        """Record a job; the runner takes it from there."""
        request = read_request(text)
        if request.base and not self._registry.holds(self._store.model(request.base).digest):
            raise Refusal(Code.NOT_FOUND, "The registry no longer holds the model that the job starts from.")
        job = JobId(f"job-{secrets.token_hex(8)}")
        orders = make_orders(request, self._recipes, job=job, issuer=self._site, now=self._clock.now())
        body = Digest.of(text)
        return self._store.job(
            self._store.create(job=job, person=caller.person, request=request, orders=orders, key=key, body=body)
        )

    async def events(self, job: JobId, after: int, wait_s: float) -> JobEvents:
        """Return what happened after `after`; wait for it where the job goes on."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            ticket = self._bell.ticket()
            view = await asyncio.to_thread(self._store.job, job)
            items = await asyncio.to_thread(self._store.events, job, after)
            left = end - loop.time()
            if items or view.state is not JobState.RUNNING or left <= 0 or self._bell.closed:
                return JobEvents(items=items)
            await self._bell.wait(ticket, left)

    def results(self, job: JobId) -> JobResults:
        """Return a job's models and evaluations."""
        self._store.job(job)
        return self._store.results(job)

    def content(self, digest: Digest) -> bytes:
        """Return a model's bytes, verified."""
        return self._registry.read(self._store.model(digest).digest)

    def routes(self, app: FastAPI) -> None:
        """Add the routes to `app`."""
        store, work = self._store, asyncio.to_thread
        options: dict[str, Any] = {"responses": ERRORS, "dependencies": [Security(BEARER), Depends(self.admit)]}
        jobs: dict[str, Any] = {**options, "tags": ["jobs"]}
        models: dict[str, Any] = {**options, "tags": ["models"]}
        weights: dict[str, Any] = {**models, "responses": {**ERRORS, **WEIGHTS}}
        created: dict[str, Any] = {**jobs, "responses": {**ERRORS, **CONFLICT}}

        @app.post(
            "/v1/jobs", status_code=201, response_model=JobView, summary="Submit a job",
            openapi_extra=REQUEST_BODY, **created,
        )  # fmt: skip
        async def submit(request: Request, idempotency_key: Key = None) -> Response:
            """Record a job and return it. With an `Idempotency-Key`, the same request again returns the same job."""
            text = await web.body(request, LIMIT)
            return web.answer(await work(self.submit, request.state.caller, text, idempotency_key), 201)

        @app.get("/v1/jobs", response_model=JobList, summary="List jobs, newest first", **jobs)
        async def list_jobs() -> Response:
            return web.answer(JobList(items=await work(store.jobs)))

        @app.get("/v1/jobs/{job_id}", response_model=JobView, summary="Show a job", **jobs)
        async def show_job(job_id: str) -> Response:
            return web.answer(await work(store.job, job_of(job_id)))

        @app.get("/v1/jobs/{job_id}/events", response_model=JobEvents, summary="Watch a job", **jobs)
        async def job_events(job_id: str, after: After = 0, wait: Wait = 0) -> Response:
            """Return a job's events after an ordinal, as soon as there are any; empty when the wait is over."""
            return web.answer(await self.events(job_of(job_id), after, wait))

        @app.get("/v1/jobs/{job_id}/results", response_model=JobResults, summary="What a job has brought", **jobs)
        async def job_results(job_id: str) -> Response:
            """Return a job's models with their lineage, and the evaluations that crossed, as they crossed: banded."""
            return web.answer(await work(self.results, job_of(job_id)))

        @app.get("/v1/models", response_model=ModelList, summary="List models, newest first", **models)
        async def list_models() -> Response:
            return web.answer(ModelList(items=await work(store.models)))

        @app.get("/v1/models/{digest}", response_model=ModelRecord, summary="Show a model's lineage", **models)
        async def show_model(digest: str) -> Response:
            return web.answer(await work(store.model, _digest(digest)))

        @app.get(
            "/v1/models/{digest}/content", response_class=Response, summary="Fetch a model (safetensors)", **weights,
        )  # fmt: skip
        async def model_content(digest: str) -> Response:
            """Return a model's file, hashed again before it is handed out."""
            return Response(await work(self.content, _digest(digest)), media_type="application/vnd.safetensors")

        @app.get("/v1/health", response_model=Health, summary="See whether the service answers", tags=["service"])
        async def health() -> Response:
            return web.answer(Health(service="coordinator", version=metadata.version("isthmus")))


def make_api(jobs: JobsApi, queries: Queries, *, bell: Bell) -> FastAPI:
    """Return the app that serves `jobs` and `queries`."""
    app = web.make_app(title="Isthmus jobs", version=metadata.version("isthmus"), description=DESCRIPTION, bell=bell)
    jobs.routes(app)
    add_routes(app, queries, jobs.admit, ERRORS)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        """Describe the requests too, which are read by hand to be strict."""
        if app.openapi_schema is None:
            known = described()["components"]["schemas"]
            for model in (JobRequest, QueryRequest):
                schema = model.model_json_schema(ref_template=SCHEMAS)
                for name, part in {**schema.pop("$defs", {}), model.__name__: schema}.items():
                    known.setdefault(name, part)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend a description
    return app


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except ValueError:
        raise Refusal(Code.NOT_FOUND, "There is no such model.", why="This is not a digest.") from None

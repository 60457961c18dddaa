"""The jobs API of a coordinator, as an engineer's program calls it."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from isthmus.client.problems import error_of, reaching, read
from isthmus.contracts.answers import Explanation, QueryList, QueryView
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.jobs import (
    JobEvent,
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
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx2

    from isthmus.contracts.answers import QueryItem, QueryRequest
    from isthmus.contracts.identifiers import JobId

Answer = TypeVar("Answer")
Model = TypeVar("Model", bound=Wire)

WAIT_S = 25.0
LOOK_S = 3.0
"""The first wait for answers: soon after, a zone that holds its answer for officers shows."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
PATIENCE_S = 60.0
"""How long a watch waits for a coordinator that does not answer: long enough for one that is started again."""
_SERVICE = "The coordinator"


class JobsClient:
    """Calls a coordinator with the token of one person.

    Args:
        http: where the coordinator is.
        token: the person's.
        pause: how a watch waits, in seconds, before it asks again.
        now: a clock in seconds that never runs backwards, by which a watch's patience ends.

    Raises (every method):
        Refusal: the coordinator said no, with its code.
        Fault: it does not answer, or could not do it.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        token: str,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {token}"}
        self._pause = pause
        self._now = now

    async def submit(self, request: JobRequest, key: str | None = None) -> JobView:
        """Submit a job. With a `key`, sending the same again returns the same job."""
        return await self._post(JobView, "/v1/jobs", request, key)

    async def ask(self, request: QueryRequest, key: str | None = None) -> QueryView:
        """Ask a question. With a `key`, sending the same again returns the same question."""
        return await self._post(QueryView, "/v1/queries", request, key)

    async def explain(self, request: QueryRequest) -> Explanation:
        """Return what a question would cost and bring. No zone is asked; no budget is touched."""
        return await self._post(Explanation, "/v1/queries/explain", request)

    async def queries(self) -> tuple[QueryItem, ...]:
        """Return all questions, newest first."""
        return (await self._get(QueryList, "/v1/queries")).items

    async def query(self, job: JobId, wait_s: float = 0.0) -> QueryView:
        """Return a question and what it has brought; wait up to `wait_s` (at most 25) for its end."""
        return await self._get(QueryView, f"/v1/queries/{job}", {"wait": str(wait_s)}, limit_s=wait_s + 30)

    async def answered(self, job: JobId, seen: Callable[[QueryView], object] | None = None) -> QueryView:
        """Return a question when every zone has answered or will not. A coordinator that goes away is waited for.

        Args:
            job: the question.
            seen: called with where it stands, again and again until then.
        """
        wait_s = LOOK_S
        while True:
            view = await self._patiently(partial(self.query, job, wait_s))
            if view.state is not JobState.RUNNING:
                return view
            if seen is not None:
                seen(view)
            wait_s = WAIT_S

    async def jobs(self) -> tuple[JobView, ...]:
        """Return all jobs, newest first."""
        return (await self._get(JobList, "/v1/jobs")).items

    async def job(self, job: JobId) -> JobView:
        """Return a job."""
        return await self._get(JobView, f"/v1/jobs/{job}")

    async def events(self, job: JobId, after: int = 0, wait_s: float = 0.0) -> tuple[JobEvent, ...]:
        """Return a job's events after ordinal `after`; wait up to `wait_s` (at most 25) for one."""
        query = {"after": str(after), "wait": str(wait_s)}
        return (await self._get(JobEvents, f"/v1/jobs/{job}/events", query, limit_s=wait_s + 30)).items

    async def watch(self, job: JobId, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield a job's events as they happen, each once, until it is done or failed.

        A coordinator that goes away is asked again for what came after the last event, until it has not answered for
        `PATIENCE_S` seconds.
        """
        while True:
            items = await self._patiently(partial(self.events, job, after, WAIT_S))
            for event in items:
                after = event.ordinal
                yield event
                if event.event in {"done", "failed"}:
                    return
            if not items and (await self._patiently(partial(self.job, job))).state is not JobState.RUNNING:
                return  # watched from after its end

    async def results(self, job: JobId) -> JobResults:
        """Return what a job has brought."""
        return await self._get(JobResults, f"/v1/jobs/{job}/results")

    async def models(self) -> tuple[ModelRecord, ...]:
        """Return all models, newest first."""
        return (await self._get(ModelList, "/v1/models")).items

    async def model(self, digest: Digest) -> ModelRecord:
        """Return a model's record."""
        return await self._get(ModelRecord, f"/v1/models/{digest}")

    async def model_content(self, digest: Digest) -> bytes:
        """Return a model's bytes (safetensors), checked against its digest."""
        with reaching(_SERVICE):
            response = await self._http.get(f"/v1/models/{digest}/content", headers=self._headers, timeout=120)
        if response.is_error:
            raise error_of(response.status_code, response.content)
        if Digest.of(response.content) != digest:
            raise Fault(Code.PAYLOAD_ALTERED, "The model that came is not the model that was asked for.")
        return response.content

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer to `ask`; where nothing answers, ask again for a while. A refusal is an answer."""
        pause, silent_since = FIRST_PAUSE_S, None
        while True:
            try:
                return await ask()
            except Fault as fault:
                silent_since = self._now() if silent_since is None else silent_since
                left = silent_since + PATIENCE_S - self._now()
                if fault.code is not Code.PEER_UNREACHABLE or left <= 0:
                    raise
                await self._pause(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _post(self, model: type[Model], path: str, body: Wire, key: str | None = None) -> Model:
        headers = {**self._headers, "content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        with reaching(_SERVICE):
            response = await self._http.post(path, content=canonical.dump(body), headers=headers)
        return read(model, response)

    async def _get(
        self, model: type[Model], path: str, query: dict[str, str] | None = None, *, limit_s: float = 30
    ) -> Model:
        with reaching(_SERVICE):
            response = await self._http.get(path, params=query, headers=self._headers, timeout=limit_s)
        return read(model, response)

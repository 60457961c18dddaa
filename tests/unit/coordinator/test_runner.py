"""The runner where nothing answers. With borders that do, it is driven in the world tests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import httpx2
import pytest

from isthmus.client.border import BorderClient
from isthmus.contracts.errors import Code
from isthmus.contracts.jobs import JobState
from isthmus.coordinator.job_run import SKEW_S
from isthmus.coordinator.plans import default_recipes
from isthmus.coordinator.registry import Registry
from isthmus.coordinator.runner import Runner
from isthmus.coordinator.store import Store
from isthmus.kit.bell import Bell
from isthmus.kit.clock import ManualClock
from unit.coordinator.jobs import HQ, JOB, NOW, create

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

VALID_S = 86_400


class Silence(httpx2.AsyncBaseTransport):
    """No border stands at the other end. Counts who tried."""

    def __init__(self, enough: int) -> None:
        self.tried: list[str] = []
        self.enough = asyncio.Event()
        self._enough = enough

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.tried.append(request.url.path)
        if self.tried.count("/v1/candidates") >= self._enough:
            self.enough.set()
        raise httpx2.ConnectError("nobody listens", request=request)


@contextlib.asynccontextmanager
async def running(store: Store, folder: Path, silence: Silence, clock: ManualClock, bell: Bell) -> AsyncIterator[None]:
    async with httpx2.AsyncClient(transport=silence, base_url="http://border") as http:
        runner = Runner(
            site=HQ,
            border=BorderClient(http, "token"),
            store=store,
            registry=Registry(folder / "models"),
            recipes=default_recipes(),
            bell=bell,
            clock=clock,
        )
        task = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


def test_a_job_outlives_a_border_that_is_away(tmp_path: Path) -> None:
    async def test() -> None:
        bell, clock, silence = Bell(), ManualClock(NOW), Silence(4)
        store = Store(tmp_path / "coordinator.db", bell=bell, clock=clock)
        create(store)
        async with running(store, tmp_path, silence, clock, bell):
            async with asyncio.timeout(20):
                await silence.enough.wait()
        assert store.job(JOB).state is JobState.RUNNING
        assert not any(work.ordered for work in store.progress(JOB).zones)
        assert store.progress(JOB).slot == 0  # the first model needs no border
        assert len(silence.tried) < 50  # it pauses between attempts

    asyncio.run(test())


def test_a_job_whose_orders_have_expired_fails_even_so(tmp_path: Path) -> None:
    async def test() -> None:
        bell, clock = Bell(), ManualClock(NOW)
        store = Store(tmp_path / "coordinator.db", bell=bell, clock=clock)
        create(store)
        clock.advance(VALID_S + SKEW_S + 1)
        async with running(store, tmp_path, Silence(1), clock, bell), asyncio.timeout(20):
            while store.job(JOB).state is JobState.RUNNING:
                await bell.wait(bell.ticket(), 1)
        view = store.job(JOB)
        assert (view.state, view.code) == (JobState.FAILED, Code.EXPIRED)

    asyncio.run(test())

"""Small jobs on a stack whose drives are ingested: submitted over the published API, signed for, and watched."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

import httpx2

from e2e.compose.stack import ZONES, docker, until
from isthmus.cli import defaults
from isthmus.client.jobs import JobsClient
from isthmus.contracts.errors import Fault
from isthmus.contracts.identifiers import JobId, SiteId
from isthmus.contracts.jobs import JobState, JobView

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from e2e.compose.stack import Stack

Answer = TypeVar("Answer")
TOKEN = "/home/isthmus/people/maya.engineer/token"  # noqa: S105 - where it is
ATTEND = "while :; do python -m isthmus.cli.demo.officers /home/isthmus $0; sleep 1; done"


class Engineer:
    """An API client on this host, with the engineer's token."""

    def __init__(self, stack: Stack) -> None:
        self._url = f"http://127.0.0.1:{stack.api_port}"
        entry = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "cat", "demo", TOKEN)
        self._token = stack.compose(*entry).stdout.strip()

    def ask(self, call: Callable[[JobsClient], Awaitable[Answer]]) -> Answer:
        async def asked() -> Answer:
            async with httpx2.AsyncClient(base_url=self._url, timeout=30, trust_env=False) as http:
                return await call(JobsClient(http, self._token))

        return asyncio.run(asked())

    def job(self, name: JobId) -> JobView | None:
        """Return a job, None while the coordinator is away."""
        try:
            return self.ask(lambda jobs: jobs.job(name))
        except Fault:
            return None


@contextlib.contextmanager
def job(stack: Stack, engineer: Engineer, rounds: int) -> Iterator[JobId]:
    """Submit the demo's job over some rounds, let the officers of both zones attend to it, and yield its id."""
    wanted = defaults.training_job(SiteId("hq"), [SiteId(zone) for zone in ZONES.values()], rounds=rounds)
    name = engineer.ask(lambda jobs: jobs.submit(wanted)).id
    attending = []
    try:
        for zone in ZONES:
            entry = ("run", "--detach", "--no-deps", "--entrypoint", "sh", f"{zone}-officers", "-c", ATTEND, name)
            attending.append(stack.compose(*entry).stdout.strip().splitlines()[-1])
        yield name
    finally:
        for container in attending:
            docker("rm", "--force", container, check=False)


def rounds_done(engineer: Engineer, name: JobId, within_s: float = 120) -> int:
    """Return how many rounds of a job are done, waiting for a coordinator that is away.

    Raises:
        AssertionError: the job failed.
    """
    view: JobView = until(lambda: engineer.job(name), f"the coordinator tells of {name}", within_s)
    assert view.state is not JobState.FAILED, view
    return view.rounds_done


def at_round(engineer: Engineer, name: JobId, rounds: int, within_s: float = 300) -> None:
    """Wait until so many rounds of a job are done."""
    until(lambda: rounds_done(engineer, name) >= rounds, f"{rounds} rounds of {name}", within_s)


def done(engineer: Engineer, name: JobId, within_s: float = 600) -> JobView:
    """Wait until a job is done, and return it.

    Raises:
        AssertionError: it failed, or took too long.
    """

    def over() -> JobView | None:
        view = engineer.job(name)
        return view if view is not None and view.state is not JobState.RUNNING else None

    view: JobView = until(over, f"the end of {name}", within_s)
    assert view.state is JobState.DONE, view
    return view


def crossed_bytes(stack: Stack, gate: str) -> int:
    """Return how many bytes a gate has sent and received in all its networks."""
    told = docker("exec", stack.container(gate), "cat", "/proc/net/dev").stdout
    rows = [line.split(":")[1].split() for line in told.splitlines()[2:] if not line.strip().startswith("lo:")]
    return sum(int(row[0]) + int(row[8]) for row in rows)

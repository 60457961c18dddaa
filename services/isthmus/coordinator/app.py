"""The coordinator, put together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from isthmus.client.border import BorderClient
from isthmus.client.bulk import ThreadedBulk
from isthmus.coordinator.api import JobsApi, make_api
from isthmus.coordinator.people import read_people
from isthmus.coordinator.plans import default_recipes
from isthmus.coordinator.queries import Queries
from isthmus.coordinator.registry import Registry
from isthmus.coordinator.runner import Runner
from isthmus.coordinator.store import Store
from isthmus.kit.bell import Bell
from isthmus.kit.clock import SystemClock
from isthmus.kit.serving import Address, serve
from isthmus.kit.tokens import read_token

if TYPE_CHECKING:
    from fastapi import FastAPI

    from isthmus.contracts.identifiers import Name
    from isthmus.coordinator.plans import Recipe
    from isthmus.coordinator.settings import CoordinatorSettings
    from isthmus.kit.clock import Clock

BORDER_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator's parts: its API, its runner, and what both share."""

    app: FastAPI
    runner: Runner
    store: Store
    registry: Registry
    bell: Bell


def assemble(
    settings: CoordinatorSettings, border: BorderClient, clock: Clock, recipes: dict[Name, Recipe] | None = None
) -> Coordinator:
    """Put a coordinator together behind its own border.

    Args:
        settings: where things are.
        border: the own border's inside face, as submitter.
        clock: tells the time.
        recipes: algorithms that jobs may name; those of this release where None.
    """
    known = recipes if recipes is not None else default_recipes()
    bell = Bell()
    store = Store(settings.database, bell=bell, clock=clock)
    registry = Registry(settings.registry)
    people = read_people(settings.people, frozenset(settings.officers))
    jobs = JobsApi(
        site=settings.site, store=store, registry=registry, recipes=known, people=people, bell=bell, clock=clock
    )
    queries = Queries(
        site=settings.site,
        store=store,
        recipes=known,
        budgets=settings.budgets,
        minimum_slots=settings.minimum_slots,
        bell=bell,
        clock=clock,
    )
    runner = Runner(
        site=settings.site, border=border, store=store, registry=registry, recipes=known, bell=bell, clock=clock
    )
    return Coordinator(make_api(jobs, queries, bell=bell), runner, store, registry, bell)


def build(settings: CoordinatorSettings, border: BorderClient, clock: Clock) -> tuple[FastAPI, Runner]:
    """Return a coordinator's app and runner (see `assemble`)."""
    coordinator = assemble(settings, border, clock)
    return coordinator.app, coordinator.runner


async def run(settings: CoordinatorSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, or until the runner or the server fails."""
    address = Address(settings.listen_host, settings.listen_port)
    async with httpx2.AsyncClient(base_url=settings.border_url, timeout=BORDER_TIMEOUT_S, trust_env=False) as http:
        border = BorderClient(http, read_token(settings.border_token), ThreadedBulk(settings.border_url))
        coordinator = assemble(settings, border, SystemClock())
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(coordinator.runner.run())
                await serve(coordinator.app, address, stop, before_stop=coordinator.bell.close)
                running.cancel()
        finally:
            coordinator.store.close()

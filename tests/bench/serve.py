"""Serve one process of a bench federation: `serve.py border|keeper|gate|zone|coordinator <site home>`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.recipe import IdleCompute, name_of, recipe_of
from isthmus.border import app as border_app
from isthmus.border import gate_app, keeper_app
from isthmus.border.settings import BorderSettings
from isthmus.client.border import BorderClient
from isthmus.client.bulk import ThreadedBulk
from isthmus.coordinator.app import assemble
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit import journal, looping
from isthmus.kit.clock import SystemClock
from isthmus.kit.serving import Address, serve
from isthmus.kit.tokens import read_token
from isthmus.zone import app as zone_app
from isthmus.zone.settings import ZoneSettings

SIZES = (30_000, 1_000_000, 10_000_000)


async def main(part: str, home: Path) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    if part == "border":
        await border_app.run(BorderSettings.load(home), stop)
    elif part == "keeper":
        await keeper_app.run(BorderSettings.load(home), stop)
    elif part == "gate":
        await gate_app.run(BorderSettings.load(home), stop)
    elif part == "zone":
        await zone_app.run(ZoneSettings.load(home), stop, IdleCompute())
    else:
        await coordinate(CoordinatorSettings.load(home), stop)


async def coordinate(settings: CoordinatorSettings, stop: asyncio.Event) -> None:
    recipes = {name_of(size): recipe_of(size) for size in SIZES}
    async with httpx2.AsyncClient(base_url=settings.border_url, timeout=120, trust_env=False) as http:
        border = BorderClient(http, read_token(settings.border_token), ThreadedBulk(settings.border_url))
        coordinator = assemble(settings, border, SystemClock(), recipes)
        running = asyncio.create_task(coordinator.runner.run())
        address = Address(settings.listen_host, settings.listen_port)
        await serve(coordinator.app, address, stop, before_stop=coordinator.bell.close)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        coordinator.store.close()


if __name__ == "__main__":
    journal.configure(f"{sys.argv[1]} {os.getpid()}")
    looping.run(main(sys.argv[1], Path(sys.argv[2])))

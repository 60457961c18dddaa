"""Serve what stands behind a border, for the tiny algorithm: `serve_tiny.py zone|coordinator <folder>`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))
from isthmus.client.border import BorderClient
from isthmus.coordinator.app import assemble
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit import journal
from isthmus.kit.clock import SystemClock
from isthmus.kit.serving import Address, serve
from isthmus.kit.tokens import read_token
from isthmus.zone import app as zone_app
from isthmus.zone.settings import ZoneSettings
from world import tiny


async def main(part: str, folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if part == "zone":
        await zone_app.run(ZoneSettings.load(folder), stop, tiny.TinyCompute())
    else:
        await coordinate(CoordinatorSettings.load(folder), stop)


async def coordinate(settings: CoordinatorSettings, stop: asyncio.Event) -> None:
    async with httpx2.AsyncClient(base_url=settings.border_url, timeout=120, trust_env=False) as http:
        border = BorderClient(http, read_token(settings.border_token))
        coordinator = assemble(settings, border, SystemClock(), tiny.RECIPES)
        running = asyncio.create_task(coordinator.runner.run())
        address = Address(settings.listen_host, settings.listen_port)
        await serve(coordinator.app, address, stop, before_stop=coordinator.bell.close)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        coordinator.store.close()


if __name__ == "__main__":
    journal.configure(f"{sys.argv[1]} {os.getpid()}")
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

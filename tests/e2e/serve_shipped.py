"""Serve what stands behind a border, as it is shipped: `serve_shipped.py zone|coordinator <folder>`.

Whoever kills it finds its process id in the last line of `<folder>/<part>.pid`. Each life is forked from a process that
has only imported, so that a new one is there at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from risen import risen

from isthmus.coordinator import app as coordinator_app
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit import journal
from isthmus.zone import app as zone_app
from isthmus.zone.settings import ZoneSettings


async def main(part: str, folder: Path) -> None:
    with (folder / f"{part}.pid").open("a") as file:
        file.write(f"{os.getpid()}\n")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if part == "zone":
        await zone_app.run(ZoneSettings.load(folder), stop)
    else:
        await coordinator_app.run(CoordinatorSettings.load(folder), stop)


if __name__ == "__main__":
    risen()
    journal.configure(f"{sys.argv[1]} {os.getpid()}")
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

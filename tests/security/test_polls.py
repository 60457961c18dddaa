"""A border that stops lets go of the polls that it holds: its peers do not fill the wire with new ones."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from isthmus.border.gate.dialer import LET_GO_PAUSE_S
from security.wiretap import TappedWorld
from world.world import HQ, US, running

if TYPE_CHECKING:
    from pathlib import Path

POLLS = 3
SOON_S = 60


def test_a_border_that_stops_is_not_asked_again_and_again(tmp_path: Path) -> None:
    async def scenario() -> float:
        async with asyncio.timeout(SOON_S), running(TappedWorld(tmp_path / "home"), HQ, US) as world:
            await polled(world, 1)
            world.sites[HQ].border.bell.close()
            await polled(world, 2)
            began = time.monotonic()
            await polled(world, 2 + POLLS)
            return time.monotonic() - began

    assert asyncio.run(scenario()) >= (POLLS - 1) * LET_GO_PAUSE_S


async def polled(world: TappedWorld, times: int) -> None:
    """Wait until a zone has asked for its next crossing so often."""
    while (
        sum(exchange.asked.startswith(b"GET") and b"/next" in exchange.asked for exchange in world.tap.exchanges)
        < times
    ):
        await asyncio.sleep(0.001)

"""Letting answers out at their slots: the one thing in a border that goes by the clock and not by who asks.

It sleeps until the next slot that something waits for, or until sums come in. What the machine does not let out (no
room, no ledger) stays where it is and is tried again once a second; what else is due leaves all the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from isthmus.contracts.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.border.keeper.statistics import StatisticsDesk
    from isthmus.kit.clock import Clock

LONGEST_S = 60.0
AGAIN_S = 1.0

log = structlog.get_logger(__name__)


async def at_slots(statistics: StatisticsDesk, clock: Clock, stop: asyncio.Event) -> None:
    """Let answers out at their slots until `stop` is set."""
    letting_out = asyncio.create_task(_let_out(statistics, clock))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({letting_out, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        statistics.bell.close()
        stopping.cancel()
    await letting_out


async def _let_out(statistics: StatisticsDesk, clock: Clock) -> None:
    while not statistics.bell.closed:
        ticket = statistics.bell.ticket()
        try:
            due = await asyncio.to_thread(statistics.release_due)
        except IsthmusError as error:
            log.warning("answers_wait", code=error.code.value, what=error.what, why=error.why)
            await statistics.bell.wait(ticket, AGAIN_S)
            continue
        wait_s = LONGEST_S if due is None else float(max(1, due - clock.now()))
        await statistics.bell.wait(ticket, min(wait_s, LONGEST_S))

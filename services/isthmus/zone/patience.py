"""Waiting for a border that is away: ask again after a pause that grows to 5 s, and go on as soon as it answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Answer = TypeVar("Answer")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
FAULTS_BORNE = 6
"""How often a border that answers may fail at one thing before it is taken at its word."""

log = structlog.get_logger(__name__)


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer to `ask`, made again and again while the border is away.

    Raises:
        Refusal: the border said no.
        Fault: it answers, and failed at this too often.
    """
    pause, faults = FIRST_PAUSE_S, 0
    while True:
        try:
            return await ask()
        except Fault as fault:
            faults += fault.code is not Code.PEER_UNREACHABLE
            if faults > FAULTS_BORNE:
                raise
            log.warning("border_away", code=fault.code.value, pause_s=pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)

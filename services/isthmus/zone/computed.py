"""Calls of compute from the worker's loop: each in a thread, and whatever goes wrong there is one order's failure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from isthmus.contracts.errors import Code, Fault, IsthmusError

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


async def computed(work: Callable[..., Answer], *arguments: object) -> Answer:
    """Run one call of compute in a thread; whatever goes wrong there is this order's `COMPUTE_FAILED`."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except IsthmusError:
        raise
    except Exception as error:
        log.exception("compute_failed", error=type(error).__name__)
        raise Fault(Code.COMPUTE_FAILED, "Compute failed.", why=type(error).__name__) from error

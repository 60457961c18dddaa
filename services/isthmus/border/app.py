"""The border's composition root: both halves in one process. See `keeper_app` and `gate_app` for two."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border.gate_app import build_gate, serve_faces
from isthmus.border.keeper.desk import unobserved
from isthmus.border.keeper_app import build_keeper
from isthmus.border.settings import load_genesis
from isthmus.border.slots import at_slots
from isthmus.kit.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from isthmus.border.gate_app import Gate
    from isthmus.border.halves import KeeperHalf
    from isthmus.border.keeper.desk import Move
    from isthmus.border.keeper.keeper import Keeper
    from isthmus.border.keeper.ledger import LedgerStore
    from isthmus.border.settings import BorderSettings
    from isthmus.kit.bell import Bell
    from isthmus.kit.clock import Clock

__all__ = ["Border", "build", "load_genesis", "run"]


@dataclass(frozen=True, slots=True)
class Border:
    """One border, put together but not yet listening.

    Attributes:
        keeper: the keeper itself.
        gate: the faces, and the keeper as they reach it.
        store: the keeper's ledger; to be closed in the end.
    """

    keeper: Keeper
    gate: Gate
    store: LedgerStore

    @property
    def half(self) -> KeeperHalf:
        """The keeper as the gate reaches it."""
        return self.gate.keeper

    @property
    def bell(self) -> Bell:
        """Rung whenever something has changed."""
        return self.gate.bell

    @property
    def inside(self) -> FastAPI:
        """The inside face."""
        return self.gate.inside

    @property
    def outside(self) -> FastAPI:
        """The link's server side."""
        return self.gate.outside


def build(settings: BorderSettings, clock: Clock | None = None, observe: Callable[[Move], None] = unobserved) -> Border:
    """Put a border together from its home directory.

    Raises:
        Fault: keys, genesis, policy or tokens are missing or do not fit each other: named.
    """
    kept = build_keeper(settings, clock, observe)
    gate = build_gate(kept.half, load_genesis(settings.home).roster, kept.bell)
    return Border(kept.keeper, gate, kept.store)


async def run(settings: BorderSettings, stop: asyncio.Event, observe: Callable[[Move], None] = unobserved) -> None:
    """Run a border until `stop` is set."""
    border = build(settings, observe=observe)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_faces(border.gate, settings, stop))
        group.create_task(at_slots(border.keeper.statistics, SystemClock(), stop))
    border.store.close()

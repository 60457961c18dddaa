"""The keeper's composition root: keys, ledger, policy and tokens in, a keeper out.

It has no address: the only way to a keeper of its own process is a unix socket, and it needs no network at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border.bridge.server import Bridge
from isthmus.border.keeper.blobs import BlobStore
from isthmus.border.keeper.desk import Desk, unobserved
from isthmus.border.keeper.guarded import GuardedKeeper
from isthmus.border.keeper.keeper import Keeper
from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.border.keeper.ledger import LedgerStore
from isthmus.border.keeper.policy import Policy
from isthmus.border.settings import load_genesis
from isthmus.border.slots import at_slots
from isthmus.contracts.inside import InsideRole
from isthmus.kit.bell import Bell
from isthmus.kit.clock import SystemClock
from isthmus.kit.tokens import read_token

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from isthmus.border.keeper.desk import Move
    from isthmus.border.settings import BorderSettings
    from isthmus.kit.clock import Clock


@dataclass(frozen=True, slots=True)
class Kept:
    """A keeper, and what the gate has of it: `half`."""

    keeper: Keeper
    half: GuardedKeeper
    bell: Bell
    store: LedgerStore


def build_keeper(
    settings: BorderSettings, clock: Clock | None = None, observe: Callable[[Move], None] = unobserved
) -> Kept:
    """Put a keeper together from its home directory.

    Raises:
        Fault: keys, genesis, policy or tokens are missing or do not fit each other: named.
    """
    genesis = load_genesis(settings.home)
    keys = FileKeyStore(settings.home / "keys").load()
    tokens = {role: read_token(settings.home / "tokens" / role.value) for role in InsideRole}
    policy = Policy.load(settings.home / "policy")
    bell = Bell()
    store = LedgerStore(settings.home / "ledger.db")
    keeper = Keeper(
        Desk(
            site=settings.site,
            genesis=genesis,
            keys=keys,
            store=store,
            blobs=BlobStore(settings.home / "blobs"),
            policy=policy,
            clock=clock or SystemClock(),
            bell=bell,
            observe=observe,
        )
    )
    return Kept(keeper, GuardedKeeper(keeper, tokens), bell, store)


async def run(settings: BorderSettings, stop: asyncio.Event, observe: Callable[[Move], None] = unobserved) -> None:
    """Run a keeper for the gate of another process until `stop` is set."""
    kept = build_keeper(settings, observe=observe)
    with Bridge(kept.half, kept.bell, settings.keeper, settings.gate_user):
        await at_slots(kept.keeper.statistics, SystemClock(), stop)
        kept.bell.close()
    kept.store.close()

"""The border's composition root: settings in, a running border out."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx2

from isthmus.border.gate.dialer import Dialer
from isthmus.border.gate.identity import PeerCertificateProtocol, link_context
from isthmus.border.gate.inside import inside_app
from isthmus.border.gate.outside import outside_app
from isthmus.border.keeper.blobs import BlobStore
from isthmus.border.keeper.desk import Desk, unobserved
from isthmus.border.keeper.keeper import Keeper
from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.border.keeper.ledger import LedgerStore
from isthmus.border.keeper.policy import Policy
from isthmus.client.bulk import ThreadedBulk
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.roster import Genesis
from isthmus.kit.bell import Bell
from isthmus.kit.clock import SystemClock
from isthmus.kit.serving import serve
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import FastAPI

    from isthmus.border.keeper.desk import Move
    from isthmus.border.settings import BorderSettings
    from isthmus.contracts.identifiers import SiteId
    from isthmus.kit.clock import Clock

MAX_GENESIS = 1 << 20


@dataclass(frozen=True, slots=True)
class Border:
    """One border, put together but not yet listening."""

    keeper: Keeper
    bell: Bell
    store: LedgerStore
    inside: FastAPI
    outside: FastAPI


def build(settings: BorderSettings, clock: Clock | None = None, observe: Callable[[Move], None] = unobserved) -> Border:
    """Put a border together from its home directory.

    Raises:
        Fault: keys, genesis, policy or tokens are missing or do not fit each other: named.
    """
    genesis = load_genesis(settings.home)
    bell = Bell()
    store = LedgerStore(settings.home / "ledger.db")
    keeper = Keeper(
        Desk(
            site=settings.site,
            genesis=genesis,
            keys=FileKeyStore(settings.home / "keys").load(),
            store=store,
            blobs=BlobStore(settings.home / "blobs"),
            policy=Policy.load(settings.home / "policy"),
            clock=clock or SystemClock(),
            bell=bell,
            observe=observe,
        )
    )
    tokens = {role: read_token(settings.home / "tokens" / role.value) for role in InsideRole}
    release = version("isthmus")
    return Border(
        keeper=keeper,
        bell=bell,
        store=store,
        inside=inside_app(keeper, tokens, bell, release),
        outside=outside_app(keeper, genesis.roster, bell, release),
    )


def load_genesis(home: Path) -> Genesis:
    """Read the genesis that set-up wrote."""
    try:
        return canonical.load(Genesis, (home / "genesis.json").read_bytes(), limit=MAX_GENESIS)
    except OSError as error:
        raise Fault(
            Code.CONFIGURATION,
            f"There is no genesis in {home}.",
            why=error.strerror or "",
            remedy="Run `isthmus setup`.",
        ) from error


async def run(settings: BorderSettings, stop: asyncio.Event, observe: Callable[[Move], None] = unobserved) -> None:
    """Run a border until `stop` is set."""
    border = build(settings, observe=observe)
    keys = settings.home / "keys"
    certificate, key, pinned = keys / "link.pem", keys / "link.key", keys / "pinned.pem"
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(border.inside, settings.inside, stop, before_stop=border.bell.close))
        if settings.outside:
            context = link_context(ssl.Purpose.CLIENT_AUTH, certificate, key, pinned)
            group.create_task(
                serve(
                    border.outside,
                    settings.outside,
                    stop,
                    before_stop=border.bell.close,
                    tls=context,
                    http=PeerCertificateProtocol,
                )
            )
        if settings.dials:
            peer, url = settings.dials
            context = link_context(ssl.Purpose.SERVER_AUTH, certificate, key, pinned)
            group.create_task(_dial(border, settings.site, peer, url, context, stop))
    border.store.close()


async def _dial(
    border: Border, site: SiteId, peer: SiteId, url: str, context: ssl.SSLContext, stop: asyncio.Event
) -> None:
    """Hold the link to the peer until `stop` is set."""
    async with httpx2.AsyncClient(base_url=url, verify=context, trust_env=False) as http:
        bulk = ThreadedBulk(url, context)
        dialer = Dialer(border.keeper, site, peer, http, border.bell, bulk=bulk)
        link = asyncio.create_task(dialer.run())
        await stop.wait()
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        bulk.close()

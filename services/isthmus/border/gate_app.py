"""The gate's composition root: addresses, the link's key and the peers' certificates in, both faces out.

It holds no token, no signing or sealing key, no policy and no ledger, and imports nothing that does.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx2

from isthmus.border.archive import archive_heads
from isthmus.border.bridge.client import RemoteKeeper
from isthmus.border.gate.dialer import Dialer
from isthmus.border.gate.identity import PeerCertificateProtocol, link_context
from isthmus.border.gate.inside import inside_app
from isthmus.border.gate.outside import outside_app
from isthmus.border.settings import load_genesis
from isthmus.client.bulk import ThreadedBulk
from isthmus.contracts.errors import Code, Fault
from isthmus.kit.bell import Bell
from isthmus.kit.serving import serve
from isthmus.kit.tokens import read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI

    from isthmus.border.halves import KeeperHalf
    from isthmus.border.settings import BorderSettings
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.roster import Roster


LIMITS = httpx2.Limits(keepalive_expiry=60.0)
"""A link's connections outlive the pauses between two exchanges of heads."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Both faces of a border, put together but not yet listening."""

    keeper: KeeperHalf
    bell: Bell
    inside: FastAPI
    outside: FastAPI


def build_gate(keeper: KeeperHalf, roster: Roster, bell: Bell) -> Gate:
    """Put the faces of `keeper` together; `bell` is rung when it has news."""
    release = version("isthmus")
    return Gate(
        keeper=keeper,
        bell=bell,
        inside=inside_app(keeper, bell, release),
        outside=outside_app(keeper, roster, bell, release),
    )


async def run(settings: BorderSettings, stop: asyncio.Event) -> None:
    """Run a gate whose keeper is another process until `stop` is set."""
    bell = Bell()
    roster = load_genesis(settings.home).roster
    with RemoteKeeper(settings.keeper, bell) as keeper:
        await serve_faces(build_gate(keeper, roster, bell), settings, stop)


async def serve_faces(gate: Gate, settings: BorderSettings, stop: asyncio.Event) -> None:
    """Listen, hold the link, and archive own heads where that is asked for, until `stop` is set.

    Raises:
        Fault: `CONFIGURATION`: a key or a certificate of the link is missing or cannot be used: named.
    """
    listens = _context(settings.home / "keys", ssl.Purpose.CLIENT_AUTH) if settings.outside else None
    dials = _context(settings.home / "keys", ssl.Purpose.SERVER_AUTH) if settings.dials else None
    archive = settings.archive
    store = archive.store() if archive else None
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(gate.inside, settings.inside, stop, before_stop=gate.bell.close))
        if settings.outside:
            group.create_task(
                serve(
                    gate.outside,
                    settings.outside,
                    stop,
                    before_stop=gate.bell.close,
                    tls=listens,
                    http=PeerCertificateProtocol,
                )
            )
        if settings.dials and dials:
            peer, url = settings.dials
            group.create_task(_dial(gate, settings.site, peer, url, dials, stop))
        if archive and store:
            heads = archive_heads(settings.site, lambda: gate.keeper.ledger().logs, store, stop, archive.every_s)
            group.create_task(heads)


def _context(keys: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    certificate, key, pinned = keys / "link.pem", keys / "link.key", keys / "pinned.pem"
    read_secret(key)
    for path in (certificate, pinned):
        if not path.is_file():
            raise Fault(
                Code.CONFIGURATION,
                f"The certificates {path} cannot be read.",
                remedy="Run `isthmus setup`, or mount the file.",
            )
    try:
        return link_context(purpose, certificate, key, pinned)
    except OSError as error:  # of which an `ssl.SSLError` is one
        raise Fault(
            Code.CONFIGURATION,
            f"The link's key and certificates in {keys} cannot be used.",
            why=str(error),
            remedy="They must be PEM, and the key that of the certificate.",
        ) from error


async def _dial(gate: Gate, site: SiteId, peer: SiteId, url: str, context: ssl.SSLContext, stop: asyncio.Event) -> None:
    """Hold the link to the peer until `stop` is set."""
    async with httpx2.AsyncClient(base_url=url, verify=context, trust_env=False, limits=LIMITS) as http:
        bulk = ThreadedBulk(url, context)
        dialer = Dialer(gate.keeper, site, peer, http, gate.bell, bulk=bulk)
        link = asyncio.create_task(dialer.run())
        await stop.wait()
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        bulk.close()

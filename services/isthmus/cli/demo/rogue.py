"""A rogue for the demo: holds the keys of sites in a throwaway copy, and signs whatever it likes with them.

The borders it meets are real ones, opened on copies of their homes in this process; only sockets are missing. What it
sends goes through the same link code, checks, policy and ledgers as in the sites it was copied from.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from isthmus.border import app as border_app
from isthmus.border.gate.dialer import Dialer
from isthmus.border.gate.framing import padded_payload
from isthmus.border.gate.identity import EXTENSION
from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.border.settings import BorderSettings
from isthmus.client.border import BorderClient
from isthmus.contracts.crossings import CROSSING_TYPE, Kind, Manifest, Receipt, SealedPayload
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical, sealing, signing
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import content_context, crossing_id, order_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.border.keeper.keystore import BorderKeys
    from isthmus.contracts.inside import InsideRole
    from isthmus.contracts.orders import Order

LEDGER = "ledger.db"
LEFT_BEHIND = shutil.ignore_patterns(f"{LEDGER}*", "store", "catalogue.db*", "coordinator", "results", "log", "up.lock")


class Rogue:
    """Copies of every site's border, and a rogue who holds their keys."""

    def __init__(self, home: Path, sites: tuple[SiteId, ...]) -> None:
        self.home = home
        self.borders = {site: border_app.build(BorderSettings.load(home / site)) for site in sites}

    def close(self) -> None:
        """Close the copies."""
        for border in self.borders.values():
            border.bell.close()
            border.store.close()

    def inside(self, site: SiteId, role: InsideRole) -> BorderClient:
        """Return a client of a border's inside face: what a host inside the site could do with a stolen token."""
        http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.borders[site].inside), base_url="http://border"
        )
        return BorderClient(http, read_token(self.home / site / "tokens" / role.value))

    def link(self, site: SiteId, hub: SiteId) -> httpx2.AsyncClient:
        """Return the link from `site` to `hub`, showing `site`'s certificate."""
        shown = _certificate(self.home / site)
        app = self.borders[hub].outside

        async def with_certificate(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": {EXTENSION: shown}}, receive, send)

        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=with_certificate), base_url="http://hub")

    async def send_down(self, hub: SiteId, zone: SiteId, manifest: Manifest, payload: bytes) -> Code | None:
        """Let `zone`'s border fetch and take in a crossing that the rogue signed as `hub`; return its code."""
        envelope = self._keys(hub).signing.sign(CROSSING_TYPE, canonical.dump(manifest))

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            del scope, receive
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"".join(padded_payload([payload], len(payload)))})

        border = self.borders[zone]
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=serve), base_url="http://hub") as http:
            dialer = Dialer(border.half, zone, hub, http, border.bell)
            try:
                receipt = await dialer.take(envelope)
            except Refusal as refusal:
                return refusal.code
        return canonical.load(Receipt, signing.parse_envelope(receipt).payload).code

    def sealed(
        self, sender: SiteId, order: Order, kind: Kind, slot: int, plain: bytes, **changes: Any
    ) -> tuple[Manifest, bytes]:
        """Return a manifest and a sealed payload, well made but for `changes`."""
        recipient = order.zone if sender == order.issuer else order.issuer
        crossing = crossing_id(order_id(order), kind, recipient, slot)
        key, context = sealing.new_content_key(), content_context(crossing)
        payload = b"".join(sealing.seal(key, plain, context=context))
        border = self.borders[recipient]
        roster = border_app.load_genesis(self.home / recipient).roster
        to = next(site.sealing for site in roster.sites if site.id == recipient)
        manifest = Manifest(
            version=1,
            crossing=crossing,
            kind=kind,
            sender=sender,
            recipient=recipient,
            sequence=border.keeper.inbound.cursor(sender) + 1,
            job=order.job,
            order=order_id(order),
            slot=slot,
            purpose=order.purpose,
            lineage=() if sender == order.issuer else (sender,),
            recipients=(recipient,) if kind is Kind.ORDER else order.recipients,
            payload=SealedPayload(
                digest=Digest.of(payload),
                size=len(payload),
                wrapped_key=to_base64(sealing.wrap(key, to, context=context)),
            ),
            plaintext=Digest.of(plain) if kind in {Kind.ORDER, Kind.MODEL} else None,
            inputs=(),
            contributors=None,
            commitments=(),
            policy=border_app.load_genesis(self.home / sender).policy,
            checks=(),
            privacy=(),
            approvals=(),
            information_bits=8 * len(plain),
            issued_at=order.issued_at,
            expires_at=order.expires_at,
        )
        return manifest.model_copy(update=changes), payload

    def signed_as(self, site: SiteId, manifest: Manifest) -> bytes:
        """Return an envelope with a site's own signature."""
        return self._keys(site).signing.sign(CROSSING_TYPE, canonical.dump(manifest))

    def signing_key(self, site: SiteId) -> signing.SigningKey:
        """Return a site's signing key."""
        return self._keys(site).signing

    def _keys(self, site: SiteId) -> BorderKeys:
        return FileKeyStore(self.home / site / "keys").load()


@contextlib.contextmanager
def enrolled(home: Path, copy: Path, sites: tuple[SiteId, ...]) -> Iterator[Rogue]:
    """Copy the borders of a federation that may be running, and yield a rogue who holds their keys."""
    shutil.copytree(home, copy, ignore=LEFT_BEHIND)
    for site in sites:
        with (
            contextlib.closing(sqlite3.connect(home / site / LEDGER)) as original,
            contextlib.closing(sqlite3.connect(copy / site / LEDGER)) as copied,
        ):
            original.backup(copied)
    rogue = Rogue(copy, sites)
    try:
        yield rogue
    finally:
        rogue.close()


def _certificate(folder: Path) -> bytes:
    pem = (folder / "keys" / "link.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

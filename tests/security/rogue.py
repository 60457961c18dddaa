"""A rogue: whoever holds a site's keys. It signs any manifest, seals any payload and speaks the link as that site.

Nothing of it passes through the site's own border: it is what a border must expect of a peer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from isthmus.border.gate.dialer import Dialer
from isthmus.border.gate.framing import message_in, padded, padded_payload
from isthmus.border.gate.identity import EXTENSION
from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.contracts.bands import VEHICLE_BAND, WINDOW_BAND
from isthmus.contracts.crossings import CROSSING_TYPE, RECEIPT_TYPE, RELEASES, Kind, Manifest, Receipt
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.contracts.link import Heads, HeadsAnswer, LinkProblem, Opening, Parcel, ParcelAnswer, ReceiptParcel
from isthmus.contracts.roster import Genesis
from isthmus.proof import canonical, sealing, signing
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import content_context, crossing_id, order_id
from security.scene import DAY, HQ, NOW, Scene, model

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.errors import Code
    from isthmus.contracts.orders import Order

MOST = 256 * 1024
"""Most bytes of a message that is looked at."""


@dataclass(frozen=True)
class Hostile:
    """A crossing as a rogue sends it: what is signed, and the bytes that follow."""

    envelope: bytes
    payload: bytes
    crossing: str


@dataclass(frozen=True)
class Answer:
    """What a border said to a crossing: a receipt it signed, or a code."""

    receipt: bytes | None
    code: Code | None


class Rogue:
    """Whoever holds the keys of `site`, found in its home."""

    def __init__(self, home: Path, site: SiteId) -> None:
        self.site = site
        self.keys = FileKeyStore(home / site / "keys").load()
        self.genesis = canonical.load(Genesis, (home / site / "genesis.json").read_bytes())
        pem = (home / site / "keys" / "link.pem").read_bytes()
        self.certificate = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    def crossing(
        self,
        order: Order,
        kind: Kind,
        plaintext: bytes | None = None,
        /,
        *,
        sequence: int,
        content_key: bytes | None = None,
        sealed_to: SiteId | None = None,
        envelope_type: str = CROSSING_TYPE,
        **changes: Any,
    ) -> Hostile:
        """Return a crossing that is right in all but `changes`.

        Args:
            order: the order it belongs to.
            kind: its kind.
            plaintext: its payload; a small model, or the order's own body.
            sequence: its number; the receiver's cursor plus one is right.
            content_key: what seals the payload; a new key where None.
            sealed_to: whose key the content key is wrapped to; the recipient's where None.
            envelope_type: the type under which it is signed.
            changes: fields of the manifest, by name; `payload` changes fields of the sealed payload.
        """
        if plaintext is None:
            plaintext = canonical.dump(order) if kind is Kind.ORDER else model()
        recipient = changes.get("recipient", HQ if self.site != HQ else order.zone)
        slot = changes.get("slot", 0)
        id_ = changes.get("crossing") or crossing_id(changes.get("order", order_id(order)), kind, recipient, slot)
        payload, sealed = self._sealed(id_, plaintext, content_key, sealed_to or recipient)
        release = kind in RELEASES
        values: dict[str, Any] = {
            "version": 1,
            "crossing": id_,
            "kind": kind.value,
            "sender": self.site,
            "recipient": recipient,
            "sequence": sequence,
            "job": order.job,
            "order": order_id(order),
            "slot": slot,
            "purpose": order.purpose,
            "lineage": [self.site] if release else [],
            "recipients": list(order.recipients) if kind is not Kind.ORDER else [recipient],
            "plaintext": Digest.of(plaintext) if kind in {Kind.ORDER, Kind.MODEL} else None,
            "inputs": [],
            "contributors": {"vehicles": 2 * VEHICLE_BAND, "windows": 2 * WINDOW_BAND} if release else None,
            "commitments": [],
            "policy": self.genesis.policy,
            "checks": [],
            "privacy": [],
            "approvals": [],
            "information_bits": 8 * len(plaintext),
            "issued_at": NOW,
            "expires_at": NOW + DAY,
            **changes,
            "payload": {**payload, **changes.get("payload", {})},
        }
        return Hostile(self.keys.signing.sign(envelope_type, canonical.encode(values)), sealed, id_)

    def _sealed(self, id_: str, plaintext: bytes, key: bytes | None, to: SiteId) -> tuple[dict[str, Any], bytes]:
        context = content_context(id_)  # type: ignore[arg-type]  # a rogue's ids need not be ids
        site = self.genesis.roster.site(to)
        assert site is not None
        content_key = key or sealing.new_content_key()
        real = content_key if len(content_key) == 32 else sealing.new_content_key()
        sealed = b"".join(sealing.seal(real, plaintext, context=context))
        wrapped = sealing.wrap(content_key, site.sealing, context=context)
        return {"digest": Digest.of(sealed), "size": len(sealed), "wrapped_key": to_base64(wrapped)}, sealed

    # ---- speaking the link

    def client(self, scene: Scene, *, certificate: bytes | None = b"") -> httpx2.AsyncClient:
        """Return a client of the coordinator's outside face that shows this site's certificate, or another, or none."""
        shown = self.certificate if certificate == b"" else certificate

        async def outside(scope: Any, receive: Any, send: Any) -> None:
            extensions = {**scope.get("extensions", {}), **({EXTENSION: shown} if shown else {})}
            await scene.border(HQ).outside({**scope, "extensions": extensions}, receive, send)

        transport = httpx2.ASGITransport(app=outside, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://hq")

    def put(self, scene: Scene, hostile: Hostile, *, name: SiteId | None = None, crossing: str | None = None) -> Answer:
        """Upload a crossing to the coordinator's border."""
        parcel = Parcel(envelope=hostile.envelope.decode(), heads=Heads(heads={}, seen={}))
        return self.put_bytes(
            scene,
            padded(canonical.dump(parcel)) + b"".join(padded_payload([hostile.payload], len(hostile.payload))),
            path=f"/link/{name or self.site}/crossings/{crossing or hostile.crossing}",
        )

    def put_bytes(self, scene: Scene, body: bytes, *, path: str) -> Answer:
        """Upload raw bytes to the coordinator's border."""

        async def talk() -> httpx2.Response:
            async with self.client(scene) as http:
                return await http.put(path, content=body)

        response = asyncio.run(talk())
        if response.status_code == httpx2.codes.OK:
            return Answer(message_in(ParcelAnswer, response.content, MOST).receipt.encode(), None)
        return Answer(None, message_in(LinkProblem, response.content, MOST).code)

    def offer(self, scene: Scene, zone: SiteId, hostile: Hostile, **answers: Any) -> Answer:
        """Offer a crossing, as the coordinator, to a zone's border that dials."""
        return asyncio.run(RogueHub(hostile, **answers).serve(scene, zone))


@dataclass
class RogueHub:
    """What listens where a zone's border dials: it offers one crossing, and says what it likes besides.

    Attributes:
        hostile: the crossing.
        opening: what it answers to the opening of the link; an innocent one where None.
        heads: what it answers to heads.
        headers: of its answers.
    """

    hostile: Hostile | None
    opening: bytes | None = None
    heads: bytes = canonical.dump(HeadsAnswer(cosigned={}, heads={}))
    headers: dict[str, str] = field(default_factory=dict)
    receipts: list[bytes] = field(default_factory=list)

    async def serve(self, scene: Scene, zone: SiteId) -> Answer:
        """Run the zone's dialer until it hands over a receipt or gives up."""
        self._zone = zone
        self._taken = asyncio.Event()
        border = scene.border(zone)
        transport = httpx2.ASGITransport(app=self._app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://hub") as http:
            dialer = Dialer(border.half, zone, HQ, http, border.bell)
            link = asyncio.create_task(dialer._until_it_fails())
            taken = asyncio.create_task(self._taken.wait())
            await asyncio.wait({link, taken}, return_when=asyncio.FIRST_COMPLETED)
            _, gave_up = link.result() if link.done() else (True, None)
            for task in (link, taken):
                task.cancel()
            await asyncio.gather(link, taken, return_exceptions=True)
        return Answer(self.receipts[0] if self.receipts else None, gave_up.code if gave_up else None)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        verb = scope["path"].removeprefix(f"/link/{self._zone}/").split("/")[0]
        body = b""
        while (message := await receive()).get("more_body") or message.get("body"):
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await self._say(send, await self._answer(verb, body))

    async def _answer(self, verb: str, body: bytes) -> bytes:
        if verb == "open":
            innocent = Opening(version=1, site=HQ, peer=self._zone, cosigned={}, cursor=0, at=NOW)
            return padded(self.opening or canonical.dump(innocent))
        if verb == "heads":
            return padded(self.heads)
        if verb == "receipts":
            self.receipts.append(message_in(ReceiptParcel, body, MOST).receipt.encode())
            self._taken.set()
            return padded(canonical.dump(HeadsAnswer(cosigned={}, heads={})))
        if verb in {"next", "blob"} and self.hostile and not self.receipts:
            if verb == "next":
                return padded(self.hostile.envelope)
            return b"".join(padded_payload([self.hostile.payload], len(self.hostile.payload)))
        await asyncio.Event().wait()  # a long poll that brings nothing more
        return b""

    async def _say(self, send: Any, body: bytes) -> None:
        headers = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def opened_receipt(scene: Scene, by: SiteId, envelope: bytes) -> Receipt:
    """Verify a receipt by its maker's key and return it."""
    genesis = canonical.load(Genesis, (scene.home / HQ / "genesis.json").read_bytes())
    site = genesis.roster.site(by)
    assert site is not None
    return canonical.load(Receipt, signing.verify(envelope, RECEIPT_TYPE, site.signing))


def manifest_in(hostile: Hostile) -> Manifest:
    """Return the manifest of a crossing that has one."""
    return canonical.load(Manifest, signing.parse_envelope(hostile.envelope).payload)

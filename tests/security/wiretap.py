"""A World whose links are tapped: every byte that passes between two sites is kept. Training takes no time in it."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.border.gate.dialer import Dialer
from isthmus.border.gate.framing import MAX_PARCEL, message_in, unpadded, unpadded_payload
from isthmus.contracts.crossings import Contributors, Manifest
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.link import Parcel, filled
from isthmus.contracts.orders import Evaluation, Figures, Predictor
from isthmus.contracts.raw_table import PSEUDONYM
from isthmus.learning import weights
from isthmus.proof import canonical, signing
from isthmus.proof.ids import file_aad, file_key_context
from isthmus.proof.sealing import SealingKey
from isthmus.zone.compute import CPU
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.store import DirectoryStore
from isthmus.zone.vault import open_group
from world.world import HQ, ZONES, World, http_to, with_certificate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import KeyGrant
    from isthmus.contracts.orders import Order
    from isthmus.zone.store import ObjectStore

Buffer = bytes | bytearray | memoryview


@dataclass
class Exchange:
    """One request and its answer, byte for byte."""

    asked: bytearray = field(default_factory=bytearray)
    body: bytearray = field(default_factory=bytearray)
    status: int = 0
    headers: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)

    def everything(self) -> bytes:
        return b"\n".join((self.asked, self.body, self.headers, self.answer))


@dataclass
class Tap:
    """All that passed; `failed` is set by an answer that is an error."""

    exchanges: list[Exchange] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def errors(self) -> list[bytes]:
        return [bytes(e.answer) for e in self.exchanges if e.status >= 400]

    def sealed(self) -> dict[Digest, bytes]:
        """Return every sealed payload that passed, by its digest."""
        found: dict[Digest, bytes] = {}
        frames: dict[str, bytearray] = {}
        sizes: dict[Digest, int] = {}
        for exchange in self.exchanges:
            if exchange.asked.startswith(b"PUT"):
                start = filled(4 + int.from_bytes(exchange.body[:4], "big"))
                parcel = message_in(Parcel, bytes(exchange.body[:start]), MAX_PARCEL)
                manifest = canonical.load(Manifest, signing.parse_envelope(parcel.envelope.encode()).payload)
                payload = unpadded_payload(exchange.body[start:], manifest.payload.size)
                found[Digest.of(payload)] = bytes(payload)
            elif b"/blob/" in exchange.asked:
                frames[exchange.asked.split(b"/blob/")[1][:71].decode()] = exchange.answer
            elif b"/next" in exchange.asked and exchange.answer:
                envelope = unpadded(bytes(exchange.answer), MAX_PARCEL)
                payload_of = canonical.load(Manifest, signing.parse_envelope(envelope).payload).payload
                sizes[payload_of.digest] = payload_of.size
        for digest, body in frames.items():
            found[Digest(digest)] = bytes(unpadded_payload(body, sizes[Digest(digest)]))
        return found


class TappedWorld(World):
    """A World that keeps all that passes over its links."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tap = Tap()

    def dial(self, site: SiteId) -> Dialer:
        certificate = self.certificate(site)

        async def outside(scope: Any, receive: Any, send: Any) -> None:
            exchange = Exchange()
            exchange.asked += f"{scope['method']} {scope['path']}?".encode() + scope["query_string"]
            exchange.asked += b"".join(b"\n%b: %b" % header for header in scope["headers"])
            self.tap.exchanges.append(exchange)

            async def receiving() -> Any:
                message = await receive()
                exchange.body += message.get("body", b"")
                return message

            async def sending(message: Any) -> None:
                exchange.status = message.get("status", exchange.status)
                exchange.headers += b"".join(b"%b: %b\n" % tuple(header) for header in message.get("headers", ()))
                exchange.answer += message.get("body", b"")
                if exchange.status >= 400 and "body" in message:
                    self.tap.failed.set()
                await send(message)

            await with_certificate(self.sites[HQ].border.outside, certificate)(scope, receiving, sending)

        border = self.sites[site].border
        return Dialer(border.half, site, HQ, http_to(outside), border.bell, cadence_s=3600)


def quick_world(home: Path, trouble: str | None = None) -> TappedWorld:
    """Return a tapped World whose zones train in no time; in the first one training fails with `trouble`."""
    world = TappedWorld(home)
    for zone in ZONES:
        store = DirectoryStore(ZoneSettings.load(home / zone).store)
        world.compute[zone] = QuickCompute(store, trouble if zone == ZONES[0] else None)
    return world


class QuickRun:
    """Opens what was granted, as compute does, and moves every weight by a little."""

    def __init__(self, vehicles: int, rows: int, trouble: str | None) -> None:
        self._trouble = trouble
        self.contributors = Contributors(vehicles=vehicles, windows=rows)
        self.evaluators = Contributors(vehicles=vehicles, windows=rows)

    def train(self, slot: int, base: Buffer) -> bytes:
        if self._trouble:
            raise RuntimeError(f"cannot train on {self._trouble}")
        start = weights.decode(memoryview(base), weights.MODEL_SCHEMA)
        return weights.encode({name: np.full_like(value, 1e-4 * (slot + 1)) for name, value in start.items()})

    def evaluate(self, slot: int, model: Buffer) -> Evaluation | None:
        return Evaluation(version=1, slot=slot, figures=(_figures(Predictor.FEDERATED),))

    def reference(self, initial: Buffer) -> Figures | None:
        return _figures(Predictor.LOCAL_ONLY)

    def adapt(self, final: Buffer) -> tuple[bytes, Figures | None]:
        return bytes(final), _figures(Predictor.ADAPTED)

    def close(self) -> None:
        """Nothing is held."""


class QuickCompute:
    """Compute that decrypts an order's files and learns nothing from them.

    Args:
        store: the zone's objects.
        trouble: words that stand in the exception with which training fails; it does not fail where None.
    """

    def __init__(self, store: ObjectStore, trouble: str | None = None) -> None:
        self._store = store
        self._trouble = trouble

    def prepare(self, order: Order) -> QuickOpening:
        return QuickOpening(self._store, self._trouble)


class QuickOpening:
    """The key of one run."""

    def __init__(self, store: ObjectStore, trouble: str | None) -> None:
        self._store = store
        self._trouble = trouble
        self._key = SealingKey.generate()
        self.run_keys = (self._key.public,)
        self.accelerators = (CPU,)

    def open(self, grants: Sequence[KeyGrant]) -> QuickRun:
        tables = [self._table(file, self._key) for grant in grants for file in grant.files]
        pseudonyms = {value for table in tables for value in table.column(PSEUDONYM.name).to_pylist()}
        return QuickRun(len(pseudonyms), sum(table.num_rows for table in tables), self._trouble)

    def _table(self, file: Any, run_key: SealingKey) -> pa.Table:
        context = file_key_context(file.dataset, file.file, file.group, file.digest)
        key = run_key.open(base64.b64decode(file.wrapped_key), context=context)
        aad = file_aad(file.dataset, file.file, file.group)
        data = self._store.get(file.object_name)
        return open_group(data, key, aad, file=file.file, digest=file.digest, size=file.size)

    def close(self) -> None:
        """Nothing is held."""


def _figures(predictor: Predictor) -> Figures:
    return Figures(predictor=predictor, ade_um=612_345, fde_um=1_234_567, miss_ppm=54_321)

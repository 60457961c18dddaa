"""The verifier's room for orders' bodies: what each order says, and that what crossed under it is what it asks for.

1. A body counts under its own digest. Whoever gave an order or took it in holds its body.
2. An order's crossing says of it what it says itself: job, issuer, zone, purpose, expiry.
3. A zone takes in an order for an algorithm of its genesis and a snapshot that it had frozen before.
4. What crosses under an order is of a kind and slot that it asks for. A release names its recipients and is clipped or
   banded as it says; a model names no others.
5. Keys go out for its column groups alone, before it expires.
6. A zone takes in no question whose slot is shorter than its genesis asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import RELEASES, Kind
from isthmus.contracts.errors import Refusal
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.ledger import Log
from isthmus.contracts.orders import Order
from isthmus.proof import bundle_statistics, canonical
from isthmus.proof.ids import order_id
from isthmus.proof.orders import expects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import OrderId, SiteId
    from isthmus.proof.bundle_crossings import Crossing
    from isthmus.proof.bundle_findings import Book
    from isthmus.proof.bundle_ledgers import Ledger
    from isthmus.proof.bundle_orders import Diary


def read(book: Book, site: SiteId, bodies: Mapping[OrderId, str]) -> dict[OrderId, Order]:
    """Parse the bodies that a site shows; return those that are what their id says."""
    orders = {}
    for id_, text in sorted(bodies.items()):
        try:
            order = canonical.load(Order, text.encode())
        except (Refusal, ValueError):
            order = None
        if order is None or order_id(order) != id_:
            book.find(FindingCode.ORDER_ID_MISMATCH, "a body is not the order of its id", site=site)
        else:
            orders[id_] = order
    return orders


def check(book: Book, ledger: Ledger, diary: Diary, crossings: Iterable[Crossing]) -> None:
    """Hold a site's crossings and key releases to the orders' bodies. What a receiver refused needs none."""
    for c in crossings:
        if c.entry.verdict == "refused":
            continue
        order = ledger.orders.get(c.manifest.order)
        if c.manifest.kind is Kind.ORDER:
            _check_order(book, ledger, diary, c, order)
        elif order is not None:
            _check_asked_for(book, c, order)
    for index, keys in diary.keys:
        order = ledger.orders.get(keys.order)
        if order is not None and (not set(keys.groups) <= set(order.groups) or keys.at > order.expires_at):
            detail = "keys went out of a column group that the order does not name, or after it had expired"
            book.find(FindingCode.KEYS_WITHOUT_ORDER, detail, site=ledger.site, log=Log.INTERNAL, index=index)


def _check_order(book: Book, ledger: Ledger, diary: Diary, c: Crossing, order: Order | None) -> None:
    """Check an order's crossing against its body, and where it was taken in, what it may ask for."""
    manifest = c.manifest
    if order is None:
        _at(book, FindingCode.ORDER_BODY_MISSING, c, "this site shows no body of it")
        return
    said = (manifest.job, manifest.sender, manifest.recipient, manifest.purpose, manifest.expires_at)
    if said != (order.job, order.issuer, order.zone, order.purpose, order.expires_at):
        _at(book, FindingCode.ORDER_DIFFERS, c, "job, sites, purpose or expiry are not those of its body")
    if c.sent:
        return
    if ledger.genesis is not None and order.algorithm not in ledger.genesis.algorithms:
        _at(book, FindingCode.ALGORITHM_UNKNOWN, c, "its algorithm is not in the zone's genesis")
    if ledger.genesis is not None and order.query is not None and order.query.slot_s < ledger.genesis.minimum_slot_s:
        _at(book, FindingCode.SLOT_TOO_SHORT, c, "its question's slot is shorter than the zone's genesis asks for")
    opened = diary.accepted[manifest.order][0] if manifest.order in diary.accepted else 0
    named = (order.dataset.dataset, order.dataset.snapshot)
    if not any(i < opened and (f.dataset, f.snapshot) == named for i, f in diary.frozen.values()):
        _at(book, FindingCode.DATASET_NOT_FROZEN, c, "its snapshot was not frozen when it was taken in")


def _check_asked_for(book: Book, c: Crossing, order: Order) -> None:
    """Check a crossing against the body of its order."""
    manifest = c.manifest
    if not expects(order, manifest.kind, manifest.slot):
        detail = f"its order asks for no {manifest.kind.value} at slot {manifest.slot}"
        _at(book, FindingCode.NOT_ASKED_FOR, c, detail)
    release = manifest.kind in RELEASES
    further = set(manifest.recipients) - set(order.recipients)
    if (release and manifest.recipients != order.recipients) or (manifest.kind is Kind.MODEL and further):
        _at(book, FindingCode.RECIPIENT_NOT_NAMED, c, "its recipients are not those of its order")
    if release and not _protected(manifest, order):
        _at(book, FindingCode.CHECKS_MISSING, c, "it is not clipped, banded or noised as its order says")


def _protected(manifest: Manifest, order: Order) -> bool:
    """Tell whether a release says that it was clipped, banded or noised as its order wants it."""
    done = {(event.mechanism, event.parameter) for event in manifest.privacy}
    if manifest.kind is Kind.MODEL_UPDATE:
        clipped = ("l2_clip", order.clip_norm_micro) in done
        return clipped and bundle_statistics.update_protected(manifest, order.training)
    if manifest.kind is Kind.AGGREGATE:
        if order.query is not None:
            return bundle_statistics.protected(manifest, order.query)
        return order.evaluation is not None and ("band", order.evaluation.band_um) in done
    return True


def _at(book: Book, code: FindingCode, c: Crossing, detail: str) -> None:
    book.find(code, detail, site=c.ledger, log=Log.CROSSINGS, index=c.index, crossing=c.id)

"""Opening what came in: decrypted, and checked as if nobody had checked it before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border.keeper import payloads
from isthmus.border.keeper.desk import SKEW_S
from isthmus.contracts.crossings import Check, Kind, Manifest, Notice
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.contracts.orders import Order
from isthmus.privacy.mechanism import curve_of
from isthmus.privacy.training import noise_of
from isthmus.proof import canonical, sealing
from isthmus.proof.canonical import from_base64
from isthmus.proof.ids import content_context, order_id
from isthmus.proof.orders import expects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.proof.sealing import Buffer

CONTENT_KEY = 32


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload that was opened and checked: what there is to decide about."""

    order: Order
    checks: frozenset[Check]
    plain: bytearray
    notice: Notice | None = None


def open_payload(desk: Desk, peer: SiteId, manifest: Manifest, sealed: Iterable[Buffer]) -> Opened | Code:
    """Open and check the payload; a `Code` where that fails."""
    with desk.store.reading() as tx:
        now = desk.now(tx)
        row = desk.order(tx, manifest.order)
    if manifest.issued_at > now + SKEW_S:
        return Code.NOT_YET_VALID
    if now > manifest.expires_at + SKEW_S:
        return Code.EXPIRED
    try:
        return _checked(desk, peer, manifest, sealed, row, now)
    except Refusal as refusal:
        return refusal.code


def plain_of(desk: Desk, manifest: Manifest, sealed: Iterable[Buffer]) -> bytearray:
    """Unwrap the content key and open the payload."""
    context = content_context(manifest.crossing)
    key = desk.keys.sealing.open(from_base64(manifest.payload.wrapped_key), context=context)
    if len(key) != CONTENT_KEY:
        raise Refusal(Code.PAYLOAD_ALTERED, "What the wrapped key holds is no content key.")
    plain = sealing.open_sealed(key, sealed, context=context)
    if manifest.plaintext is not None and Digest.of(plain) != manifest.plaintext:
        raise Refusal(Code.PAYLOAD_ALTERED, "The payload is not the one that its manifest names.")
    return plain


def _checked(
    desk: Desk, peer: SiteId, manifest: Manifest, sealed: Iterable[Buffer], row: OrderRow | None, now: int
) -> Opened:
    bits = manifest.information_bits
    if bits % 8 or manifest.payload.size != sealing.sealed_size(bits // 8):
        raise Refusal(Code.SCHEMA_MISMATCH, "The payload has another size than its manifest states.")
    if manifest.kind is Kind.ORDER:
        return _order(desk, peer, manifest, sealed, now)
    if row is None or row.peer != peer:
        raise Refusal(Code.ORDER_UNKNOWN, "The crossing belongs to no order between these two sites.")
    if not row.is_open and manifest.kind is not Kind.NOTICE:
        raise Refusal(Code.ORDER_CLOSED, "The order is closed.")
    if manifest.job != row.order.job:
        raise Refusal(Code.ID_MISMATCH, "The crossing names another job than its order.")
    if not expects(row.order, manifest.kind, manifest.slot):
        raise Refusal(Code.SLOT_UNEXPECTED, f"The order has no {manifest.kind} at slot {manifest.slot}.")
    if payloads.is_private(row.order, manifest.kind) and manifest.contributors is not None:
        raise Refusal(Code.SCHEMA_MISMATCH, "An update of a private training tells a number of contributors.")
    plain = plain_of(desk, manifest, sealed)
    checked = payloads.opened(row.order, manifest.kind, manifest.slot, plain)
    notice = canonical.load(Notice, bytes(plain)) if manifest.kind is Kind.NOTICE else None
    return Opened(row.order, frozenset(checked.checks), plain, notice)


def _order(desk: Desk, peer: SiteId, manifest: Manifest, sealed: Iterable[Buffer], now: int) -> Opened:
    """Open an order, and hold it to its manifest and to this site."""
    body = bytes(plain_of(desk, manifest, sealed))
    order = canonical.load(Order, body)
    if (order_id(order), order.job, order.issuer, order.zone, order.purpose) != (
        manifest.order,
        manifest.job,
        peer,
        desk.site,
        manifest.purpose,
    ):
        raise Refusal(Code.ID_MISMATCH, "The order is not the one that its manifest names.")
    if manifest.slot:
        raise Refusal(Code.SLOT_UNEXPECTED, "An order stands at slot 0.")
    if desk.expires(order, now):
        raise Refusal(Code.EXPIRED, "The order's time is over.")
    if manifest.expires_at != order.expires_at:
        raise Refusal(Code.ID_MISMATCH, "The order ends at another time than its manifest.")
    # What cannot be noised has no price: refused with a code, like any other order.
    if order.query is not None:
        curve_of(order.query)
    if order.training is not None and order.training.privacy is not None:
        noise_of(order.training)
    return Opened(order, frozenset(), bytearray(body))

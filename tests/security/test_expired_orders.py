"""An order whose time is over holds nothing any more: neither a slot of its peer's quota nor what it reserved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.cli.federation import DEMO_QUOTAS
from isthmus.contracts.crossings import Receipt
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.ledger import Log
from isthmus.proof import canonical, signing
from security.scene import CN, HOUR, HQ, NOW, order_for

if TYPE_CHECKING:
    from security.scene import Scene


def given(scene: Scene, number: int, *, hours: int) -> Code | None:
    """Give the zone one more order, and return what its border says."""
    order = order_for(CN, job=JobId(f"job-{number:016x}"), expires_at=NOW + hours * HOUR)
    scene.give(order)
    crossing = scene.keeper(HQ).next_for(CN)
    assert crossing is not None
    pieces = list(scene.keeper(HQ).blob(CN, crossing.payload)[1])
    receipt = scene.keeper(CN).inbound.receive(HQ, crossing.envelope, pieces)
    scene.keeper(HQ).receipted(CN, receipt)
    return canonical.load(Receipt, signing.parse_envelope(receipt).payload).code


def test_expired_orders_make_room_for_new_ones(scene: Scene) -> None:
    codes = [given(scene, number, hours=1) for number in range(DEMO_QUOTAS.open_orders_per_peer + 1)]
    assert Code.QUOTA_EXCEEDED in codes, "a peer cannot keep more orders open than its quota"
    accepted = codes.count(None)
    scene.clock.advance(2 * HOUR)
    assert given(scene, 99, hours=24) is None
    closed = [
        entry
        for text in scene.keeper(CN).entries(Log.INTERNAL, 0).entries
        if isinstance(entry := canonical.decode(text.encode()), dict) and entry["event"] == "order_closed"
    ]
    assert len(closed) >= accepted
    assert {entry["reason"] for entry in closed} == {"expired"}
    assert all(entry["spent_bits"] == 0 and entry["returned_bits"] for entry in closed)

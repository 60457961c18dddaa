"""What every part of the keeper works with: identity, ledger, keys, policy, clock; and the one way to move a state.

Time never runs backwards here: it is the host's clock, but never behind the last time the ledger holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from isthmus.border.keeper.states import INBOUND, OUTBOUND, Inbound, Outbound, advance
from isthmus.contracts.crossings import CROSSING_TYPE, Manifest
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId, OrderId, SiteId
from isthmus.contracts.ledger import Log
from isthmus.contracts.orders import Order
from isthmus.proof import canonical, signing

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from isthmus.border.keeper.blobs import BlobStore
    from isthmus.border.keeper.keystore import BorderKeys
    from isthmus.border.keeper.ledger import LedgerStore, Transaction
    from isthmus.border.keeper.policy import Policy
    from isthmus.contracts.identifiers import Digest
    from isthmus.contracts.ledger import InternalEntry
    from isthmus.contracts.roster import Genesis, Site
    from isthmus.kit.bell import Bell
    from isthmus.kit.clock import Clock

SKEW_S = 300
"""How far two sites' clocks may lie apart, in seconds."""

Direction = Literal["in", "out"]
Moment = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Move:
    """One move of one crossing: `before` its transaction commits, or `after`."""

    direction: Direction
    state: Outbound | Inbound
    crossing: CrossingId
    moment: Moment


def unobserved(_: Move) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as the ledger's tables hold it."""

    id: OrderId
    direction: Direction
    peer: SiteId
    order: Order
    state: str
    reserved_bits: int
    spent_bits: int

    @property
    def is_open(self) -> bool:
        """True until it is complete, failed or expired."""
        return self.state == "open"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Desk:
    """One border's working means. Built once, in `border.app`."""

    site: SiteId
    genesis: Genesis
    keys: BorderKeys
    store: LedgerStore
    blobs: BlobStore
    policy: Policy
    clock: Clock
    bell: Bell
    observe: Callable[[Move], None] = unobserved

    def now(self, tx: Transaction) -> int:
        """Return the time: the clock's, but never behind the ledger's."""
        row = tx.row("SELECT at FROM latest_time")
        return max(self.clock.now(), int(row[0]) if row else 0)

    def peer(self, site: SiteId) -> Site:
        """Return a pinned peer.

        Raises:
            Refusal: the genesis does not name it.
        """
        known = self._pinned(site)
        if known is None:
            raise Refusal(Code.SENDER_UNKNOWN, f"{site} is not a peer of {self.site}.")
        return known

    def recipient(self, site: SiteId) -> Site:
        """Return a pinned peer that something is to be sent to.

        Raises:
            Refusal: `RECIPIENT_NOT_NAMED`: the genesis does not name it.
        """
        known = self._pinned(site)
        if known is None:
            raise Refusal(
                Code.RECIPIENT_NOT_NAMED,
                f"Nothing is sent to {site}: it is not a peer of {self.site}.",
                remedy="Name a site of the roster.",
            )
        return known

    def _pinned(self, site: SiteId) -> Site | None:
        return self.genesis.roster.site(site) if site != self.site else None

    def move(self, tx: Transaction, crossing: CrossingId, to: Outbound | Inbound, *, new: bool = False) -> None:
        """Move a crossing's state as the tables allow, and tell the observer before and after it is durable."""
        row = None if new else tx.row("SELECT direction, state FROM crossing WHERE id = ?", crossing)
        if isinstance(to, Outbound):
            direction: Direction = "out"
            advance(OUTBOUND, Outbound(row["state"]) if row else None, to)
        else:
            direction = "in"
            advance(INBOUND, Inbound(row["state"]) if row else None, to)
        tx.execute("UPDATE crossing SET state = ? WHERE id = ?", to.value, crossing)
        self.observe(Move(direction, to, crossing, "before"))
        tx.after.append(lambda: self.observe(Move(direction, to, crossing, "after")))
        tx.after.append(self.bell.ring)

    def record(self, tx: Transaction, entry: InternalEntry) -> int:
        """Append to the internal log."""
        return tx.append(Log.INTERNAL, entry)

    def crossing(self, tx: Transaction, crossing: CrossingId) -> sqlite3.Row:
        """Return a crossing's row.

        Raises:
            Refusal: there is none.
        """
        row = tx.row("SELECT * FROM crossing WHERE id = ?", crossing)
        if row is None:
            raise Refusal(Code.NOT_FOUND, "This border knows no such crossing.")
        return row

    def drop_unless_entered(self, sealed: Digest) -> None:
        """Let sealed bytes go that no crossing refers to, since what would have entered it failed."""
        with self.store.reading() as view:
            entered = view.row("SELECT 1 FROM crossing WHERE sealed = ?", sealed)
        if entered is None:
            self.blobs.release(sealed)

    def order(self, tx: Transaction, order: OrderId) -> OrderRow | None:
        """Return an order that stands in the ledger, None where it does not."""
        row = tx.row("SELECT * FROM orders WHERE id = ?", order)
        if row is None:
            return None
        return OrderRow(
            id=OrderId(row["id"]),
            direction=row["direction"],
            peer=SiteId(row["peer"]),
            order=parse_order(bytes(row["body"])),
            state=row["state"],
            reserved_bits=row["reserved_bits"],
            spent_bits=row["spent_bits"],
        )

    def expires(self, order: Order, now: int) -> bool:
        """Tell whether an order's time is over."""
        return now > order.expires_at


@lru_cache(maxsize=64)
def parse_order(body: bytes) -> Order:
    """Parse an order's canonical bytes; the few that are in use are kept parsed."""
    return canonical.load(Order, body)


def manifest_of(envelope: bytes) -> Manifest:
    """Return the manifest of an envelope that this border has verified or made itself."""
    return canonical.load(Manifest, signing.parse_envelope(envelope).payload)


@lru_cache(maxsize=8)
def verified_manifest(envelope: bytes, peer: Site) -> Manifest:
    """Verify an envelope by `peer`'s pinned key and return its manifest.

    Gate and keeper both ask, of the same bytes under the same key within one crossing: the answer is kept that long.
    """
    return canonical.load(Manifest, signing.verify(envelope, CROSSING_TYPE, peer.signing))


def needs_of(row: sqlite3.Row) -> tuple[str, ...]:
    """Return what a held crossing needs."""
    return tuple(json.loads(row["needs"]))

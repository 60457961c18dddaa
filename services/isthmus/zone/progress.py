"""How far a zone's worker has come: its cursor and its orders, in the catalogue, so that kill -9 loses nothing.

The cursor is moved after everything that a delivery caused is kept; until then the delivery comes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, OrderId
from isthmus.contracts.orders import Figures, Order
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.zone.plan import OrderState

if TYPE_CHECKING:
    from isthmus.zone.catalogue import Database


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one order stands.

    Attributes:
        id: its id.
        order: the order itself: the border may have let its copy go.
        state: open, finishing or closed.
        code: why it failed, None where it did not.
        reference_kept: True once the local-only reference has been computed.
        reference: its figures, None where no vehicle is held out.
    """

    id: OrderId
    order: Order
    state: OrderState
    code: Code | None
    reference_kept: bool
    reference: Figures | None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An evaluation as it was handed to the border, so that it can be asked after."""

    slot: int
    payload: bytes
    contributors: Contributors


class Progress:
    """The worker's memory. Every call blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cursor(self) -> tuple[int, CrossingId | None]:
        """Return the ordinal of the last delivery that is done with, and the crossing it brought, if it was one."""
        with self._database.reading() as db:
            ordinal, crossing = db.execute("SELECT cursor, crossing FROM worker").fetchone()
        return int(ordinal), None if crossing is None else CrossingId(crossing)

    def advance(self, ordinal: int, crossing: CrossingId | None) -> None:
        """Move the cursor, never back."""
        with self._database.writing() as db:
            db.execute("UPDATE worker SET cursor = ?, crossing = ? WHERE cursor < ?", (ordinal, crossing, ordinal))

    def begin(self, order: Order) -> Standing:
        """Keep an order as open; one that is kept already stays as it is. Return where it stands."""
        with self._database.writing() as db:
            values = (order_id(order), canonical.dump(order), OrderState.OPEN.value)
            db.execute('INSERT OR IGNORE INTO orders("order", body, state) VALUES (?, ?, ?)', values)
        standing = self.standing(order_id(order))
        if standing is None:
            raise AssertionError("an order that was just kept is there")
        return standing

    def standing(self, order: OrderId) -> Standing | None:
        """Return where an order stands, None where it is not known."""
        return next(iter(self._standings('WHERE "order" = ?', order)), None)

    def unfinished(self) -> tuple[Standing, ...]:
        """Return the orders that are not closed."""
        return self._standings("WHERE state <> ?", OrderState.CLOSED.value)

    def move(self, order: OrderId, state: OrderState, code: Code | None = None) -> None:
        """Move an order to another state; what is only needed before it is closed is dropped with that."""
        with self._database.writing() as db:
            values = (state.value, None if code is None else code.value, order)
            db.execute('UPDATE orders SET state = ?, code = ? WHERE "order" = ?', values)
            if state is OrderState.CLOSED:
                db.execute('DELETE FROM aggregates WHERE "order" = ?', (order,))

    def keep_reference(self, order: OrderId, figures: Figures | None) -> None:
        """Keep the local-only reference."""
        with self._database.writing() as db:
            body = b"" if figures is None else canonical.dump(figures)
            db.execute('UPDATE orders SET reference = ? WHERE "order" = ?', (body, order))

    def keep_training(self, order: OrderId, slot: int, microseconds: int) -> None:
        """Keep how long a round's training took; of a repeat, the first time counts."""
        with self._database.writing() as db:
            db.execute("INSERT OR IGNORE INTO trained VALUES (?, ?, ?)", (order, slot, microseconds))

    def training_times(self, order: OrderId) -> tuple[int, ...]:
        """Return how long each round's training took, in microseconds."""
        with self._database.reading() as db:
            rows = db.execute('SELECT microseconds FROM trained WHERE "order" = ? ORDER BY slot', (order,)).fetchall()
        return tuple(int(microseconds) for (microseconds,) in rows)

    def keep_aggregate(self, order: OrderId, aggregate: Aggregate) -> None:
        """Keep an evaluation before it is handed over."""
        with self._database.writing() as db:
            contributors = canonical.dump(aggregate.contributors)
            values = (order, aggregate.slot, aggregate.payload, contributors)
            db.execute("INSERT OR REPLACE INTO aggregates VALUES (?, ?, ?, ?)", values)

    def aggregates(self, order: OrderId) -> tuple[Aggregate, ...]:
        """Return an order's evaluations."""
        query = 'SELECT slot, payload, contributors FROM aggregates WHERE "order" = ? ORDER BY slot'
        with self._database.reading() as db:
            rows = db.execute(query, (order,)).fetchall()
        return tuple(
            Aggregate(slot, bytes(payload), canonical.load(Contributors, bytes(body))) for slot, payload, body in rows
        )

    def _standings(self, where: str, value: str) -> tuple[Standing, ...]:
        query = f'SELECT "order", body, state, code, reference FROM orders {where} ORDER BY "order"'  # noqa: S608 -- `where` is a constant of this module
        with self._database.reading() as db:
            rows = db.execute(query, (value,)).fetchall()
        return tuple(
            Standing(
                id=OrderId(order),
                order=canonical.load(Order, bytes(body)),
                state=OrderState(state),
                code=None if code is None else Code(code),
                reference_kept=reference is not None,
                reference=canonical.load(Figures, bytes(reference)) if reference else None,
            )
            for order, body, state, code, reference in rows
        )

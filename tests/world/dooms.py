"""Where processes are killed: generated from the state tables, and counted along the way.

A state that no border comes to in a job that goes well is named here, so that a new one cannot be forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from isthmus.border.keeper.states import INBOUND, OUTBOUND, Inbound, Outbound
from world.world import CN, HQ, US

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Direction, Moment
    from isthmus.contracts.identifiers import SiteId

BEFORE: Moment = "before"
AFTER: Moment = "after"


@dataclass(frozen=True, slots=True)
class AtMove:
    """Kill a border at a move of its state machines."""

    site: SiteId
    direction: Direction
    state: Outbound | Inbound
    moment: Moment

    def __str__(self) -> str:
        return f"{self.site}-{self.direction}-{self.state}-{self.moment}"


@dataclass(frozen=True, slots=True)
class AtCall:
    """Kill what stands behind a border just before, or just after, its n-th call of one kind is answered."""

    site: SiteId
    call: str
    number: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class AtWrite:
    """Kill what stands behind a border as its n-th change of its own database begins."""

    site: SiteId
    number: int


Doom: TypeAlias = AtMove | AtCall | AtWrite

NEVER_OUT = {Outbound.REFUSED, Outbound.WITHDRAWN, Outbound.EXPIRED}
NEVER_IN = {Inbound.REFUSED}
NEVER: dict[tuple[SiteId, Direction], set[Outbound | Inbound]] = {
    (HQ, "out"): {*NEVER_OUT, Outbound.HELD, Outbound.APPROVED},
    (HQ, "in"): {*NEVER_IN},
    (CN, "out"): {*NEVER_OUT},
    (CN, "in"): {*NEVER_IN},
    (US, "out"): {*NEVER_OUT},
    (US, "in"): {*NEVER_IN},
}
"""States that no border comes to in a job that goes well; headquarters holds nothing for officers."""


def states(direction: Direction) -> tuple[Outbound | Inbound, ...]:
    """Return every state that a table leads to."""
    table = OUTBOUND if direction == "out" else INBOUND
    return tuple(dict.fromkeys(state for reached in table.values() for state in sorted(reached)))


def points(site: SiteId) -> list[tuple[Direction, Outbound | Inbound]]:
    both: tuple[Direction, Direction] = ("out", "in")
    return [(way, state) for way in both for state in states(way) if state not in NEVER[site, way]]


def moves(site: SiteId) -> set[AtMove]:
    return {AtMove(site, way, state, moment) for way, state in points(site) for moment in (BEFORE, AFTER)}


def killed_around(site: SiteId, direction: Direction, state: Outbound | Inbound) -> list[AtMove]:
    return [AtMove(site, direction, state, moment) for moment in (BEFORE, AFTER)]


CALLS = {
    HQ: ("deliveries", "payload", "candidates", "delivered"),
    CN: ("deliveries", "payload", "candidates", "delivered", "keys", "close"),
}
"""What stands behind a border asks of it in a job that goes well, by the last word of the path."""

"""What a dry run says of the slot: a zone refuses one that is shorter than its genesis asks for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from isthmus.contracts.identifiers import SiteId


def slot_checks(slot_s: int, zones: Iterable[SiteId], minimum: Mapping[SiteId, int]) -> Iterator[str]:
    """Yield what each zone's border would check of a slot, and which zones would refuse it, where that is known.

    Args:
        slot_s: the question's slot, seconds.
        zones: whom it would be put to.
        minimum: the shortest slot that each zone takes, seconds, where it is known.

    >>> list(slot_checks(5, [], {}))
    ['the slot is no shorter than the zone asks for']
    """
    yield "the slot is no shorter than the zone asks for"
    for zone in zones:
        if slot_s < minimum.get(zone, 0):
            yield f"{zone} would refuse: {slot_s} s is shorter than its {minimum[zone]} s ({Code.SLOT_TOO_SHORT.value})"

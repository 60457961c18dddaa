"""What a job does next, and what its engineer sees of it. Pure.

A round starts when every zone's update of the slot before is in. After the last average the model of slot R goes out;
the job is done when every zone has been sent it and every evaluation that is due is in or declined. Whatever stops one
zone stops the job. A release that waits for officers is waited for.

A question is done when every zone has answered or will not; it has failed where none has answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from isthmus.contracts.errors import Code
from isthmus.contracts.jobs import JobState, ZoneProgress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isthmus.contracts.identifiers import OrderId, SiteId
    from isthmus.coordinator.progress import JobProgress, ZoneWork

Waiting: TypeAlias = Literal["order", "update", "evaluation", "approval", "nothing"]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Put the first model into the registry."""


@dataclass(frozen=True, slots=True)
class SubmitOrder:
    """Hand the own border the order for `zone`."""

    zone: SiteId


@dataclass(frozen=True, slots=True)
class SubmitModel:
    """Hand the own border the model of `slot` for `zone`."""

    zone: SiteId
    slot: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Average the updates of `slot` into the model of the next slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Finish:
    """All is in: the job is done."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The job cannot go on."""

    code: Code


Action: TypeAlias = Prepare | SubmitOrder | SubmitModel | Aggregate | Finish | Fail


def decide(progress: JobProgress) -> tuple[Action, ...]:
    """Return what is to be done now; nothing while the job waits or when it is over."""
    if progress.state is not JobState.RUNNING:
        return ()
    if progress.stop:
        return (Fail(progress.stop[1]),)
    return tuple(_due(progress))


def _due(progress: JobProgress) -> Iterator[Action]:
    if progress.work == "query":
        yield from _due_of_a_question(progress)
        return
    yield from (SubmitOrder(work.zone) for work in progress.zones if not work.ordered)
    if progress.work == "raw":
        return
    slot = progress.slot
    if slot < 0:
        yield Prepare()
        return
    # An update of this slot proves that the zone has its model, noted or not.
    unsent = [work for work in progress.zones if work.ordered and work.sent < slot and work.updates <= slot]
    yield from (SubmitModel(work.zone, slot) for work in unsent)
    if progress.round_complete:
        yield Aggregate(slot)
    elif slot == progress.rounds and all(_whole(progress, work) for work in progress.zones):
        yield Finish()


def _due_of_a_question(progress: JobProgress) -> Iterator[Action]:
    open_ = [work for work in progress.zones if _missing(work, progress.at_slots)]
    yield from (SubmitOrder(work.zone) for work in open_ if not work.ordered)
    if not open_:
        yield Fail(progress.reason) if progress.reason else Finish()


def _whole(progress: JobProgress, work: ZoneWork) -> bool:
    return work.ordered and work.sent == progress.rounds and not _missing(work, progress.at_slots)


def _missing(work: ZoneWork, slots: tuple[int, ...]) -> set[int]:
    return set(slots) - work.evaluated - {slot for slot, _ in work.declined}


def waiting(progress: JobProgress, work: ZoneWork) -> Waiting:
    """Return what is awaited from the zone."""
    if progress.state is not JobState.RUNNING:
        return "nothing"
    if progress.work == "query":
        return _waiting_for_an_answer(progress, work)
    if not work.ordered or progress.work == "raw":
        return "order"
    if work.held:
        return "approval"
    if work.updates <= progress.slot < progress.rounds:
        return "update"
    due = tuple(slot for slot in progress.at_slots if slot <= work.sent)
    return "evaluation" if _missing(work, due) else "nothing"


def _waiting_for_an_answer(progress: JobProgress, work: ZoneWork) -> Waiting:
    if not _missing(work, progress.at_slots):
        return "nothing"
    if not work.ordered:
        return "order"
    return "approval" if work.held else "evaluation"


def zone_views(progress: JobProgress, orders: Mapping[SiteId, OrderId]) -> tuple[ZoneProgress, ...]:
    """Return every zone's progress as the engineer sees it."""
    return tuple(
        ZoneProgress(
            zone=work.zone,
            order=orders[work.zone],
            slot=max(progress.slot, 0),
            waiting=waiting(progress, work),
            code=_code(progress, work),
        )
        for work in progress.zones
    )


def _code(progress: JobProgress, work: ZoneWork) -> Code | None:
    """Return what last stopped the zone: what stopped the job, a wait for officers, a declined evaluation."""
    if progress.stop and progress.stop[0] == work.zone:
        return progress.stop[1]
    if work.held and progress.state is JobState.RUNNING:
        return Code.APPROVAL_MISSING
    return work.declined[-1][1] if work.declined else None

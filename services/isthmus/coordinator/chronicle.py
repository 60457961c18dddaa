"""What a fact is told as: the events that an engineer watches. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from isthmus.contracts.errors import Code
from isthmus.contracts.jobs import JobState
from isthmus.coordinator.progress import (
    Averaged,
    Begun,
    Ended,
    EvaluationDeclined,
    EvaluationIn,
    Fact,
    Held,
    JobProgress,
    Ordered,
    Sent,
    Stopped,
    UpdateIn,
)

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import SiteId

EventName: TypeAlias = Literal[
    "submitted", "ordered", "round_started", "update_received", "round_done", "evaluation_received", "notice",
    "refused", "done", "failed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Happening:
    """One event, before it has an ordinal and a time."""

    event: EventName
    site: SiteId | None = None
    slot: int | None = None
    code: Code | None = None


def happenings(before: JobProgress, fact: Fact) -> tuple[Happening, ...]:  # noqa: C901  one line for each fact, exhaustively
    """Return what is told of a fact that changed `before`."""
    told: list[Happening] = []
    match fact:
        case Begun():
            told = [Happening("round_started", slot=0)]
        case Ordered(zone):
            told = [Happening("ordered", zone)]
        case Sent():
            pass
        case UpdateIn(zone, slot):
            told = [Happening("update_received", zone, slot)]
        case Averaged(slot):
            more = [Happening("round_started", slot=slot + 1)] if slot + 1 < before.rounds else []
            told = [Happening("round_done", slot=slot), *more]
        case EvaluationIn(zone, slot):
            told = [Happening("evaluation_received", zone, slot)]
        case EvaluationDeclined(zone, slot, code):
            told = [Happening("notice", zone, slot, code)]
        case Held(zone, _, slot):
            told = [Happening("notice", zone, slot, Code.APPROVAL_MISSING)]
        case Stopped(site, code):
            told = [Happening("refused", site, code=code)]
        case Ended(state):
            told = [_end(before, state)]
    return tuple(told)


def _end(before: JobProgress, state: JobState) -> Happening:
    if state is JobState.DONE:
        return Happening("done")
    return Happening("failed", code=before.reason)

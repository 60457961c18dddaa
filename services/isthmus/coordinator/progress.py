"""A job's progress as one value, and the facts that move it. Pure: no clock, network or storage.

Rules:
1. A fact counts once: applied again, or late, or out of turn, it changes nothing.
2. Facts that may arrive in any order lead to the same progress in every order.
3. A zone's updates count slot by slot. An update counts when its model can exist: its slot is the current one, or the
   next once every zone's update of the current one is in (the coordinator may be killed between sending a model and
   noting it).
4. A job ends once, and nothing moves it afterwards.
5. What stops one zone stops a job, but not a question: the other zones' answers stand without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code  # noqa: TC001  pydantic reads the fields' types when it stores progress
from isthmus.contracts.identifiers import SiteId  # noqa: TC001  as above
from isthmus.contracts.jobs import JobState

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.RUNNING: frozenset({JobState.DONE, JobState.FAILED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
}
"""What a job's state may become."""


ANSWER_SLOT = 0
"""The slot of a question's answer."""


@dataclass(frozen=True, slots=True)
class ZoneWork:
    """One zone of a job.

    Attributes:
        zone: its site.
        ordered: its order is with the own border.
        sent: highest slot whose model was handed over, -1 for none.
        updates: the updates of slots 0 to `updates` - 1 are in.
        evaluated: slots whose evaluation is in.
        declined: slots whose evaluation will not come, and why.
        held: releases that wait for the zone's officers.
    """

    zone: SiteId
    ordered: bool = False
    sent: int = -1
    updates: int = 0
    evaluated: frozenset[int] = frozenset()
    declined: tuple[tuple[int, Code], ...] = ()
    held: frozenset[tuple[Kind, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class JobProgress:
    """All that decides what a job does next.

    Attributes:
        work: train a model, put a question, or ask for rows.
        rounds: how many rounds of training, 0 where there is none.
        at_slots: slots at which every zone owes an evaluation, or its answer to a question.
        zones: each zone's part.
        slot: the latest model there is; -1 before the first.
        state: where the job stands.
        stop: the site that stopped it and why, None while nothing did.
    """

    work: Literal["train", "raw", "query"]
    rounds: int
    at_slots: tuple[int, ...]
    zones: tuple[ZoneWork, ...]
    slot: int = -1
    state: JobState = JobState.RUNNING
    stop: tuple[SiteId, Code] | None = None

    def zone(self, zone: SiteId) -> ZoneWork | None:
        """Return a zone's part, None where the job has no such zone."""
        return next((work for work in self.zones if work.zone == zone), None)

    @property
    def reason(self) -> Code | None:
        """Why the job failed or will: what stopped it; of a question without any answer, the first zone's code."""
        if self.stop:
            return self.stop[1]
        if self.work != "query" or any(work.evaluated for work in self.zones):
            return None
        return next((code for work in self.zones for _, code in work.declined), None)

    @property
    def round_complete(self) -> bool:
        """True when every zone's update of the current slot is in."""
        return 0 <= self.slot < self.rounds and all(work.updates > self.slot for work in self.zones)


@dataclass(frozen=True, slots=True)
class Begun:
    """The model of slot 0 is in the registry."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """The own border took the order for `zone`."""

    zone: SiteId


@dataclass(frozen=True, slots=True)
class Sent:
    """The own border took the model of `slot` for `zone`."""

    zone: SiteId
    slot: int


@dataclass(frozen=True, slots=True)
class UpdateIn:
    """The update of `slot` has crossed from `zone`."""

    zone: SiteId
    slot: int


@dataclass(frozen=True, slots=True)
class Averaged:
    """The updates of `slot` are averaged; the model of the next slot is in the registry."""

    slot: int


@dataclass(frozen=True, slots=True)
class EvaluationIn:
    """The evaluation of `slot` has crossed from `zone`."""

    zone: SiteId
    slot: int


@dataclass(frozen=True, slots=True)
class EvaluationDeclined:
    """The evaluation of `slot` will not come from `zone`."""

    zone: SiteId
    slot: int
    code: Code


@dataclass(frozen=True, slots=True)
class Held:
    """A release of `zone` waits for its officers."""

    zone: SiteId
    kind: Kind
    slot: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """`site` said no to something that the job cannot do without."""

    site: SiteId
    code: Code


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over."""

    state: JobState


ZoneFact: TypeAlias = Ordered | Sent | UpdateIn | EvaluationIn | EvaluationDeclined | Held
Fact: TypeAlias = Begun | Averaged | Stopped | Ended | ZoneFact


def advance(progress: JobProgress, state: JobState) -> JobProgress:
    """Move the job's state along `TRANSITIONS`; a move that is not there changes nothing."""
    return replace(progress, state=state) if state in TRANSITIONS[progress.state] else progress


def apply(progress: JobProgress, fact: Fact) -> JobProgress:
    """Return the progress after `fact`: an equal value where the fact is old, late or out of turn."""
    if progress.state is not JobState.RUNNING:
        return progress
    match fact:
        case Begun():
            return replace(progress, slot=max(progress.slot, 0))
        case Averaged(slot):
            due = progress.round_complete and progress.slot == slot
            return replace(progress, slot=slot + 1) if due else progress
        case Stopped(site, code):
            return _stopped(progress, site, code)
        case Ended(state):
            return advance(progress, state)
        case Ordered() | Sent() | UpdateIn() | EvaluationIn() | EvaluationDeclined() | Held():
            return replace(progress, zones=tuple(_moved(progress, work, fact) for work in progress.zones))


def _moved(progress: JobProgress, work: ZoneWork, fact: ZoneFact) -> ZoneWork:
    if fact.zone != work.zone:
        return work
    match fact:
        case Ordered():
            return replace(work, ordered=True)
        case Sent():
            return replace(work, sent=max(work.sent, fact.slot))
        case UpdateIn():
            return _updated(progress, work, fact.slot)
        case EvaluationIn() | EvaluationDeclined():
            return _evaluated(progress, work, fact)
        case Held():
            awaited = _awaited(progress, work, fact.kind, fact.slot)
            return replace(work, held=work.held | {(fact.kind, fact.slot)}) if awaited else work


def _stopped(progress: JobProgress, site: SiteId, code: Code) -> JobProgress:
    if progress.work == "query":
        return replace(progress, zones=tuple(_given_up(progress, work, site, code) for work in progress.zones))
    return replace(progress, stop=progress.stop or (site, code))


def _given_up(progress: JobProgress, work: ZoneWork, site: SiteId, code: Code) -> ZoneWork:
    """Expect no answer any more: of the zone that stopped, or of every zone where the coordinator's own site did."""
    if site != work.zone and progress.zone(site) is not None:
        return work
    return _evaluated(progress, work, EvaluationDeclined(work.zone, ANSWER_SLOT, code))


def _evaluated(progress: JobProgress, work: ZoneWork, fact: EvaluationIn | EvaluationDeclined) -> ZoneWork:
    """Settle an evaluation: one that came outweighs a word that it would not."""
    held = work.held - {(Kind.AGGREGATE, fact.slot)}
    if isinstance(fact, EvaluationDeclined):
        if not _owed(progress, work, fact.slot):
            return work
        return replace(work, declined=tuple(sorted((*work.declined, (fact.slot, fact.code)))), held=held)
    if fact.slot not in progress.at_slots:
        return work
    declined = tuple(entry for entry in work.declined if entry[0] != fact.slot)
    return replace(work, evaluated=work.evaluated | {fact.slot}, declined=declined, held=held)


def _updated(progress: JobProgress, work: ZoneWork, slot: int) -> ZoneWork:
    reach = progress.slot + 1 if progress.round_complete else progress.slot
    if slot != work.updates or slot > reach or slot >= progress.rounds:
        return work
    return replace(work, updates=slot + 1, held=work.held - {(Kind.MODEL_UPDATE, slot)})


def _owed(progress: JobProgress, work: ZoneWork, slot: int) -> bool:
    return slot in progress.at_slots and slot not in work.evaluated and slot not in {s for s, _ in work.declined}


def _awaited(progress: JobProgress, work: ZoneWork, kind: Kind, slot: int) -> bool:
    if kind is Kind.AGGREGATE:
        return _owed(progress, work, slot)
    return kind is Kind.MODEL_UPDATE and work.updates <= slot < progress.rounds


def awaits(progress: JobProgress, update: UpdateIn) -> bool:
    """Say whether an update has come in that is still to be averaged."""
    work = progress.zone(update.zone)
    running = progress.state is JobState.RUNNING
    return running and work is not None and progress.slot <= update.slot < work.updates

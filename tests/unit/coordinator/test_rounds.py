from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, OrderId
from isthmus.contracts.inside import Delivery
from isthmus.contracts.jobs import JobState
from isthmus.coordinator.intake import judge
from isthmus.coordinator.progress import (
    TRANSITIONS,
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
    ZoneWork,
    apply,
)
from isthmus.coordinator.rounds import (
    Action,
    Aggregate,
    Fail,
    Finish,
    Prepare,
    SubmitModel,
    SubmitOrder,
    decide,
    waiting,
)
from isthmus.proof import ids
from unit.coordinator.jobs import CN, HQ, JOB, US

ZONES = (CN, US)
MISHAPS = 80
"""Steps in which things are repeated and processes die; then the job is let run."""
ORDERS = {zone: OrderId(Digest.of(zone.encode())) for zone in ZONES}


def start(rounds: int = 2, at_slots: tuple[int, ...] = (0, 2)) -> JobProgress:
    return JobProgress("train", rounds, at_slots, tuple(ZoneWork(zone) for zone in ZONES))


def after(progress: JobProgress, *facts: Fact) -> JobProgress:
    for fact in facts:
        progress = apply(progress, fact)
    return progress


def outcome(action: Action) -> Fact:
    """What the runner notes once an action has been done."""
    match action:
        case Prepare():
            return Begun()
        case SubmitOrder(zone):
            return Ordered(zone)
        case SubmitModel(zone, slot):
            return Sent(zone, slot)
        case Aggregate(slot):
            return Averaged(slot)
        case Finish():
            return Ended(JobState.DONE)
        case Fail():
            return Ended(JobState.FAILED)


def handed_over(action: Action) -> list[Action]:
    """What an action hands to the border before it is noted: an average is sent while it is written."""
    if isinstance(action, Aggregate):
        return [SubmitModel(zone, action.slot + 1) for zone in ZONES]
    return [action]


def answers(action: Action, at_slots: tuple[int, ...], rounds: int, *, declines: bool) -> list[Fact]:
    """What a zone sends back for what was submitted to it."""
    if not isinstance(action, SubmitModel):
        return []
    facts: list[Fact] = []
    if action.slot in at_slots:
        done = EvaluationDeclined(action.zone, action.slot, Code.NOT_RELEASED)
        facts += [Held(action.zone, Kind.AGGREGATE, action.slot)]
        facts += [done if declines else EvaluationIn(action.zone, action.slot)]
    if action.slot < rounds:
        facts += [Held(action.zone, Kind.MODEL_UPDATE, action.slot), UpdateIn(action.zone, action.slot)]
    return facts


@given(data=st.data(), rounds=st.integers(1, 4), declines=st.booleans())
def test_every_interleaving_repeat_and_restart_ends_in_the_same_state(
    data: st.DataObject,
    rounds: int,
    declines: bool,  # noqa: FBT001  hypothesis hands arguments over by name
) -> None:
    at_slots = tuple(data.draw(st.sets(st.integers(0, rounds), max_size=3).map(sorted)))
    progress = start(rounds, at_slots)
    noted: list[Action] = []
    under_way: list[Fact] = []
    seen: list[Fact] = []
    for step in itertools.count():
        actions = decide(progress)
        choices = ["act"] * bool(actions) + ["deliver"] * bool(under_way)
        if step < MISHAPS:
            choices += ["act and die"] * bool(actions) + ["repeat"] * bool(seen)
        if not actions and not under_way:
            break
        match data.draw(st.sampled_from(choices)):
            case "act":
                action = data.draw(st.sampled_from(actions))
                assert action not in noted, "what was noted as done was asked for again"
                noted.append(action)
                progress = apply(progress, outcome(action))
                under_way += answers(action, at_slots, rounds, declines=declines)
            case "act and die":  # done, or done in part, and not noted
                for sent in handed_over(data.draw(st.sampled_from(actions))):
                    under_way += answers(sent, at_slots, rounds, declines=declines)
            case "deliver":
                fact = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                seen.append(fact)
                progress = apply(progress, fact)
            case _:
                progress = apply(progress, data.draw(st.sampled_from(seen)))
    assert progress.state is JobState.DONE
    assert progress.slot == rounds
    for work in progress.zones:
        assert (work.sent, work.updates, work.held) == (rounds, rounds, frozenset())
        settled = {slot for slot, _ in work.declined} if declines else work.evaluated
        assert settled == set(at_slots)


def test_a_round_starts_only_when_every_zone_has_answered() -> None:
    progress = after(start(), Ordered(CN), Ordered(US), Begun(), Sent(CN, 0), Sent(US, 0), UpdateIn(CN, 0))
    assert decide(progress) == ()
    assert decide(apply(progress, UpdateIn(US, 0))) == (Aggregate(0),)


def test_an_update_that_outran_the_note_of_its_model_counts() -> None:
    """Killed after the model of slot 1 went out and before that was noted, its answer must not be lost."""
    sent = (Ordered(CN), Ordered(US), Begun(), Sent(CN, 0), Sent(US, 0))
    progress = after(start(), *sent, UpdateIn(CN, 0), UpdateIn(US, 0), UpdateIn(CN, 1))
    assert decide(progress) == (Aggregate(0),)
    progress = apply(progress, Averaged(0))
    assert decide(progress) == (SubmitModel(US, 1),)
    assert decide(after(progress, Sent(US, 1), UpdateIn(US, 1))) == (Aggregate(1),)


@pytest.mark.parametrize("fact", [UpdateIn(CN, 1), UpdateIn(CN, 5), Averaged(0), Averaged(1), EvaluationIn(CN, 1)])
def test_a_fact_out_of_turn_changes_nothing(fact: Fact) -> None:
    progress = after(start(), Ordered(CN), Ordered(US), Begun(), Sent(CN, 0), Sent(US, 0))
    assert apply(progress, fact) == progress


@pytest.mark.parametrize("late", [UpdateIn(CN, 0), Stopped(CN, Code.COMPUTE_FAILED), Ended(JobState.DONE), Begun()])
@pytest.mark.parametrize("end", [JobState.DONE, JobState.FAILED])
def test_nothing_moves_a_job_that_is_over(end: JobState, late: Fact) -> None:
    progress = apply(start(), Ended(end))
    assert apply(progress, late) == progress
    assert decide(progress) == ()


def test_the_states_are_as_shown() -> None:
    moves = {(old, new) for old, new in itertools.product(JobState, JobState) if new in TRANSITIONS[old]}
    assert moves == {(JobState.RUNNING, JobState.DONE), (JobState.RUNNING, JobState.FAILED)}


def test_what_stops_one_zone_fails_the_job_with_its_code() -> None:
    progress = after(start(), Ordered(CN), Stopped(US, Code.ALGORITHM_UNKNOWN), Stopped(CN, Code.COMPUTE_FAILED))
    assert decide(progress) == (Fail(Code.ALGORITHM_UNKNOWN),)
    assert progress.stop == (US, Code.ALGORITHM_UNKNOWN)


def test_rows_are_asked_for_once_and_nothing_follows() -> None:
    progress = JobProgress("raw", 0, (), (ZoneWork(US),))
    assert decide(progress) == (SubmitOrder(US),)
    progress = apply(progress, Ordered(US))
    assert decide(progress) == ()
    assert decide(apply(progress, Stopped(US, Code.PERMIT_MISSING))) == (Fail(Code.PERMIT_MISSING),)


def test_a_held_release_is_waited_for_and_shown() -> None:
    progress = after(start(), Ordered(CN), Ordered(US), Begun(), Sent(CN, 0), Sent(US, 0))
    assert waiting(progress, progress.zones[0]) == "update"
    progress = apply(progress, Held(CN, Kind.MODEL_UPDATE, 0))
    assert waiting(progress, progress.zones[0]) == "approval"
    assert decide(progress) == ()
    progress = apply(progress, UpdateIn(CN, 0))
    assert waiting(progress, progress.zones[0]) == "evaluation"


def delivery(kind: Kind, *, slot: int = 0, **changes: object) -> Delivery:
    to = CN if changes.get("event") == "refused" else HQ
    values: dict[str, object] = {
        "ordinal": 1,
        "event": "crossing",
        "crossing": ids.crossing_id(ORDERS[CN], kind, to, slot),
        "kind": kind,
        "sender": CN,
        "job": JOB,
        "order": ORDERS[CN],
        "slot": slot,
        "contributors": Contributors(vehicles=20, windows=1000) if kind is Kind.MODEL_UPDATE else None,
        "code": None,
        **changes,
    }
    return Delivery.model_validate(values)


def meaning(item: Delivery, unread: Code | None = None) -> Fact | None:
    return judge(after(start(), Begun()), own=HQ, zone=CN, delivery=item, unread=unread)


def about(kind: Kind, slot: int, code: Code) -> Delivery:
    return delivery(Kind.NOTICE, slot=3, about=ids.crossing_id(ORDERS[CN], kind, HQ, slot), code=code)


def test_deliveries_mean_what_they_say() -> None:
    assert meaning(delivery(Kind.MODEL_UPDATE)) == UpdateIn(CN, 0)
    assert meaning(delivery(Kind.AGGREGATE, slot=2)) == EvaluationIn(CN, 2)
    refused = delivery(Kind.ORDER, event="refused", code=Code.PERMIT_MISSING)
    assert meaning(refused) == Stopped(CN, Code.PERMIT_MISSING)


def test_notices_are_told_apart_by_what_they_are_about() -> None:
    assert meaning(about(Kind.MODEL_UPDATE, 0, Code.APPROVAL_MISSING)) == Held(CN, Kind.MODEL_UPDATE, 0)
    assert meaning(about(Kind.AGGREGATE, 0, Code.APPROVAL_MISSING)) == Held(CN, Kind.AGGREGATE, 0)
    declined = EvaluationDeclined(CN, 0, Code.NOT_RELEASED)
    assert meaning(about(Kind.AGGREGATE, 0, Code.NOT_RELEASED)) == declined
    assert meaning(about(Kind.MODEL_UPDATE, 0, Code.NOT_RELEASED)) == Stopped(CN, Code.NOT_RELEASED)
    assert meaning(about(Kind.AGGREGATE, 0, Code.COMPUTE_FAILED)) == Stopped(CN, Code.COMPUTE_FAILED)
    assert meaning(about(Kind.ORDER, 0, Code.LINK_HALTED)) == Stopped(CN, Code.LINK_HALTED)
    assert meaning(delivery(Kind.NOTICE)) == Stopped(CN, Code.MALFORMED)


def test_what_cannot_be_weighed_or_read_is_not_taken() -> None:
    assert meaning(delivery(Kind.MODEL_UPDATE, contributors=None)) == Stopped(CN, Code.TOO_FEW_CONTRIBUTORS)
    unread = meaning(delivery(Kind.AGGREGATE, slot=2), Code.MALFORMED)
    assert unread == EvaluationDeclined(CN, 2, Code.MALFORMED)


def test_rows_are_never_taken_in() -> None:
    assert meaning(delivery(Kind.EXTRACT)) == Stopped(CN, Code.UNKNOWN_KIND)


@pytest.mark.parametrize(
    "item",
    [
        delivery(Kind.MODEL_UPDATE, sender=US),
        delivery(Kind.MODEL_UPDATE, crossing=ids.crossing_id(ORDERS[US], Kind.MODEL_UPDATE, HQ, 0)),
        delivery(Kind.MODEL_UPDATE, crossing=ids.crossing_id(ORDERS[CN], Kind.MODEL_UPDATE, HQ, 1)),
        delivery(Kind.LICENCE),
        delivery(Kind.ORDER),
        delivery(Kind.ORDER, event="refused", crossing=ids.crossing_id(ORDERS[US], Kind.ORDER, US, 0)),
    ],
)
def test_what_fits_no_zone_or_slot_means_nothing(item: Delivery) -> None:
    assert meaning(item) is None

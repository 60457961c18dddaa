"""What a delivery means for its job. Pure: a delivery becomes one fact or none.

The border has verified who sent it; here it is held to the order it belongs to. What fits no order, zone or slot means
nothing. Rows are never taken in: a coordinator has nowhere to hold raw data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import Answer, primitives
from isthmus.coordinator.progress import EvaluationDeclined, EvaluationIn, Fact, Held, Stopped, UpdateIn
from isthmus.proof import canonical, ids

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import Delivery
    from isthmus.contracts.orders import TrainingPlan
    from isthmus.contracts.queries import QueryPlan
    from isthmus.coordinator.progress import JobProgress

MAX_ANSWER = 4 << 20
"""Bytes of an answer that are read at most."""

ENDS_A_JOB = frozenset({Code.COMPUTE_FAILED, Code.LINK_HALTED})
"""Codes that end a job whatever the notice is about."""


def judge(
    progress: JobProgress, *, own: SiteId, zone: SiteId, delivery: Delivery, unread: Code | None = None
) -> Fact | None:
    """Return what `delivery` means for a job.

    Args:
        progress: the job whose order the delivery names.
        own: the coordinator's site.
        zone: the zone that the order is for.
        delivery: what the border handed over.
        unread: why the evaluation that it brought cannot be read, None where it can.
    """
    if delivery.event == "refused":
        sent = ids.crossing_id(delivery.order, delivery.kind, zone, delivery.slot)
        return Stopped(zone, delivery.code or Code.MALFORMED) if sent == delivery.crossing else None
    if delivery.sender != zone:
        return None
    if delivery.kind is Kind.NOTICE:
        return _noticed(progress, own, zone, delivery)
    if delivery.crossing != ids.crossing_id(delivery.order, delivery.kind, own, delivery.slot):
        return None
    return _released(zone, delivery, unread)


def weighed(delivery: Delivery, training: TrainingPlan | None) -> Delivery:
    """Return a delivery with what its update weighs: as much in every zone, where the training is private."""
    if delivery.kind is not Kind.MODEL_UPDATE or training is None or training.privacy is None:
        return delivery
    fixed = training.privacy.vehicles
    return delivery.model_copy(update={"contributors": Contributors(vehicles=fixed, windows=fixed)})


def read_answer(plan: QueryPlan, payload: bytes) -> Answer:
    """Return the answer that a zone's release is.

    Raises:
        Refusal: `TOO_LARGE` or `MALFORMED`; `SCHEMA_MISMATCH` where it answers another question than was asked.
    """
    answer = canonical.load(Answer, payload, limit=MAX_ANSWER)
    spec, parts = plan.spec, primitives(plan.spec)
    widths = [part.width for part in parts]
    fits = (
        answer.question == ids.question_digest(spec)
        and answer.mode is plan.mode
        and answer.epsilon_micro <= plan.epsilon_micro
        and len(answer.noise) == len(parts)
        and len(answer.cells) == spec.domain_size()
        and all(cell.suppressed or [len(v) for v in cell.values] == widths for cell in answer.cells)
    )
    if not fits:
        raise Refusal(Code.SCHEMA_MISMATCH, "The answer is to another question, or protected in another way.")
    return answer


def _released(zone: SiteId, delivery: Delivery, unread: Code | None) -> Fact | None:
    match delivery.kind:
        case Kind.MODEL_UPDATE if delivery.contributors is None:
            return Stopped(zone, Code.TOO_FEW_CONTRIBUTORS)
        case Kind.MODEL_UPDATE:
            return UpdateIn(zone, delivery.slot)
        case Kind.AGGREGATE if unread:
            return EvaluationDeclined(zone, delivery.slot, unread)
        case Kind.AGGREGATE:
            return EvaluationIn(zone, delivery.slot)
        case Kind.EXTRACT:
            return Stopped(zone, Code.UNKNOWN_KIND)
        case _:
            return None


def _noticed(progress: JobProgress, own: SiteId, zone: SiteId, delivery: Delivery) -> Fact:
    code = delivery.code or Code.MALFORMED
    kind, slot = _locate(progress, own, delivery) or (None, max(progress.slot, 0))
    if code is Code.APPROVAL_MISSING:
        return Held(zone, kind or Kind.MODEL_UPDATE, slot)
    if kind is Kind.AGGREGATE and code not in ENDS_A_JOB:
        return EvaluationDeclined(zone, slot, code)
    return Stopped(zone, code)


def _locate(progress: JobProgress, own: SiteId, delivery: Delivery) -> tuple[Kind, int] | None:
    """Find which release of the order a notice is about, newest first."""
    for slot in range(progress.slot + 1, -1, -1):
        for kind in (Kind.MODEL_UPDATE, Kind.AGGREGATE):
            if ids.crossing_id(delivery.order, kind, own, slot) == delivery.about:
                return kind, slot
    return None

"""From a question to a job: the plan that every zone's order carries, and the columns of the answer. Pure.

The text is read here, at headquarters, and goes no further: an order carries the specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.analytics import algorithm, gate
from isthmus.contracts.answers import DELTA_EXPONENT, EPSILON_MICRO, AnswerColumn, AnswerColumns
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.jobs import JobRequest
from isthmus.contracts.queries import Mode, QueryPlan
from isthmus.contracts.tables import TABLES
from isthmus.privacy.mechanism import noise_of
from isthmus.proof import ids

if TYPE_CHECKING:
    from isthmus.contracts.answers import QueryRequest

NO_CLIP_MICRO = 1
"""An answer has no norm to clip; an order says some."""


def plan_of(request: QueryRequest) -> tuple[QueryPlan, AnswerColumns]:
    """Return how a question is answered, and its answer's columns.

    Raises:
        Refusal: `QUERY_INVALID`, `QUERY_NAME_UNKNOWN`, `QUERY_TOO_WIDE` or `TOO_LARGE`: the text is no question that
            can be asked (see `analytics.gate`); `INPUT_INVALID`: no zone could noise it at so small an epsilon.
    """
    if request.spec is not None:
        spec, selected = request.spec, gate.columns_of(request.spec)
        if gate.is_too_wide(spec):
            why = f"An answer has at most {gate.MAX_NUMBERS} numbers."
            raise Refusal(Code.QUERY_TOO_WIDE, "The answer would be too wide.", why=why)
    else:
        question = gate.parse(
            request.sql or "",
            rows_per_vehicle=request.rows_per_vehicle,
            groups_per_vehicle=request.groups_per_vehicle,
        )
        spec, selected = question.spec, question.columns
    private = request.mode is Mode.DP
    plan = QueryPlan(
        spec=spec,
        catalogue=ids.catalogue_digest(),
        mode=request.mode,
        epsilon_micro=(request.epsilon_micro or EPSILON_MICRO) if private else 0,
        delta_exponent=(request.delta_exponent or DELTA_EXPONENT) if private else 0,
        slot_s=request.slot_s,
    )
    if private:
        noise_of(plan)
    columns = (AnswerColumn(label=s.label, figure=s.figure, quantile_ppm=s.quantile_ppm) for s in selected)
    return plan, AnswerColumns(items=tuple(columns))


def as_job(request: QueryRequest, plan: QueryPlan) -> JobRequest:
    """Return the job that puts a question to its zones."""
    return JobRequest(
        name=request.name,
        work="query",
        algorithm=algorithm.NAME,
        zones=request.zones,
        groups=(TABLES[plan.spec.table].group,),
        purpose=request.purpose,
        recipients=request.recipients,
        query=plan,
        clip_norm_micro=NO_CLIP_MICRO,
        valid_for_s=request.valid_for_s,
    )

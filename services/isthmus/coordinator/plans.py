"""From a job request to one order for each zone, whose bytes never change afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.analytics import algorithm as statistics
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.orders import Algorithm, Order
from isthmus.coordinator.progress import ANSWER_SLOT, JobProgress, ZoneWork
from isthmus.learning import algorithm
from isthmus.learning.forecaster import MODEL_SCHEMA, initial_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.identifiers import Digest, JobId, Name, SiteId
    from isthmus.contracts.jobs import JobRequest, ZoneData
    from isthmus.contracts.tensors import TensorSpec
    from isthmus.learning.weights import Weights


@dataclass(frozen=True, slots=True)
class Recipe:
    """An algorithm that jobs may name: the digest of its source, its model's schema, its first weights by seed."""

    digest: Digest
    schema: tuple[TensorSpec, ...]
    first: Callable[[int], Weights]


def default_recipes() -> dict[Name, Recipe]:
    """Return the algorithms of this release."""
    return {
        algorithm.NAME: Recipe(algorithm.digest(), MODEL_SCHEMA, initial_weights),
        statistics.NAME: Recipe(statistics.digest(), (), _no_weights),
    }


def _no_weights(_: int) -> Weights:
    return {}


def make_orders(
    request: JobRequest, recipes: dict[Name, Recipe], *, job: JobId, issuer: SiteId, now: int
) -> tuple[Order, ...]:
    """Return the job's orders, one for each zone.

    Raises:
        Refusal: `ALGORITHM_UNKNOWN`; `INPUT_INVALID` where the parts of the request do not fit together.
    """
    recipe = recipes.get(request.algorithm)
    if recipe is None:
        raise Refusal(
            Code.ALGORITHM_UNKNOWN,
            "The coordinator does not know this algorithm.",
            why="Orders name registered algorithms only.",
            remedy=f"Use one of: {', '.join(sorted(recipes))}.",
        )
    if any(data.zone == issuer for data in request.zones):
        raise Refusal(Code.INPUT_INVALID, "The request is not valid at `zones`.", why="A site gives itself no orders.")
    try:
        return tuple(_order(request, recipe, data, job=job, issuer=issuer, now=now) for data in request.zones)
    except ValueError as error:
        raise Refusal(
            Code.INPUT_INVALID,
            "The request is not valid at `evaluation`.",
            why="Rows come without an evaluation; an evaluation stands at slots 0 to `training.rounds`.",
        ) from error


def first_progress(request: JobRequest) -> JobProgress:
    """Return where a new job stands: nothing sent, nothing in."""
    return JobProgress(
        work=request.work,
        rounds=request.training.rounds if request.training else 0,
        at_slots=_owed_at(request),
        zones=tuple(ZoneWork(zone) for zone in sorted(data.zone for data in request.zones)),
    )


def _owed_at(request: JobRequest) -> tuple[int, ...]:
    if request.query is not None:
        return (ANSWER_SLOT,)
    return request.evaluation.at_slots if request.evaluation else ()


def _order(request: JobRequest, recipe: Recipe, data: ZoneData, *, job: JobId, issuer: SiteId, now: int) -> Order:
    trains, asks = request.work == "train", request.query is not None
    outputs = [
        Kind.MODEL_UPDATE if trains else Kind.AGGREGATE if asks else Kind.EXTRACT,
        *([Kind.AGGREGATE] if trains and request.evaluation else []),
    ]
    return Order(
        version=1,
        job=job,
        issuer=issuer,
        zone=data.zone,
        algorithm=Algorithm(name=request.algorithm, digest=recipe.digest),
        dataset=data.dataset,
        groups=request.groups,
        purpose=request.purpose,
        recipients=request.recipients,
        outputs=tuple(sorted(outputs)),
        training=request.training,
        evaluation=request.evaluation,
        query=request.query,
        tensors=recipe.schema if trains else (),
        clip_norm_micro=request.clip_norm_micro,
        base=request.base if trains else None,
        issued_at=now,
        expires_at=now + request.valid_for_s,
    )

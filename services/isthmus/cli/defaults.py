"""The training job that `jobs run --demo` submits, and that the demo measures. Described in `docs/reference/cli.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.answers import SLOT_S, QueryRequest
from isthmus.contracts.identifiers import Name
from isthmus.contracts.jobs import JobRequest, ZoneData
from isthmus.contracts.orders import DatasetRef, EvaluationPlan, TrainingPlan, TrainingPrivacy, Weighting
from isthmus.contracts.queries import Mode
from isthmus.contracts.raw_table import Group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.contracts.identifiers import SiteId

ALGORITHM = Name("motion-forecast-fedavg")
DATASET = DatasetRef(dataset=Name("drives"), snapshot=Name("2026q4"))
PURPOSE = Name("forecast-training")
STATISTICS = Name("fleet-statistics")
"""The purpose of questions."""
ANSWERED_WITHIN_S, APPROVED_WITHIN_S = 900, 86_400
"""How long a question's orders are valid: under dp no person is waited for."""

ROUNDS = 60
DELTA_EXPONENT = 6
EPOCHS = 2
ADAPTATION_EPOCHS = 10
HELD_OUT = 12
CLIP_NORM_MICRO = 20_000_000
BAND_UM = 20_000
MINIMUM_VEHICLES = 10


def training_plan(rounds: int = ROUNDS, privacy: TrainingPrivacy | None = None) -> TrainingPlan:
    """Return the default plan over `rounds`.

    The local reference makes as many passes over its zone's data as the adapted model has made: it is compared with a
    model that had the same work.
    """
    return TrainingPlan(
        rounds=rounds,
        epochs=EPOCHS,
        batch_size=256,
        learning_rate_micro=1_000,
        seed=7,
        weighting=Weighting.VEHICLES,
        held_out_vehicles=HELD_OUT,
        split_salt=Name("split-1"),
        adaptation_epochs=ADAPTATION_EPOCHS,
        reference_epochs=rounds * EPOCHS + ADAPTATION_EPOCHS,
        privacy=privacy,
    )


def evaluation_plan(rounds: int = ROUNDS) -> EvaluationPlan:
    """Return the default evaluation: of the last shared model, in bands of 2 cm, over at least ten vehicles."""
    return EvaluationPlan(at_slots=(rounds,), band_um=BAND_UM, minimum_vehicles=MINIMUM_VEHICLES)


def training_job(
    coordinator: SiteId,
    zones: Iterable[SiteId],
    *,
    rounds: int = ROUNDS,
    dataset: DatasetRef = DATASET,
    privacy: TrainingPrivacy | None = None,
) -> JobRequest:
    """Return the default training job over `zones`, with every site as a recipient."""
    chosen = sorted(zones)
    return JobRequest(
        name=Name("two-zones"),
        work="train",
        algorithm=ALGORITHM,
        zones=tuple(ZoneData(zone=zone, dataset=dataset) for zone in chosen),
        groups=(Group.MOTION,),
        purpose=PURPOSE,
        recipients=tuple(sorted((coordinator, *chosen))),
        training=training_plan(rounds, privacy),
        evaluation=evaluation_plan(rounds),
        clip_norm_micro=CLIP_NORM_MICRO,
    )


def question(
    coordinator: SiteId,
    zones: Iterable[SiteId],
    sql: str,
    *,
    mode: Mode = Mode.DP,
    epsilon_micro: int | None = None,
    slot_s: int = SLOT_S,
    dataset: DatasetRef = DATASET,
) -> QueryRequest:
    """Return a question to `zones`, whose answers headquarters alone may hold."""
    return QueryRequest(
        sql=sql,
        zones=tuple(ZoneData(zone=zone, dataset=dataset) for zone in sorted(zones)),
        mode=mode,
        epsilon_micro=epsilon_micro,
        slot_s=slot_s,
        purpose=STATISTICS,
        recipients=(coordinator,),
        valid_for_s=ANSWERED_WITHIN_S if mode is Mode.DP else APPROVED_WITHIN_S,
    )


def raw_job(coordinator: SiteId, zone: SiteId, dataset: DatasetRef = DATASET) -> JobRequest:
    """Return a job that asks a zone for its rows, every column of them: what no zone grants without a permit."""
    return JobRequest(
        name=Name("raw-rows"),
        work="raw",
        algorithm=ALGORITHM,
        zones=(ZoneData(zone=zone, dataset=dataset),),
        groups=tuple(sorted(Group)),
        purpose=PURPOSE,
        recipients=(coordinator,),
    )

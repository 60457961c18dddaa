"""The jobs API of the coordinator: what an engineer asks for and sees. All of it has crossed or never left."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.contracts.crossings import Sites
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrderId, PersonId, SiteId
from isthmus.contracts.orders import DatasetRef, Evaluation, EvaluationPlan, TrainingPlan, TrainingPrivacy
from isthmus.contracts.queries import QueryPlan
from isthmus.contracts.raw_table import Group
from isthmus.contracts.wire import Count, Positive, SortedUnique, UnixSeconds, Wire


@unique
class ApiRole(StrEnum):
    """What a token of the jobs API allows."""

    ENGINEER = "engineer"
    VIEWER = "viewer"


class ZoneData(Wire):
    """Where a job works, and on what."""

    zone: SiteId
    dataset: DatasetRef


class JobRequest(Wire):
    """A job: train one model over the zones, put a question to them (`query`), or (`raw`) ask them for rows.

    No zone grants rows without a permit. A question comes in at `/v1/queries` (`contracts.answers`) and is a job here.
    """

    name: Name
    work: Literal["train", "raw", "query"] = "train"
    algorithm: Name
    zones: Annotated[tuple[ZoneData, ...], Field(min_length=1, max_length=8)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=5), SortedUnique] = (Group.MOTION,)
    purpose: Name
    recipients: Sites
    training: TrainingPlan | None = None
    evaluation: EvaluationPlan | None = None
    query: QueryPlan | None = None
    clip_norm_micro: Positive = 10_000_000
    base: Digest | None = None
    valid_for_s: Annotated[int, Field(strict=True, ge=60, le=31_536_000)] = 86_400

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.work == "train") != (self.training is not None):
            raise ValueError("a training job, and only such a one, has a training plan")
        if (self.work == "query") != (self.query is not None):
            raise ValueError("a question, and nothing else, has a plan of how it is answered")
        if len({z.zone for z in self.zones}) != len(self.zones):
            raise ValueError("a zone is named twice")
        return self


@unique
class JobState(StrEnum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ZoneProgress(Wire):
    """One zone of a job: its order, the slot it works on, and what last stopped it, if anything did."""

    zone: SiteId
    order: OrderId
    slot: Count
    waiting: Literal["order", "update", "evaluation", "approval", "nothing"]
    code: Code | None


class JobView(Wire):
    """A job as its engineer sees it. `privacy` is what protects the vehicles of a private training, None elsewhere."""

    id: JobId
    name: Name
    work: Literal["train", "raw", "query"]
    submitted_by: PersonId
    state: JobState
    code: Code | None
    rounds: Count
    rounds_done: Count
    privacy: TrainingPrivacy | None
    zones: tuple[ZoneProgress, ...]
    model: Digest | None
    created_at: UnixSeconds
    finished_at: UnixSeconds | None


class JobEvent(Wire):
    """One step of a job. `round_us` stands on `round_done`: the time since the round's models were submitted."""

    ordinal: Positive
    job: JobId
    event: Literal[
        "submitted",
        "ordered",
        "round_started",
        "update_received",
        "round_done",
        "evaluation_received",
        "notice",
        "refused",
        "done",
        "failed",
    ]
    site: SiteId | None
    slot: Count | None
    code: Code | None
    round_us: Count | None
    at: UnixSeconds


class JobEvents(Wire):
    """Answer to a long poll of a job's events."""

    items: tuple[JobEvent, ...]


class ModelRecord(Wire):
    """A model in the registry, by its digest, with what it was made from."""

    digest: Digest
    job: JobId
    slot: Count
    size: Positive
    lineage: Sites
    inputs: Annotated[tuple[CrossingId, ...], SortedUnique]
    parent: Digest | None
    created_at: UnixSeconds


class CrossedEvaluation(Wire):
    """An evaluation as it crossed: banded figures of one zone."""

    zone: SiteId
    crossing: CrossingId
    evaluation: Evaluation


class JobResults(Wire):
    """What a job brought: its models and the evaluations that crossed."""

    job: JobId
    models: tuple[ModelRecord, ...]
    evaluations: tuple[CrossedEvaluation, ...]


class JobList(Wire):
    """All jobs, newest first."""

    items: tuple[JobView, ...]


class ModelList(Wire):
    """All models, newest first."""

    items: tuple[ModelRecord, ...]

"""Orders: instructions into a zone. An order names a registered algorithm; it never carries code."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.contracts.crossings import Kind, Sites
from isthmus.contracts.identifiers import Digest, JobId, Name, SiteId
from isthmus.contracts.queries import QueryPlan
from isthmus.contracts.raw_table import Group
from isthmus.contracts.tensors import ModelSchema
from isthmus.contracts.wire import Count, Int, Positive, SortedUnique, UnixSeconds, Wire


class Algorithm(Wire):
    """A registered algorithm: its name and the digest of its source."""

    name: Name
    digest: Digest


class DatasetRef(Wire):
    """A frozen snapshot of a dataset."""

    dataset: Name
    snapshot: Name


@unique
class Weighting(StrEnum):
    """What a zone's update is weighted by in the average."""

    VEHICLES = "vehicles"
    WINDOWS = "windows"


GRAIN = 1 << 16
"""Steps of its norm bound that one vehicle's change may have in a private training: what is summed is whole numbers."""


class TrainingPrivacy(Wire):
    """What all updates of one order together may say of a vehicle: at most epsilon at delta = 10^-delta_exponent.

    In each round every vehicle trains on its own, from the shared model. What it would change is cut to the Euclidean
    norm `vehicle_norm_micro` (millionths); the sum over vehicles is exact inside the zone, the border adds Gaussian
    noise to it and divides by `vehicles`, a number that the plan fixes: how many there are in truth is not told
    (McMahan, Ramage, Talwar and Zhang 2018, "Learning differentially private recurrent language models").

    By itself a vehicle takes `vehicle_steps` plain gradient steps of rate `vehicle_rate_micro` (millionths), each on
    at most `vehicle_batch` of its windows. Both are bounded, so that nobody makes one vehicle's time long enough to be
    seen.
    """

    epsilon_micro: Annotated[int, Field(strict=True, ge=1_000, le=100_000_000)]
    delta_exponent: Annotated[int, Field(strict=True, ge=6, le=15)]
    vehicle_norm_micro: Annotated[int, Field(strict=True, ge=1_000, le=1_000_000_000)]
    vehicles: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
    vehicle_steps: Annotated[int, Field(strict=True, ge=1, le=1_024)] = 64
    vehicle_batch: Annotated[int, Field(strict=True, ge=1, le=64)] = 16
    vehicle_rate_micro: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 30_000


class TrainingPlan(Wire):
    """How a zone trains: fixed when the order is accepted.

    `held_out_vehicles` are chosen by a hash with `split_salt` and never trained on. `adaptation_epochs` start from the
    last shared model and `reference_epochs` from the first one; both stay in the zone.

    With `privacy`, rounds go as it says: `epochs` and `weighting` count for nothing, every zone weighs the same.
    Adaptation and reference train as in any plan. Evaluations are not protected by it.
    """

    rounds: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000)]
    batch_size: Annotated[int, Field(strict=True, ge=1, le=65_536)]
    learning_rate_micro: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
    seed: Int
    weighting: Weighting
    held_out_vehicles: Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
    split_salt: Name
    adaptation_epochs: Annotated[int, Field(strict=True, ge=0, le=10_000)]
    reference_epochs: Annotated[int, Field(strict=True, ge=0, le=100_000)]
    privacy: TrainingPrivacy | None = None


class EvaluationPlan(Wire):
    """Which figures may cross, when and how coarse. Slot `rounds` is the evaluation of the last shared model."""

    at_slots: Annotated[tuple[Count, ...], Field(max_length=64), SortedUnique]
    band_um: Annotated[int, Field(strict=True, ge=10_000, le=1_000_000)]
    minimum_vehicles: Annotated[int, Field(strict=True, ge=10, le=1_000_000)]


class Order(Wire):
    """One order of one job into one zone. Its id is the digest of its canonical bytes."""

    version: Literal[1]
    job: JobId
    issuer: SiteId
    zone: SiteId
    algorithm: Algorithm
    dataset: DatasetRef
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=5), SortedUnique]
    purpose: Name
    recipients: Sites
    outputs: Annotated[tuple[Kind, ...], Field(min_length=1, max_length=4), SortedUnique]
    training: TrainingPlan | None
    evaluation: EvaluationPlan | None
    query: QueryPlan | None = None
    tensors: ModelSchema
    clip_norm_micro: Positive
    base: Digest | None
    issued_at: UnixSeconds
    expires_at: UnixSeconds

    @model_validator(mode="after")
    def _whole(self) -> Self:
        trains = Kind.MODEL_UPDATE in self.outputs
        if trains != (self.training is not None) or trains != bool(self.tensors):
            raise ValueError("an order for updates, and only such a one, has a training plan and a model schema")
        if (Kind.AGGREGATE in self.outputs) != (self.evaluation is not None or self.query is not None):
            raise ValueError("an order for aggregates, and only such a one, has an evaluation plan or a question")
        if self.query is not None and self.outputs != (Kind.AGGREGATE,):
            raise ValueError("a question is an order of its own")
        if self.training and self.evaluation and any(s > self.training.rounds for s in self.evaluation.at_slots):
            raise ValueError("an evaluation stands at a slot that the plan does not have")
        return self


@unique
class Predictor(StrEnum):
    """What made a forecast."""

    CONSTANT_VELOCITY = "constant_velocity"
    CONSTANT_TURN_RATE = "constant_turn_rate"
    LOCAL_ONLY = "local_only"
    FEDERATED = "federated"
    ADAPTED = "adapted"


class Figures(Wire):
    """Errors of one predictor on held-out vehicles: displacement in micrometres, misses in parts per million."""

    predictor: Predictor
    ade_um: Count
    fde_um: Count
    miss_ppm: Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class Evaluation(Wire):
    """The payload of an evaluation: exact between compute and its own border, banded from there on."""

    version: Literal[1]
    slot: Count
    figures: Annotated[tuple[Figures, ...], Field(min_length=1, max_length=8)]

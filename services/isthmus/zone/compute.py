"""Compute, as a port: what a zone's worker asks of whoever holds plaintext for the length of one order.

`InProcessCompute` does it in the worker's own process. It imports jax when it first trains, so a zone that only
ingests, or a test with another compute, never loads it. `zone.cluster` does it on a Ray cluster.

An order is opened in two steps, because the keys are asked for in between: compute makes a key for each of its parts
and shows the public halves (`Opening.run_keys`); the worker has the border seal the order's file keys to each of
them, and passes on what it cannot read (`Opening.open`).

Rules:
1. A run opens exactly the files that the border granted for its order, each checked against its registered digest.
2. What it trains is the registered algorithm whose source has the digest that the order names, or nothing.
3. Held-out vehicles are chosen by the order's salt and never trained on; every figure is of them alone.
4. A run depends on the order, the files and the model it is sent: the same again gives the same bytes.
5. When a run is closed its windows are dropped. Nothing of it is written anywhere.
6. The private half of a run's key stays where it was made, and is dropped as soon as the files are open.
7. Of a private plan, a round's update is the exact sum of what each training vehicle changes by itself
   (`learning.private`, `learning.sums`): the border adds the noise. Nothing of it depends on how files are laid out.
   It never fails for want of vehicles: who orders it chooses how many are held out, and would learn how many there are.
8. A run whose machine is gone is lost as a whole (`RunLost`): none of its work counts, and the order may be opened
   again, with new keys.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Protocol

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Name
from isthmus.contracts.orders import GRAIN, Algorithm, Evaluation, Figures, Predictor
from isthmus.contracts.raw_table import Group
from isthmus.learning import algorithm, metrics, sums, weights, windows
from isthmus.proof.ids import file_aad, file_key_context, order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.vault import open_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import FileGrant, KeyGrant
    from isthmus.contracts.keys import HpkeKey
    from isthmus.contracts.orders import Order, TrainingPlan
    from isthmus.learning.private import Vehicles
    from isthmus.learning.train import Schedule, Trainer
    from isthmus.learning.weights import Weights
    from isthmus.learning.windows import Windows
    from isthmus.zone.store import ObjectStore

Buffer = bytes | bytearray | memoryview

MICRO = 1e6
CPU = Name("cpu")
"""The class of a machine without an accelerator."""


class RunLost(Fault):
    """The machine on which a run stood is gone, or cannot be reached. What the run did does not count."""

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(Code.COMPUTE_FAILED, what, why=why, remedy=remedy)


class Run(Protocol):
    """One order at work. Models are safetensors of the order's schema. Every call blocks.

    Figures are exact; they are None where no vehicle is held out.

    Raises (every method):
        Refusal: the order or the model cannot be worked on.
        RunLost: the run is gone; the order can be opened again.
    """

    @property
    def contributors(self) -> Contributors:
        """Vehicles and windows that are trained on, exact."""
        ...

    @property
    def evaluators(self) -> Contributors:
        """Vehicles and windows that are held out, exact."""
        ...

    def train(self, slot: int, base: Buffer) -> bytes:
        """Train one round from `base`; return the difference to it, or the sum of a private plan's vehicles."""
        ...

    def evaluate(self, slot: int, model: Buffer) -> Evaluation | None:
        """Return the errors of `model` (as federated) and of the two physical baselines."""
        ...

    def reference(self, initial: Buffer) -> Figures | None:
        """Return the errors of a model trained from `initial` on this zone's data alone."""
        ...

    def adapt(self, final: Buffer) -> tuple[bytes, Figures | None]:
        """Train on from `final` for this zone; return the adapted model, which stays in the zone, and its errors."""
        ...

    def close(self) -> None:
        """Drop all plaintext. The run is not used again."""
        ...


class Opening(Protocol):
    """An order about to be opened: the parts of compute are there, with a key each, and hold no data yet."""

    @property
    def run_keys(self) -> tuple[HpkeKey, ...]:
        """The public keys, one for each part, to which the order's file keys are to be sealed. At least one."""
        ...

    @property
    def accelerators(self) -> tuple[Name, ...]:
        """The classes of chips of all parts, sorted, each once. The border asks policy before it seals any key."""
        ...

    def open(self, grants: Sequence[KeyGrant]) -> Run:
        """Load what was granted: one grant for each of `run_keys`, in their order. Blocks.

        Raises:
            Refusal: `FILE_ALTERED`, `GROUP_NOT_IN_ORDER`, `PAYLOAD_ALTERED` for a grant that is sealed to another key,
                or the data do not allow the plan.
            Fault: the store fails.
            RunLost: a part is gone.
        """
        ...

    def close(self) -> None:
        """Drop the keys of an opening that comes to nothing. After `open` has returned, the run is closed instead."""
        ...


class Compute(Protocol):
    """Opens orders."""

    def prepare(self, order: Order) -> Opening:
        """Make ready to work on `order`. Blocks.

        Raises:
            Refusal: `ALGORITHM_UNKNOWN`, `SCHEMA_MISMATCH`, `POLICY_DENIED`: the order is not for this compute.
            RunLost: the machine cannot be reached.
        """
        ...


class InProcessCompute:
    """Trains in this process, on the motion group, with the forecaster of `isthmus.learning`."""

    def __init__(self, store: ObjectStore, accelerator: Name = CPU) -> None:
        """Take where the files are, and the class of the chip that this process trains on."""
        self._store = store
        self._accelerator = accelerator

    def prepare(self, order: Order) -> InProcessOpening:
        """Check the order and make its key."""
        return InProcessOpening(order, plan_of(order), self._store, self._accelerator)


class InProcessOpening:
    """One order's key in this process."""

    def __init__(self, order: Order, plan: TrainingPlan, store: ObjectStore, accelerator: Name) -> None:
        self._order = order
        self._plan = plan
        self._store = store
        self._key: SealingKey | None = SealingKey.generate()
        self.run_keys = (self._key.public,)
        self.accelerators = (accelerator,)

    def open(self, grants: Sequence[KeyGrant]) -> InProcessRun:
        """Load, decrypt, cut into windows and split by vehicle."""
        (grant,) = grants
        files = granted_motion(self._order, grant)
        key, self._key = _still_there(self._key), None
        parts = sorted((windows_of(file, key, self._store) for file in files), key=lambda part: part[0])
        together = windows.concatenate([part for _, part in parts])
        plan = self._plan
        training, held_out = windows.split_by_vehicle(
            together, plan.held_out_vehicles, plan.split_salt, least=least_to_train(plan)
        )
        return InProcessRun(self._order.zone, plan, training, held_out)

    def close(self) -> None:
        """Drop the key."""
        self._key = None


class InProcessRun:
    """One order's windows in this process."""

    def __init__(self, zone: SiteId, plan: TrainingPlan, training: Windows, held_out: Windows) -> None:
        self._zone = zone
        self._plan = plan
        self._training: Windows | None = training
        self._held_out: Windows | None = held_out
        self._trainer: Trainer | None = None
        self._vehicles: Vehicles | None = None
        self.contributors = _contributors(training)
        self.evaluators = _contributors(held_out)

    def train(self, slot: int, base: Buffer) -> bytes:
        """Train one round; the optimiser and the shuffling begin afresh from the plan's seed, the slot and the zone."""
        start, purpose = _decoded(base), f"round {slot}"
        if self._plan.privacy is not None:
            return summed(self._by_vehicle(), self._plan, start, seed_of(self._plan.seed, self._zone, purpose))
        trained = self._trained(start, purpose, self._plan.epochs, "constant")
        return weights.encode(weights.subtract(trained, start))

    def evaluate(self, slot: int, model: Buffer) -> Evaluation | None:
        """Return the errors on held-out vehicles."""
        held_out = _still_open(self._held_out)
        federated = self._figures(Predictor.FEDERATED, _decoded(model))
        if federated is None:
            return None
        velocity = figures_of(Predictor.CONSTANT_VELOCITY, metrics.constant_velocity(held_out))
        turning = figures_of(Predictor.CONSTANT_TURN_RATE, metrics.constant_turn_rate(held_out))
        return Evaluation(version=1, slot=slot, figures=(velocity, turning, federated))

    def reference(self, initial: Buffer) -> Figures | None:
        """Train alone, with a falling rate, for as long as the plan says."""
        alone = self._trained(_decoded(initial), "reference", self._plan.reference_epochs, "cosine")
        return self._figures(Predictor.LOCAL_ONLY, alone)

    def adapt(self, final: Buffer) -> tuple[bytes, Figures | None]:
        """Train on, with a falling rate, for as long as the plan says."""
        adapted = self._trained(_decoded(final), "adaptation", self._plan.adaptation_epochs, "cosine")
        return weights.encode(adapted), self._figures(Predictor.ADAPTED, adapted)

    def close(self) -> None:
        """Drop the windows."""
        self._training = self._held_out = self._trainer = self._vehicles = None

    def _trained(self, start: Weights, purpose: str, epochs: int, schedule: Schedule) -> dict[str, NDArray[np.float32]]:
        from isthmus.learning.train import Trainer  # noqa: PLC0415 -- jax takes 2 s: only who trains loads it

        if self._training is not None and len(self._training) == 0:  # of a private plan: `least_to_train`
            return dict(start)
        if self._trainer is None:
            self._trainer = Trainer(_still_open(self._training))
        return self._trainer.train(
            start,
            epochs=epochs,
            seed=seed_of(self._plan.seed, self._zone, purpose),
            learning_rate=self._plan.learning_rate_micro / MICRO,
            batch_size=self._plan.batch_size,
            schedule=schedule,
        )

    def _by_vehicle(self) -> Vehicles:
        from isthmus.learning.private import Vehicles  # noqa: PLC0415 -- as above

        if self._vehicles is None:
            self._vehicles = Vehicles(_still_open(self._training))
        return self._vehicles

    def _figures(self, predictor: Predictor, model: Weights) -> Figures | None:
        from isthmus.learning.models import predict  # noqa: PLC0415 -- as above

        held_out = _still_open(self._held_out)
        if len(held_out) == 0:
            return None
        return figures_of(predictor, metrics.evaluate(predict(model, held_out.inputs), held_out))


def seed_of(seed: int, zone: SiteId, purpose: str) -> int:
    """Return the seed of one training call: fixed by the order, different for every zone and purpose."""
    digest = hashlib.sha256(f"{seed}\0{zone}\0{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def summed(vehicles: Vehicles, plan: TrainingPlan, start: Weights, seed: int) -> bytes:
    """Return the payload of one round of a private plan, from the model `start` and the round's seed.

    Raises:
        Refusal: `POLICY_DENIED`, when the plan has no privacy.
    """
    from isthmus.learning.private import VehicleLesson  # noqa: PLC0415 -- as above

    if plan.privacy is None:
        raise Refusal(Code.POLICY_DENIED, "The order does not ask for the sum over vehicles.")
    lesson = VehicleLesson(
        steps=plan.privacy.vehicle_steps,
        seed=seed,
        learning_rate=plan.privacy.vehicle_rate_micro / MICRO,
        batch_size=plan.privacy.vehicle_batch,
        norm=plan.privacy.vehicle_norm_micro / MICRO,
        grain=GRAIN,
    )
    return sums.encode(vehicles.total(start, lesson))


def plan_of(order: Order) -> TrainingPlan:
    """Return the plan of an order that the algorithm installed here can work on.

    Raises:
        Refusal: `ALGORITHM_UNKNOWN`, `SCHEMA_MISMATCH`, `POLICY_DENIED` for an order that trains nothing.
    """
    if order.training is None:
        raise Refusal(Code.POLICY_DENIED, "The order asks for something else than training.")
    if order.algorithm != Algorithm(name=algorithm.NAME, digest=algorithm.digest()):
        why = "Its name or the digest of its source is not that of the algorithm installed here."
        raise Refusal(Code.ALGORITHM_UNKNOWN, "The order names another algorithm.", why=why)
    if order.tensors != weights.MODEL_SCHEMA:
        raise Refusal(Code.SCHEMA_MISMATCH, "The order's model is not the algorithm's.")
    return order.training


def least_to_train(plan: TrainingPlan) -> int:
    """Return how many vehicles must be left to train on: none for a private plan, whose failing would tell of them."""
    return 1 if plan.privacy is None else 0


def granted_motion(order: Order, grant: KeyGrant) -> list[FileGrant]:
    """Return the motion files of a grant, in its order.

    Raises:
        Refusal: the grant is for another order or dataset, or has no such file.
    """
    if grant.order != order_id(order) or any(file.dataset != order.dataset.dataset for file in grant.files):
        raise Refusal(Code.ORDER_UNKNOWN, "The keys were granted for another order or dataset.")
    if Group.MOTION not in order.groups:
        raise Refusal(Code.GROUP_NOT_IN_ORDER, "The order does not name the motion group, on which this trains.")
    files = [file for file in grant.files if file.group is Group.MOTION]
    if not files:
        raise Refusal(Code.DATASET_UNKNOWN, "The order's snapshot has no files.")
    return files


def windows_of(file: FileGrant, run_key: SealingKey, store: ObjectStore) -> tuple[str, Windows]:
    """Return a file's windows, with its first drive's name: by these, files stand in an order of their content.

    Their ids are drawn anew at every ingest; by ids, the same drives would train in another order.
    """
    motion = load_group(file, run_key, store)
    return motion.column("scene_id")[0].as_py(), windows.extract(motion)


def load_group(file: FileGrant, run_key: SealingKey, store: ObjectStore) -> pa.Table:
    """Return the table of one granted file.

    Raises:
        Refusal: `FILE_ALTERED`, or `PAYLOAD_ALTERED` where its key is sealed to another one.
        Fault: the store fails.
    """
    context = file_key_context(file.dataset, file.file, file.group, file.digest)
    key = run_key.open(base64.b64decode(file.wrapped_key), context=context)
    aad = file_aad(file.dataset, file.file, file.group)
    return open_group(store.get(file.object_name), key, aad, file=file.file, digest=file.digest, size=file.size)


def _decoded(model: Buffer) -> Weights:
    return weights.decode(memoryview(model), weights.MODEL_SCHEMA)


def _contributors(of: Windows) -> Contributors:
    return Contributors(vehicles=len(of.vehicle_names), windows=len(of))


def figures_of(predictor: Predictor, errors: metrics.Errors) -> Figures:
    """Return errors as they are stated: micrometres and parts per million."""
    return Figures(
        predictor=predictor,
        ade_um=round(errors.ade_m * 1e6),
        fde_um=round(errors.fde_m * 1e6),
        miss_ppm=round(errors.miss_rate * 1e6),
    )


def _still_there(key: SealingKey | None) -> SealingKey:
    if key is None:
        raise Refusal(Code.ORDER_CLOSED, "The opening has been used or closed.")
    return key


def _still_open(data: Windows | None) -> Windows:
    if data is None:
        raise Refusal(Code.ORDER_CLOSED, "The run is closed.")
    return data

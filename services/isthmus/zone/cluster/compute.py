"""`RayCompute`: orders opened on a cluster. The zone's process steers; data, keys and training are in the shards.

Rules:
1. An order runs on nodes of an allowed accelerator class (`zone.cluster.nodes`), or not at all. The border is told the
   classes of the nodes that were chosen when its keys are asked for; an actor never moves to another node.
2. Every shard brings a key of its own, and gets the grants of its own files, sealed to it: ciphertext is all that
   passes through here.
3. The result is that of one process with all files (`zone.compute`), but for the order in which float32 numbers are
   summed where there is more than one shard.
4. One call a round goes to the cluster; steps of training are between shards.
5. A private plan has one shard, since all windows of a vehicle have to be together.
6. If a shard, its node or the head is lost, the run is (`RunLost`).
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.keys import HpkeKey
from isthmus.contracts.orders import Evaluation, Figures, Predictor
from isthmus.contracts.raw_table import Group
from isthmus.learning import weights
from isthmus.learning.metrics import Errors
from isthmus.proof import canonical
from isthmus.zone.cluster.answers import value_of
from isthmus.zone.cluster.layout import lay_out, shards_for, share_out
from isthmus.zone.cluster.nodes import classes_of
from isthmus.zone.cluster.shard import Lesson, Presence, Shard
from isthmus.zone.compute import RunLost, figures_of, granted_motion, least_to_train, plan_of, seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from isthmus.contracts.identifiers import Name
    from isthmus.contracts.inside import KeyGrant
    from isthmus.contracts.orders import DatasetRef, Order
    from isthmus.learning.train import Schedule
    from isthmus.zone.cluster.connection import Connection
    from isthmus.zone.cluster.layout import Layout
    from isthmus.zone.cluster.nodes import Node
    from isthmus.zone.cluster.settings import RaySettings

Buffer = bytes | bytearray | memoryview


class RayCompute:
    """Trains on a cluster of the zone."""

    def __init__(
        self, connection: Connection, settings: RaySettings, size_of: Callable[[DatasetRef, Group], int]
    ) -> None:
        """Take the way to the cluster.

        Args:
            connection: to the head.
            settings: how shards are cut, and where they may run.
            size_of: tells how many sealed bytes a snapshot has of a group.
        """
        self._connection = connection
        self._settings = settings
        self._size_of = size_of

    def prepare(self, order: Order) -> RayOpening:
        """Start the order's shards on permitted nodes and take their keys."""
        most = self._settings.most_shards if plan_of(order).privacy is None else 1
        size = self._size_of(order.dataset, Group.MOTION)

        def started(nodes: Sequence[Node]) -> RayOpening:
            count = shards_for(size, self._settings.shard_bytes, most, sum(n.cpus for n in nodes))
            opening = RayOpening(order, self._connection, self._settings)
            try:
                opening.start(list(itertools.islice(itertools.cycle(nodes), count)))
            except BaseException:
                opening.close()
                raise
            return opening

        return self._connection.placed(self._settings.allowed_accelerators, started)


class RayOpening:
    """The shards of one order, each with its key."""

    def __init__(self, order: Order, connection: Connection, settings: RaySettings) -> None:
        self._order = order
        self._connection = connection
        self._settings = settings
        self._shards: list[Any] = []
        self._used = False
        self.run_keys: tuple[HpkeKey, ...] = ()
        self.accelerators: tuple[Name, ...] = ()

    def start(self, nodes: Sequence[Node]) -> None:
        """Start a shard on each of `nodes`, and have it make its key."""
        settings, body = self._settings, canonical.dump(self._order)
        for node in nodes:
            self._shards.append(self._connection.start(Shard, node, str(settings.folder), settings.gpus_per_shard))
        present: list[Presence] = self._ask([shard.begin.remote(body) for shard in self._shards])
        if any(shard.node != node.id for shard, node in zip(present, nodes, strict=True)):
            raise RunLost("A shard stands on another node than the one that was chosen.")
        self.run_keys = tuple(HpkeKey.from_bytes(shard.run_key) for shard in present)
        self.accelerators = classes_of(nodes)

    def open(self, grants: Sequence[KeyGrant]) -> RayRun:
        """Give each shard its files' grants, lay the windows out, and have them split."""
        granted = [granted_motion(self._order, grant) for grant in grants]
        if self._used or len(granted) != len(self._shards):
            raise Refusal(Code.ORDER_CLOSED, "The opening has been used or closed.")
        self._used = True
        plan = plan_of(self._order)
        shared = share_out([file.size for file in granted[0]], len(granted))
        texts = [
            json.dumps({place: files[place].model_dump(mode="json") for place in places})
            for files, places in zip(granted, shared, strict=True)
        ]
        reports = self._ask([shard.load.remote(text) for shard, text in zip(self._shards, texts, strict=True)])
        layout = lay_out(list(itertools.chain(*reports)), plan.held_out_vehicles, least=least_to_train(plan))
        self._ask([shard.settle.remote(layout, number) for number, shard in enumerate(self._shards)])
        for number in reversed(range(len(self._shards) - 1)):  # one after the other: each takes a port while it meets
            self._ask([self._shards[number].meet.remote(self._shards[number + 1 :])])
        return RayRun(self._order, layout, self._connection, tuple(self._shards))

    def close(self) -> None:
        """End the shards."""
        self._connection.end(self._shards)
        self._shards = []

    def _ask(self, asked: Sequence[Any]) -> list[Any]:
        return [value_of(answer) for answer in self._connection.answers(asked, self._settings.start_within_s)]


class RayRun:
    """One order's windows in shards. The first one leads training."""

    def __init__(self, order: Order, layout: Layout, connection: Connection, shards: tuple[Any, ...]) -> None:
        self._zone = order.zone
        self._plan = plan_of(order)
        self._connection = connection
        self._shards = shards
        self.contributors = layout.contributors
        self.evaluators = layout.evaluators

    def train(self, slot: int, base: Buffer) -> bytes:
        """Train one round."""
        start, purpose = weights.decode(memoryview(base), weights.MODEL_SCHEMA), f"round {slot}"
        if self._plan.privacy is not None:
            return self._summed(base, seed_of(self._plan.seed, self._zone, purpose))
        trained = self._trained(base, purpose, self._plan.epochs, "constant")
        return weights.encode(weights.subtract(weights.decode(memoryview(trained), weights.MODEL_SCHEMA), start))

    def evaluate(self, slot: int, model: Buffer) -> Evaluation | None:
        """Return the errors on held-out vehicles."""
        weights.decode(memoryview(model), weights.MODEL_SCHEMA)
        predictors = (Predictor.CONSTANT_VELOCITY, Predictor.CONSTANT_TURN_RATE, Predictor.FEDERATED)
        figures = self._figures(model, predictors)
        return Evaluation(version=1, slot=slot, figures=figures) if figures else None

    def reference(self, initial: Buffer) -> Figures | None:
        """Train alone, with a falling rate."""
        alone = self._trained(initial, "reference", self._plan.reference_epochs, "cosine")
        return next(iter(self._figures(alone, (Predictor.LOCAL_ONLY,))), None)

    def adapt(self, final: Buffer) -> tuple[bytes, Figures | None]:
        """Train on, with a falling rate."""
        adapted = self._trained(final, "adaptation", self._plan.adaptation_epochs, "cosine")
        return adapted, next(iter(self._figures(adapted, (Predictor.ADAPTED,))), None)

    def close(self) -> None:
        """End the shards' processes."""
        self._connection.end(self._shards)
        self._shards = ()

    def _summed(self, base: Buffer, seed: int) -> bytes:
        shard = self._open_shards()[0]
        (found,) = self._ask(lambda: [shard.sum_of_vehicles.remote(bytes(base), seed)])
        return bytes(found)

    def _trained(self, base: Buffer, purpose: str, epochs: int, schedule: Schedule) -> bytes:
        leader = self._open_shards()[0]
        if not self.contributors.windows:  # of a private plan: `least_to_train`
            return bytes(base)
        lesson = Lesson(
            epochs=epochs,
            seed=seed_of(self._plan.seed, self._zone, purpose),
            learning_rate=self._plan.learning_rate_micro / 1e6,
            batch_size=self._plan.batch_size,
            schedule=schedule,
        )
        (trained,) = self._ask(lambda: [leader.train.remote(bytes(base), lesson)])
        return bytes(trained)

    def _figures(self, model: Buffer, predictors: Sequence[Predictor]) -> tuple[Figures, ...]:
        """Return the figures of the last predictor and, where there are more, of the two baselines before it."""
        shards, whole, baselines = self._open_shards(), bytes(model), len(predictors) > 1
        found = self._ask(lambda: [shard.errors.remote(whole, baselines=baselines) for shard in shards])
        columns = zip(*(errors for errors in found if errors), strict=True)
        return tuple(figures_of(who, joined(parts)) for who, parts in zip(predictors, columns, strict=False))

    def _ask(self, ask: Callable[[], Sequence[Any]]) -> list[Any]:
        with self._connection.reaching():
            asked = ask()
        return [value_of(answer) for answer in self._connection.answers(asked)]

    def _open_shards(self) -> tuple[Any, ...]:
        if not self._shards:
            raise Refusal(Code.ORDER_CLOSED, "The run is closed.")
        return self._shards


def joined(parts: Sequence[Errors]) -> Errors:
    """Return the errors over all windows of `parts`, each with at least one; vehicles are summed."""
    windows = sum(part.windows for part in parts)

    def mean(of: Callable[[Errors], float]) -> float:
        return sum(of(part) * part.windows for part in parts) / windows

    return Errors(
        ade_m=mean(lambda part: part.ade_m),
        fde_m=mean(lambda part: part.fde_m),
        miss_rate=mean(lambda part: part.miss_rate),
        windows=windows,
        vehicles=sum(part.vehicles for part in parts),
    )

"""A shard: some files of one order, in one Ray actor, from the key to the gradient.

Rules:
1. The actor makes its own keys: one for the order's files, one where it meets another shard. What opens a file, or what
   shards say to each other, reaches it as HPKE ciphertext; keys and plaintext are in its memory alone, never in an
   argument or a result, so never in Ray's object store.
2. It reads the sealed files itself, from the zone's store, with the settings of the site's folder on its own node.
3. It checks the order's algorithm against the source that is installed on its own node.
4. What it answers: its public keys, counts, gradients, sums and models, errors of forecasts. To keep files in order it
   names the first drive of each, and vehicles by a salted hash. Gradients go straight to the other shards
   (`zone.cluster.exchange`).
5. Its process ends with the run, and its memory with it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.inside import FileGrant
from isthmus.contracts.keys import HpkeKey
from isthmus.contracts.orders import Order
from isthmus.kit.ahead import ahead
from isthmus.learning import metrics, weights, windows
from isthmus.proof import canonical
from isthmus.proof.sealing import SealingKey
from isthmus.zone.cluster import exchange
from isthmus.zone.cluster.answers import Failure, answered, value_of
from isthmus.zone.cluster.launch import meeting_ports
from isthmus.zone.cluster.layout import FileReport, draw
from isthmus.zone.compute import RunLost, plan_of, summed, windows_of
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.store import open_store
from isthmus.zone.users import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from isthmus.contracts.orders import TrainingPlan
    from isthmus.learning.metrics import Errors
    from isthmus.learning.private import Vehicles
    from isthmus.learning.train import Part, Schedule, Trainer
    from isthmus.learning.weights import Weights
    from isthmus.learning.windows import Windows
    from isthmus.zone.cluster.layout import Layout


OPENED_AT_ONCE = 2
"""Files: while one is decrypted and cut, the next is on its way."""
FAREWELL_S = 10.0
"""How long a shard whose connection broke is asked what happened."""
MEETING_SHARE = 0.5
"""Of the time that actors may take: what a meeting may. Who asked for it still hears then why it failed."""

_STEP = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training call; every shard of a run is given the same."""

    epochs: int
    seed: int
    learning_rate: float
    batch_size: int
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Presence:
    """A shard that is there: the node it is on, its process, and the raw bytes of its public key."""

    node: str
    process: int
    run_key: bytes


class Shard:
    """The actor. Calls come one at a time: `begin`, `load`, `settle`, `meet`, then training and evaluation."""

    def __init__(self, folder: str) -> None:
        """Take the site's folder, as this node sees it."""
        self._folder = Path(folder)
        self._key: SealingKey | None = None
        self._invited: dict[int, SealingKey] = {}
        self._plan: TrainingPlan | None = None
        self._loaded: dict[int, Windows] = {}
        self._training: Windows | None = None
        self._held_out: Windows | None = None
        self._places = np.zeros(0, np.int64)
        self._total = 0
        self._number = 0
        self._trainings = 0
        self._peers: tuple[Any, ...] = ()
        self._exchange = exchange.Exchange()
        self._trainer: Trainer | None = None
        self._part: Part | None = None
        self._vehicles: Vehicles | None = None

    @answered
    def begin(self, order: bytes) -> Presence:
        """Check an order against what is installed here, and make the shard's key."""
        import os  # noqa: PLC0415 - with ray, for this call alone

        import ray  # noqa: PLC0415 - a zone without a cluster does not have it

        self._plan = plan_of(canonical.load(Order, order))
        self._key = SealingKey.generate()
        return Presence(ray.get_runtime_context().get_node_id(), os.getpid(), self._key.public.raw)

    @answered
    def load(self, grants: str) -> list[FileReport]:
        """Read, decrypt and cut the shard's files.

        Args:
            grants: JSON: each file's grant, by its place in the whole grant.
        """
        key, self._key = _there(self._key), None
        salt, store = _there(self._plan).split_salt, open_store(ZoneSettings.load(self._folder), User.COMPUTE)
        reports = []
        asked = {int(place): FileGrant.model_validate_json(json.dumps(g)) for place, g in json.loads(grants).items()}
        opened = ahead(lambda grant: windows_of(grant, key, store), asked.values(), OPENED_AT_ONCE)
        for place, (first_drive, cut) in zip(asked, opened, strict=True):
            counts = np.bincount(cut.vehicles, minlength=len(cut.vehicle_names)).tolist()
            by_draw = {draw(salt, name): count for name, count in zip(cut.vehicle_names, counts, strict=True)}
            reports.append(FileReport(place, first_drive, by_draw))
            self._loaded[place] = cut
        return reports

    @answered
    def settle(self, layout: Layout, number: int) -> None:
        """Split the windows as the layout says; this is shard `number`, and number 0 leads."""
        loaded, self._loaded = self._loaded, {}
        salt = _there(self._plan).split_salt
        training, held_out, places = [], [], [np.zeros(0, np.int64)]
        for place, cut in sorted(loaded.items()):
            names = np.array([draw(salt, name) in layout.held_out for name in cut.vehicle_names], bool)
            aside = names[cut.vehicles] if len(cut) else np.zeros(0, bool)
            training.append(_chosen(cut, ~aside))
            held_out.append(_chosen(cut, aside))
            places.append(layout.starts[place] + np.arange(len(training[-1]), dtype=np.int64))
        if loaded:
            self._training, self._held_out = windows.concatenate(training), windows.concatenate(held_out)
        self._places = np.concatenate(places)
        self._total = layout.contributors.windows
        self._number = number

    @answered
    def meet(self, peers: Sequence[Any]) -> None:
        """Have all later shards, in their order, connect to this one."""
        self._peers = tuple(peers)
        keys = [exchange.new_key() for _ in peers]
        asked = [peer.invite.remote(self._number) for peer in peers]
        invited = [HpkeKey.from_bytes(raw) for raw in _gathered(asked)]
        ray_settings = ZoneSettings.load(self._folder).ray
        within_s = _there(ray_settings).start_within_s * MEETING_SHARE
        with exchange.Meeting(*_meeting_place()) as meeting:
            joining = [
                peer.join.remote(self._number, meeting.place, number, exchange.handed_over(key, to, number), within_s)
                for number, (peer, key, to) in enumerate(zip(peers, keys, invited, strict=True))
            ]
            lines = meeting.gather(keys, within_s, lambda: _require_well(joining))
        for shard, line in enumerate(lines, start=self._number + 1):
            self._exchange.add(shard, line)
        _gathered(joining)

    @answered
    def invite(self, by: int) -> bytes:
        """Make the key to which that of a connection to shard `by` is to be sealed; return its public half, raw."""
        self._invited[by] = SealingKey.generate()
        return self._invited[by].public.raw

    @answered
    def join(self, shard: int, place: tuple[str, int], number: int, sealed: bytes, within_s: float) -> None:
        """Connect to an earlier shard, as its guest number `number`, with the key that it has sealed for this."""
        key = exchange.taken(sealed, _there(self._invited.pop(shard, None)), number)
        self._exchange.add(shard, exchange.join(place, number, key, within_s))

    @answered
    def train(self, base: bytes, lesson: Lesson) -> bytes:
        """Train from `base`, together with the peers, and return the model. Only the shard that leads is asked."""
        start = weights.decode(memoryview(base), weights.MODEL_SCHEMA)  # refused before anybody else is asked
        if not self._peers:
            return weights.encode(self._alone().train(start, **dataclasses.asdict(lesson)))
        self._trainings += 1
        following = [peer.follow.remote(base, lesson, self._trainings) for peer in self._peers]
        try:
            trained = self._together(base, lesson, self._trainings, lambda: _require_well(following))
        except RunLost:
            _gathered(following, FAREWELL_S)  # one of them may know more
            raise
        _gathered(following)
        return weights.encode(trained)

    @answered
    def sum_of_vehicles(self, base: bytes, seed: int) -> bytes:
        """Return the payload of one round of a private plan. Only a shard that has all windows is asked."""
        start = weights.decode(memoryview(base), weights.MODEL_SCHEMA)
        if self._number or self._peers:
            raise Fault(Code.COMPUTE_FAILED, "A private training is not shared out.")
        return summed(self._by_vehicle(), _there(self._plan), start, seed)

    @answered
    def follow(self, base: bytes, lesson: Lesson, training: int) -> None:
        """Take part in the leading shard's training of this number: the same steps, from the same base."""
        self._together(base, lesson, training)

    @answered
    def errors(self, model: bytes, *, baselines: bool) -> tuple[Errors, ...]:
        """Return the errors of `model` on the shard's held-out windows, before them those of the two baselines.

        Nothing where none of them is here.
        """
        held_out = self._held_out
        if held_out is None or len(held_out) == 0:
            return ()
        from isthmus.learning.models import predict  # noqa: PLC0415 - as above

        start = weights.decode(memoryview(model), weights.MODEL_SCHEMA)
        of_model = metrics.evaluate(predict(start, held_out.inputs), held_out)
        physical = (metrics.constant_velocity(held_out), metrics.constant_turn_rate(held_out)) if baselines else ()
        return (*physical, of_model)

    def _together(
        self, base: bytes, lesson: Lesson, training: int, looking: Callable[[], None] | None = None
    ) -> Weights:
        """Train with all other shards. Each takes every step, with the same sum of gradients.

        Whatever goes wrong, from the very first, hangs up on the others: they wait for this shard's term.
        """
        try:
            from isthmus.learning.train import train_in_parts  # noqa: PLC0415 - as above

            start = weights.decode(memoryview(base), weights.MODEL_SCHEMA)
            added = functools.partial(self._exchange.summed, self._number, looking=looking)
            own: Any = _Summed(self._own(), _digest_of(base, lesson, training), added)
            return train_in_parts(start, own, _nobody, total=self._total, **dataclasses.asdict(lesson))
        except BaseException:
            self._exchange.close()
            raise

    def _alone(self) -> Trainer:
        from isthmus.learning.train import Trainer  # noqa: PLC0415 - jax takes 2 s: only who trains loads it

        if self._trainer is None:
            self._trainer = Trainer(_there(self._training))
        return self._trainer

    def _by_vehicle(self) -> Vehicles:
        from isthmus.learning.private import Vehicles  # noqa: PLC0415 - as above

        if self._vehicles is None:
            self._vehicles = Vehicles(_there(self._training))
        return self._vehicles

    def _own(self) -> Part:
        from isthmus.learning.train import Part  # noqa: PLC0415 - as above

        if self._part is None:
            self._part = Part(self._training or _none(), self._places, self._total)
        return self._part


@dataclass(frozen=True, slots=True)
class _Summed:
    """A shard's part of a training, whose gradient is that of all parts."""

    part: Part
    training: bytes
    summed: Callable[..., NDArray[np.float32]]

    def begin(self, *, epochs: int, seed: int, batch_size: int) -> None:
        """Begin a training."""
        self.part.begin(epochs=epochs, seed=seed, batch_size=batch_size)

    def gradient(self, flat: NDArray[np.float32], epoch: int, step: int) -> NDArray[np.float32]:
        """Return the whole gradient of one batch."""
        return self.summed(self.part.gradient(flat, epoch, step), step=self.training + _STEP.pack(epoch, step))


def _digest_of(base: bytes, lesson: Lesson, training: int) -> bytes:
    """Return what tells a training from all others of the run: by it, all shards know that they are at the same one."""
    told = json.dumps([training, dataclasses.asdict(lesson)], sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(base).digest() + told).digest()


def _nobody(*_: object) -> Callable[[], tuple[()]]:
    """Ask nobody: the sum has all terms."""
    return lambda: ()


def _require_well(following: Sequence[Any]) -> None:
    """Find out whether shards that keep quiet still take part, or have done their part."""
    import ray  # noqa: PLC0415 - as above

    done, _ = ray.wait(list(following), num_returns=len(following), timeout=0)
    _gathered(done)


def _gathered(references: Iterable[Any], within_s: float | None = None) -> list[Any]:
    """Return the answers of other shards.

    Raises:
        IsthmusError: what one of them answers.
        RunLost: one of them is gone, or does not answer in time.
    """
    import ray  # noqa: PLC0415 - as above
    from ray.exceptions import RayError  # noqa: PLC0415 - as above

    try:
        answers = list(ray.get(list(references), timeout=within_s))
    except (RayError, TimeoutError) as error:
        raise RunLost("A shard of the run is gone.", why=type(error).__name__) from None
    for answer in sorted(answers, key=_is_lost):  # where one fails, others lose their connection to it
        value_of(answer)
    return answers


def _is_lost(answer: Any) -> bool:
    return isinstance(answer, Failure) and answer.sort == RunLost.__name__


def _meeting_place() -> tuple[str, range]:
    """Return this node's address, and the ports on it where shards may meet."""
    import ray  # noqa: PLC0415 - as above

    nodes: Any = ray.nodes
    here = ray.get_runtime_context().get_node_id()
    (node,) = (entry for entry in nodes() if entry["NodeID"] == here)
    return str(node["NodeManagerAddress"]), meeting_ports(int(node["NodeManagerPort"]))


def _chosen(of: Windows, chosen: NDArray[np.bool_]) -> Windows:
    """Return some of the windows; the names of all vehicles stay."""
    columns = ("inputs", "residuals", "velocity", "turn_rate", "vehicles", "road_types")
    return dataclasses.replace(of, **{name: getattr(of, name)[chosen] for name in columns})


def _none() -> Windows:
    """Return no windows, for a shard that has no file."""
    return windows.Windows(
        inputs=np.zeros((0, windows.INPUTS), np.float32),
        residuals=np.zeros((0, windows.FUTURE, 2), np.float32),
        velocity=np.zeros((0, 2), np.float32),
        turn_rate=np.zeros(0, np.float32),
        vehicles=np.zeros(0, np.int32),
        vehicle_names=(),
        road_types=np.zeros(0, np.int8),
    )


def _there(value: Any) -> Any:
    if value is None:
        raise Fault(Code.COMPUTE_FAILED, "A shard was asked for something out of turn.")
    return value

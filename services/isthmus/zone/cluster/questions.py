"""`RayQuestions`: questions counted on a cluster. Each actor reads some of the files; the zone's process adds up.

Rules:
1. Nodes, keys and grants are as for training (`zone.cluster.compute`): an actor brings a key of its own, and file keys
   reach it as ciphertext. The border is told the class of the zone's process too: rows lie open there, to be added up.
2. What an actor answers is its files' rows that can count, sealed to a key that the zone's process made for this one
   counting: no row lies open in Ray's object store.
3. The sums are those of one process with all files, to the byte (`zone.questions`, rule 3).
4. If an actor, its node or the head is lost, the counting is (`RunLost`).
5. A small table (`small_question_bytes`) is counted in the zone's process, where the rows that count of a larger one
   come together anyway: starting an actor takes longer than counting. Then the files' keys, and all rows of the table,
   open there; the border is told the class of that process alone, and `allowed_accelerators` is not asked.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.inside import FileGrant
from isthmus.contracts.keys import HpkeKey
from isthmus.contracts.orders import Order
from isthmus.contracts.tables import TABLES
from isthmus.proof import canonical, sealing
from isthmus.proof.ids import order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.cluster.answers import answered, value_of
from isthmus.zone.cluster.layout import shards_for, share_out
from isthmus.zone.cluster.nodes import classes_of
from isthmus.zone.cluster.shard import Presence
from isthmus.zone.compute import RunLost
from isthmus.zone.questions import counted, granted_files, question_of, rows_of
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.store import open_store
from isthmus.zone.users import User

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from isthmus.contracts.identifiers import Name, OrderId
    from isthmus.contracts.inside import KeyGrant
    from isthmus.contracts.orders import DatasetRef
    from isthmus.contracts.raw_table import Group
    from isthmus.zone.cluster.connection import Connection
    from isthmus.zone.cluster.nodes import Node
    from isthmus.zone.cluster.settings import RaySettings
    from isthmus.zone.questions import Asking, Counted, InProcessQuestions

Sealed = tuple[bytes, bytes]
"""A wrapped content key, and what it seals."""


class RayQuestions:
    """Counts on a cluster of the zone."""

    def __init__(
        self,
        connection: Connection,
        settings: RaySettings,
        size_of: Callable[[DatasetRef, Group], int],
        here: InProcessQuestions,
    ) -> None:
        """Take the way to the cluster.

        Args:
            connection: to the head.
            settings: how work is cut, and where it may run.
            size_of: tells how many sealed bytes a snapshot has of a group.
            here: counts small tables in this process, on the machine that adds up what actors bring.
        """
        self._connection = connection
        self._settings = settings
        self._size_of = size_of
        self._here = here

    def prepare(self, order: Order) -> Asking:
        """Start the actors on permitted nodes and take their keys; where the table is small, make a key here."""
        settings, table = self._settings, TABLES[question_of(order).table]
        size = self._size_of(order.dataset, table.group)
        if size <= settings.small_question_bytes:
            return self._here.prepare(order)

        def started(nodes: Sequence[Node]) -> RayAsking:
            count = shards_for(size, settings.shard_bytes, settings.most_shards, sum(node.cpus for node in nodes))
            asking = RayAsking(order, self._connection, settings, self._here.accelerator)
            try:
                asking.start(list(itertools.islice(itertools.cycle(nodes), count)))
            except BaseException:
                asking.close()
                raise
            return asking

        return self._connection.placed(settings.allowed_accelerators, started)


class RayAsking:
    """The actors of one question, each with its key, and the key to which they seal their rows."""

    def __init__(self, order: Order, connection: Connection, settings: RaySettings, accelerator: Name) -> None:
        self._order = order
        self._connection = connection
        self._settings = settings
        self._accelerator = accelerator
        self._actors: list[Any] = []
        self._key: SealingKey | None = SealingKey.generate()
        self.run_keys: tuple[HpkeKey, ...] = ()
        self.accelerators: tuple[Name, ...] = ()

    def start(self, nodes: Sequence[Node]) -> None:
        """Start an actor on each of `nodes`, and have it make its key."""
        body = canonical.dump(self._order)
        for node in nodes:
            self._actors.append(self._connection.start(Counter, node, str(self._settings.folder), 0))
        present: list[Presence] = self._ask([actor.begin.remote(body) for actor in self._actors])
        if any(actor.node != node.id for actor, node in zip(present, nodes, strict=True)):
            raise RunLost("An actor stands on another node than the one that was chosen.")
        self.run_keys = tuple(HpkeKey.from_bytes(actor.run_key) for actor in present)
        self.accelerators = tuple(sorted({*classes_of(nodes), self._accelerator}))

    def count(self, grants: Sequence[KeyGrant]) -> Counted:
        """Have each actor read its files; add up what comes back."""
        granted = [granted_files(self._order, grant) for grant in grants]
        key, self._key = self._key, None
        if key is None or len(granted) != len(self._actors):
            raise Refusal(Code.ORDER_CLOSED, "The question has been counted or closed.")
        shared = share_out([file.size for file in granted[0]], len(granted))
        texts = [
            json.dumps([files[place].model_dump(mode="json") for place in places])
            for files, places in zip(granted, shared, strict=True)
        ]
        asked = [actor.rows.remote(text, key.public.raw) for actor, text in zip(self._actors, texts, strict=True)]
        sealed: list[list[Sealed]] = self._ask(asked)
        parts = [_opened(part, key, order_id(self._order)) for part in itertools.chain(*sealed)]
        return counted(question_of(self._order), parts)

    def close(self) -> None:
        """End the actors' processes, and drop the key."""
        self._connection.end(self._actors)
        self._actors, self._key = [], None

    def _ask(self, asked: Sequence[Any]) -> list[Any]:
        return [value_of(answer) for answer in self._connection.answers(asked)]


class Counter:
    """The actor: some files of one question. Calls come one at a time: `begin`, then `rows`."""

    def __init__(self, folder: str) -> None:
        """Take the site's folder, as this node sees it."""
        self._folder = Path(folder)
        self._key: SealingKey | None = None
        self._order: Order | None = None

    @answered
    def begin(self, order: bytes) -> Presence:
        """Check an order against what is installed here, and make the actor's key."""
        import os  # noqa: PLC0415 - with ray, for this call alone

        import ray  # noqa: PLC0415 - a zone without a cluster does not have it

        self._order = canonical.load(Order, order)
        question_of(self._order)
        self._key = SealingKey.generate()
        return Presence(ray.get_runtime_context().get_node_id(), os.getpid(), self._key.public.raw)

    @answered
    def rows(self, grants: str, to: bytes) -> list[Sealed]:
        """Read and decrypt files; return the rows that can count, sealed.

        Args:
            grants: JSON: the files' grants.
            to: the raw public key of the zone's process.
        """
        key, order, self._key = self._key, self._order, None
        if key is None or order is None:
            raise Refusal(Code.ORDER_CLOSED, "The question has been counted or closed.")
        files = [FileGrant.model_validate_json(json.dumps(grant)) for grant in json.loads(grants)]
        store = open_store(ZoneSettings.load(self._folder), User.COMPUTE)
        parts = rows_of(question_of(order), files, key, store)
        return [_sealed(part, HpkeKey.from_bytes(to), order_id(order)) for part in parts]


def _context(order: OrderId) -> bytes:
    return b"rows-that-count|" + order.encode()


def _sealed(part: pa.Table, to: HpkeKey, order: OrderId) -> Sealed:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.schema) as writer:
        writer.write_table(part)
    key = sealing.new_content_key()
    body = b"".join(sealing.seal(key, memoryview(sink.getvalue()), context=_context(order)))
    return sealing.wrap(key, to, context=_context(order)), body


def _opened(sealed: Sealed, key: SealingKey, order: OrderId) -> pa.Table:
    wrapped, body = sealed
    content_key = key.open(wrapped, context=_context(order))
    plain = sealing.open_sealed(content_key, [body], context=_context(order))
    return pa.ipc.open_stream(pa.py_buffer(plain)).read_all()

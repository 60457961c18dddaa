"""Questions, as a port: what a zone's worker asks of whoever counts for the length of one order.

As with training (`zone.compute`), an order is opened in two steps: whoever counts makes keys (`Asking.run_keys`), the
worker has the border seal the order's file keys to them, and passes on what it cannot read (`Asking.count`).

Rules:
1. Exactly the files that the border granted are read, each checked against its registered digest, one after the other.
2. What counts is the registered algorithm with the digest that the order names, on the catalogue that the question was
   written against, or nothing.
3. The same order on the same files gives the same bytes, however files and work are divided.
4. Exact sums go to the border and nowhere else; rows and keys are dropped when the counting ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isthmus.analytics import algorithm
from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.tables import TABLES
from isthmus.proof import canonical
from isthmus.proof.ids import catalogue_digest, order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.compute import CPU, load_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from isthmus.contracts.identifiers import Name
    from isthmus.contracts.inside import FileGrant, KeyGrant
    from isthmus.contracts.keys import HpkeKey
    from isthmus.contracts.orders import Order
    from isthmus.contracts.queries import QuerySpec
    from isthmus.zone.store import ObjectStore

ROWS_AT_ONCE = 2_000_000
"""About how many stored rows are held in memory before they are reduced to those that count."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What goes to the border.

    Attributes:
        payload: canonical bytes of `Partials`.
        contributors: vehicles that count, and the rows of theirs that do (`windows`); where the question does not count
            rows, there is nothing to say of them, and that number is the vehicles' again.
    """

    payload: bytes
    contributors: Contributors


class Asking(Protocol):
    """A question about to be counted: the parts that count are there, with a key each, and hold no data yet."""

    @property
    def run_keys(self) -> tuple[HpkeKey, ...]:
        """The public keys to which the order's file keys are to be sealed. At least one."""
        ...

    @property
    def accelerators(self) -> tuple[Name, ...]:
        """The classes of chips of all parts, sorted, each once. The border asks policy before it seals any key."""
        ...

    def count(self, grants: Sequence[KeyGrant]) -> Counted:
        """Count what was granted: one grant for each of `run_keys`, in their order. Blocks.

        Raises:
            Refusal: `FILE_ALTERED`, `DATASET_UNKNOWN`, `SCHEMA_MISMATCH` for a file of another version of the table,
                `PAYLOAD_ALTERED` for a grant that is sealed to another key.
            Fault: the store fails; `COMPUTE_FAILED` where the counting takes too long or too much memory.
            RunLost: a part is gone.
        """
        ...

    def close(self) -> None:
        """Drop keys and rows, whatever came of them."""
        ...


class Questions(Protocol):
    """Counts."""

    def prepare(self, order: Order) -> Asking:
        """Make ready to count what `order` asks. Blocks.

        Raises:
            Refusal: `ALGORITHM_UNKNOWN`, `SCHEMA_MISMATCH`, `POLICY_DENIED`: the order is not for this zone's counting.
            RunLost: the machine cannot be reached.
        """
        ...


class InProcessQuestions:
    """Counts in this process."""

    def __init__(self, store: ObjectStore, accelerator: Name = CPU) -> None:
        """Take where the files are, and the class of the chip of this process's machine."""
        self._store = store
        self.accelerator = accelerator

    def prepare(self, order: Order) -> InProcessAsking:
        """Check the order and make its key."""
        return InProcessAsking(order, question_of(order), self._store, self.accelerator)


class InProcessAsking:
    """One question's key in this process."""

    def __init__(self, order: Order, spec: QuerySpec, store: ObjectStore, accelerator: Name) -> None:
        self._order = order
        self._spec = spec
        self._store = store
        self._key: SealingKey | None = SealingKey.generate()
        self.run_keys = (self._key.public,)
        self.accelerators = (accelerator,)

    def count(self, grants: Sequence[KeyGrant]) -> Counted:
        """Read, decrypt, bound and add up."""
        (grant,) = grants
        key, self._key = self._key, None
        if key is None:
            raise Refusal(Code.ORDER_CLOSED, "The question has been counted or closed.")
        return counted(self._spec, rows_of(self._spec, granted_files(self._order, grant), key, self._store))

    def close(self) -> None:
        """Drop the key."""
        self._key = None


def question_of(order: Order) -> QuerySpec:
    """Return the question of an order that the algorithm installed here can count.

    Raises:
        Refusal: `POLICY_DENIED` for an order that asks nothing, `ALGORITHM_UNKNOWN`, `SCHEMA_MISMATCH` for another
            catalogue, `GROUP_NOT_IN_ORDER`.
    """
    if order.query is None:
        raise Refusal(Code.POLICY_DENIED, "The order asks for something else than an answer.")
    if order.algorithm != Algorithm(name=algorithm.NAME, digest=algorithm.digest()):
        why = "Its name or the digest of its source is not that of the algorithm installed here."
        raise Refusal(Code.ALGORITHM_UNKNOWN, "The order names another algorithm.", why=why)
    if order.query.catalogue != catalogue_digest():
        why = "It was written against another catalogue of tables than the one installed here."
        raise Refusal(Code.SCHEMA_MISMATCH, "The question is about other tables.", why=why)
    if TABLES[order.query.spec.table].group not in order.groups:
        raise Refusal(Code.GROUP_NOT_IN_ORDER, "The order does not name the group of the table that it asks about.")
    return order.query.spec


def granted_files(order: Order, grant: KeyGrant) -> list[FileGrant]:
    """Return the files of the asked table in a grant.

    Raises:
        Refusal: `ORDER_UNKNOWN` for the grant of another order or dataset, `DATASET_UNKNOWN` where there is no file of
            the table: the drives were ingested before it was made.
    """
    if grant.order != order_id(order) or any(file.dataset != order.dataset.dataset for file in grant.files):
        raise Refusal(Code.ORDER_UNKNOWN, "The keys were granted for another order or dataset.")
    group = TABLES[question_of(order).table].group
    files = [file for file in grant.files if file.group is group]
    if not files:
        remedy = "Ingest the drives again: derived tables are made at ingest."
        raise Refusal(Code.DATASET_UNKNOWN, f"The order's snapshot has no table {group.value}.", remedy=remedy)
    return files


def rows_of(spec: QuerySpec, files: Iterable[FileGrant], key: SealingKey, store: ObjectStore) -> list[pa.Table]:
    """Return, of some files, the rows that can count, in few parts. Files are read one after the other.

    Any share of a snapshot's files may be given to it, anywhere; `counted` makes one answer of all the parts.

    Raises:
        Refusal: as `Asking.count`.
    """
    from isthmus.analytics.partials import bounded  # noqa: PLC0415 -- the engine: only who counts loads it

    return [bounded(spec, tables) for tables in _gathered(load_group(file, key, store) for file in files)]


def counted(spec: QuerySpec, parts: Sequence[pa.Table]) -> Counted:
    """Return the sums over the parts that `rows_of` returned, wherever each was made.

    Raises:
        Fault: as `Asking.count`.
    """
    from isthmus.analytics.partials import rows_that_count, summed  # noqa: PLC0415 -- as above

    sums = summed(spec, parts)
    rows = rows_that_count(spec, sums)
    contributors = Contributors(vehicles=sums.vehicles, windows=sums.vehicles if rows is None else rows)
    return Counted(canonical.dump(sums), contributors)


def _gathered(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Gather tables until they have enough rows to be worth a statement."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        if sum(part.num_rows for part in pending) >= ROWS_AT_ONCE:
            yield pending
            pending = []
    if pending:
        yield pending

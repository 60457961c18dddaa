"""A question's order, and files of drives for it: sealed as ingest seals them, granted as the border grants them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.analytics import algorithm
from isthmus.contracts.crossings import Kind
from isthmus.contracts.identifiers import Digest, FileId, JobId, Name
from isthmus.contracts.inside import FileGrant, KeyGrant
from isthmus.contracts.orders import Algorithm, DatasetRef, Order
from isthmus.contracts.queries import Mode, QueryPlan
from isthmus.contracts.raw_table import Group
from isthmus.proof.ids import catalogue_digest, file_aad, file_key_context, order_id
from isthmus.proof.sealing import wrap
from isthmus.zone.vault import new_file_key, seal_group
from unit.analytics.rows import EVERYTHING, question, row, stored
from unit.zone.sites import HQ, NOW, ZONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from isthmus.contracts.queries import QuerySpec
    from isthmus.zone.store import ObjectStore

FLEET = DatasetRef(dataset=Name("fleet"), snapshot=Name("one"))
SLOT_S = 5
SPEC = question(*EVERYTHING, group_by=("road_class",), rows=2, groups=2)


def an_order(number: int = 1, spec: QuerySpec = SPEC, **changes: Any) -> Order:
    plan = QueryPlan(
        spec=spec,
        catalogue=catalogue_digest(),
        mode=Mode.DP,
        epsilon_micro=1_000_000,
        delta_exponent=9,
        slot_s=SLOT_S,
    )
    values: dict[str, Any] = {
        "version": 1,
        "job": JobId(f"job-{number:016x}"),
        "issuer": HQ,
        "zone": ZONE,
        "algorithm": Algorithm(name=algorithm.NAME, digest=algorithm.digest()),
        "dataset": FLEET,
        "groups": (Group.DRIVES,),
        "purpose": Name("forecasting"),
        "recipients": (ZONE, HQ),
        "outputs": (Kind.AGGREGATE,),
        "training": None,
        "evaluation": None,
        "query": plan,
        "tensors": (),
        "clip_norm_micro": 1,
        "base": None,
        "issued_at": NOW,
        "expires_at": NOW + 3600,
    }
    return Order(**{**values, **changes})


@dataclass(slots=True)
class Vault:
    store: ObjectStore
    order: Order
    files: list[tuple[FileId, Digest, int, bytes]]

    @classmethod
    def of(cls, store: ObjectStore, tables: Sequence[pa.Table], order: Order) -> Vault:
        vault = cls(store, order, [])
        for number, table in enumerate(tables):
            file, key = FileId(f"file-{number:032x}"), new_file_key()
            data = seal_group(table, key, file_aad(FLEET.dataset, file, Group.DRIVES))
            store.put(f"files/{file}/drives.parquet", data)
            vault.files.append((file, Digest.of(data), len(data), key))
        return vault

    def grant(self, run: Any, **changes: Any) -> KeyGrant:
        granted = []
        for file, digest, size, key in self.files:
            context = file_key_context(FLEET.dataset, file, Group.DRIVES, digest)
            values: dict[str, Any] = {
                "file": file,
                "group": Group.DRIVES,
                "dataset": FLEET.dataset,
                "object_name": f"files/{file}/drives.parquet",
                "digest": digest,
                "size": size,
                "wrapped_key": base64.b64encode(wrap(key, run, context=context)).decode(),
            }
            granted.append(FileGrant(**{**values, **changes}))
        return KeyGrant(order=order_id(self.order), files=tuple(granted))


def a_fleet(vehicles: int = 30) -> list[pa.Table]:
    rows = [
        row(f"v{n}", k, distance_km=100 * n + k, road_class="urban" if n % 3 else "interurban")
        for n in range(vehicles)
        for k in range(1 + n % 4)
    ]
    return [stored(rows[part::3]) for part in range(3)]

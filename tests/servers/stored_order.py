"""A store with sealed motion files, an order for them, and grants as a border makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Kind
from isthmus.contracts.identifiers import Digest, FileId, JobId, Name, SiteId
from isthmus.contracts.inside import FileGrant, KeyGrant
from isthmus.contracts.orders import (
    Algorithm,
    DatasetRef,
    EvaluationPlan,
    Order,
    TrainingPlan,
    TrainingPrivacy,
    Weighting,
)
from isthmus.contracts.raw_table import Group
from isthmus.learning import algorithm
from isthmus.learning.forecaster import MODEL_SCHEMA
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import file_aad, file_key_context, order_id
from isthmus.proof.sealing import wrap
from isthmus.zone.store import DirectoryStore
from isthmus.zone.vault import new_file_key, seal_group
from unit.learning.tracks import circling_fleet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from isthmus.contracts.keys import HpkeKey
    from isthmus.zone.compute import Compute, Run

DATASET = DatasetRef(dataset=Name("drives"), snapshot=Name("2026q4"))
NOW = 1_800_000_000


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file in the store, and the key that the border keeps of it."""

    file: FileId
    digest: Digest
    size: int
    key: bytes

    @property
    def object_name(self) -> str:
        return f"files/{self.file}/motion.parquet"


@dataclass(frozen=True, slots=True)
class Stored:
    """Sealed files and what a border would grant of them."""

    folder: Path
    files: tuple[Sealed, ...]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    def grant(self, order: Order, run_key: HpkeKey) -> KeyGrant:
        granted = tuple(
            FileGrant(
                file=file.file,
                group=Group.MOTION,
                dataset=DATASET.dataset,
                object_name=file.object_name,
                digest=file.digest,
                size=file.size,
                wrapped_key=to_base64(
                    wrap(
                        file.key,
                        run_key,
                        context=file_key_context(DATASET.dataset, file.file, Group.MOTION, file.digest),
                    )
                ),
            )
            for file in self.files
        )
        return KeyGrant(order=order_id(order), files=granted)

    def opened(self, compute: Compute, order: Order) -> Run:
        """Open an order as the worker does."""
        opening = compute.prepare(order)
        try:
            return opening.open([self.grant(order, key) for key in opening.run_keys])
        except BaseException:
            opening.close()
            raise


def stored(folder: Path, tables: Sequence[pa.Table]) -> Stored:
    """Seal motion tables, one file each, into the store of a folder."""
    store, files = DirectoryStore(folder), []
    for number, table in enumerate(tables):
        file, key = FileId(f"file-{number:032x}"), new_file_key()
        data = seal_group(table, key, file_aad(DATASET.dataset, file, Group.MOTION))
        sealed = Sealed(file, Digest.of(data), len(data), key)
        store.put(sealed.object_name, data)
        files.append(sealed)
    return Stored(folder, tuple(files))


def circling(files: int, vehicles: int, samples: int = 101) -> list[pa.Table]:
    """Return motion tables of a fleet that drives in circles, the same vehicles in each."""
    return [circling_fleet(vehicles=vehicles, samples=samples, seed=seed) for seed in range(files)]


def an_order(
    *, batch_size: int = 64, epochs: int = 1, held_out: int = 4, job: int = 1, privacy: TrainingPrivacy | None = None
) -> Order:
    """Return an order for `DATASET`."""
    hq, zone = SiteId("hq"), SiteId("cn-shanghai")
    return Order(
        version=1,
        job=JobId(f"job-{job:016x}"),
        issuer=hq,
        zone=zone,
        algorithm=Algorithm(name=algorithm.NAME, digest=algorithm.digest()),
        dataset=DATASET,
        groups=(Group.MOTION,),
        purpose=Name("forecast-training"),
        recipients=(zone, hq),
        outputs=(Kind.AGGREGATE, Kind.MODEL_UPDATE),
        training=TrainingPlan(
            rounds=2,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate_micro=1_000,
            seed=7,
            weighting=Weighting.VEHICLES,
            held_out_vehicles=held_out,
            split_salt=Name("salt"),
            adaptation_epochs=1,
            reference_epochs=1,
            privacy=privacy,
        ),
        evaluation=EvaluationPlan(at_slots=(2,), band_um=20_000, minimum_vehicles=10),
        tensors=MODEL_SCHEMA,
        clip_norm_micro=20_000_000,
        base=None,
        issued_at=NOW,
        expires_at=NOW + 3600,
    )

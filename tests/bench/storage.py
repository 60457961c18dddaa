"""What the guarantees cost on a real S3 store, as ratios of one run: 1 is as fast as without them.

- `puts`: storing sealed objects, each once, beside plain puts of the same bytes with the SDK's own client.
- `seal_and_put`: sealing tables and storing them, beside writing them in plain Parquet and putting that.
- `ingest`: all of ingest (checking every value, deriving, sealing, storing, registering, freezing) beside writing the
  same input, unchecked, in plain Parquet and putting that: as many files, encoded as the vault encodes.
- `ingest_to_default_parquet`: the same beside the same input in Parquet as its writer encodes when it is told nothing.
- `ingest_to_checked_tables`: the same beside writing, so encoded, what ingest has checked and gathered before: its
  texts are in dictionaries already, which the input's are not.
- `ingest_to_bare_puts`: all of ingest beside plain puts of what it stored, which somebody else would have made.
- `scan`: get, verify, decrypt and read as tables, beside getting and reading the same tables stored in plain Parquet.
- `scan_to_bare_gets`: the same beside plain gets of the sealed bytes, which nobody reads.

Files are read one after the other on both sides. `ingest_steps` are the seconds of ingest's steps, each on its own, and
`ingest_step_ratios` the plain writing and putting beside each: what bounds the whole is to be seen there. No object is
put before the whole input has been checked, so checking and putting never overlap; sealing one file overlaps with
checking the next.

Each is the best of several turns, taken alternately, so that a busy moment of the machine hits both.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from minio import Minio as MinioClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from isthmus.contracts.identifiers import Digest, FileId, Name
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.orders import DatasetRef
from isthmus.fleet import simulate
from isthmus.kit.ahead import ahead
from isthmus.kit.clock import ManualClock
from isthmus.zone.catalogue import Catalogue, Database
from isthmus.zone.derived import derived_tables, together
from isthmus.zone.drives import batches, group_columns, vehicles_of
from isthmus.zone.ingest import PUTS_AT_ONCE, ingest
from isthmus.zone.users import User
from isthmus.zone.validation import all_validated
from isthmus.zone.vault import encoding, new_file_key, open_group, seal_group
from servers.minio import ROOT, running
from servers.sites import StoredSite
from unit.zone.sites import NOW, make_borders

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.raw_table import Group
    from isthmus.zone.store import ObjectStore
    from servers.minio import Minio

VEHICLES, MINUTES, SEED = 60, 3.0, 7
TURNS, INGESTS = 21, 5
AAD = b"bench|file|group"


FILES = 3
"""As many as ingest makes of so many vehicles."""


class Bench:
    """One server, and the tables that everything is measured with."""

    def __init__(self, server: Minio, folder: Path) -> None:
        self.site = StoredSite(server, folder / "users")
        self.site.set_up()
        self.plain = MinioClient(server.endpoint, ROOT.access_key, ROOT.secret_key, secure=False, region="us-east-1")
        self.plain.make_bucket("plain")
        self.borders = make_borders(folder / "borders")
        self.database = Database(folder / "catalogue.db")
        self.tables = list(simulate("cn-shanghai", VEHICLES, MINUTES, SEED))
        self.turn = count()

    def ingest(self) -> int:
        """Ingest the tables; return the bytes that were stored."""
        dataset = DatasetRef(dataset=Name("fleet"), snapshot=Name(f"turn-{next(self.turn)}"))
        report = asyncio.run(
            ingest(
                self.tables,
                dataset=dataset,
                store=self.site.store(User.INGEST),
                catalogue=Catalogue(self.database),
                border=self.borders.zone.client(InsideRole.INGEST),
                clock=ManualClock(NOW),
            )
        )
        return report.stored_bytes

    def put_plain(self, objects: list[bytes]) -> None:
        """Put objects with the SDK's own call, as many at once as ingest does."""
        turn = next(self.turn)
        with ThreadPoolExecutor(PUTS_AT_ONCE) as threads:
            list(
                threads.map(
                    lambda item: self.plain.put_object(
                        "plain", f"{turn}/{item[0]}.bin", io.BytesIO(item[1]), len(item[1]), part_size=64 << 20
                    ),
                    enumerate(objects),
                )
            )

    def put_sealed(self, objects: list[bytes]) -> None:
        """Put objects as ingest does."""
        turn, store = next(self.turn), self.site.store(User.INGEST)
        for _ in ahead(
            lambda item: store.put(f"files/{turn}/{item[0]}.bin", item[1]), enumerate(objects), PUTS_AT_ONCE
        ):
            pass

    def stored(self, objects: list[bytes], kind: str) -> list[str]:
        """Keep objects for reading; return their names."""
        store, names = self.site.server.store(self.site.data), []
        for number, data in enumerate(objects):
            names.append(f"files/{kind}-{number}.bin")
            store.put(names[-1], data)
        return names


def parquet(table: pa.Table) -> bytes:
    """Return a table in plain Parquet, encoded as the vault encodes; texts in dictionaries, as they are there."""
    texts = [field.name for field in table.schema if field.type == pa.string() or pa.types.is_dictionary(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **encoding(table.schema) | {"use_dictionary": texts})
    return bytes(sink.getvalue())


def default_parquet(table: pa.Table) -> bytes:
    """Return a table in Parquet as the writer encodes that is told nothing."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def compared(ours: Callable[[], Any], theirs: Callable[[], Any], turns: int = TURNS) -> dict[str, float]:
    """Take both in turns; return the best seconds of each, and the ratio of the speeds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for call, found in zip((ours, theirs), times, strict=True):
            begun = time.perf_counter()
            call()
            found.append(time.perf_counter() - begun)
    best, plain = (min(each) for each in times)
    return {
        "seconds": best,
        "plain_seconds": plain,
        "ratio": plain / best,
        "median_ratio": sorted(times[1])[turns // 2] / sorted(times[0])[turns // 2],
    }


def scan(store: ObjectStore, names: list[str], sealed: list[tuple[bytes, Digest, int]]) -> int:
    """Get, verify, decrypt and read, as a training run does with its files; return the rows."""

    def opened(item: tuple[str, tuple[bytes, Digest, int]]) -> pa.Table:
        name, (key, digest, size) = item
        return open_group(store.get(name), key, AAD, file=FileId("file-" + "0" * 32), digest=digest, size=size)

    return sum(table.num_rows for table in map(opened, zip(names, sealed, strict=True)))


def ingest_steps(bench: Bench, objects: list[bytes]) -> dict[str, float]:
    """Return the best seconds of ingest's steps, one after the other."""
    whole = list(batches(all_validated(bench.tables)))
    names = {vehicle: f"vehicle-{vehicle}" for table in whole for vehicle in vehicles_of(table)}
    tables = [group_columns(table, names) for table in whole]

    def derive() -> dict[Group, pa.Table]:
        parts = [derived_tables(table, names) for table in whole]
        return {group: together([part[group] for part in parts]) for group in parts[0]}

    tables.append(derive())
    steps: dict[str, Callable[[], Any]] = {
        "check": lambda: list(batches(all_validated(bench.tables))),
        "derive": derive,
        "seal": lambda: [seal_group(group, new_file_key(), AAD) for file in tables for group in file.values()],
        "put": lambda: bench.put_sealed(objects),
    }
    found = {}
    for name, step in steps.items():
        times = []
        for _ in range(TURNS):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
        found[name] = min(times)
    return found


def measure() -> dict[str, Any]:
    """Run everything; return the figures."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        folder = Path(name)
        with running(folder / "minio") as server:
            return _measured(Bench(server, folder))


def _measured(bench: Bench) -> dict[str, Any]:
    stored = bench.ingest()
    compute = bench.site.store(User.COMPUTE)
    objects = [compute.get(name) for name in compute.names()]
    whole = list(batches(all_validated(bench.tables)))
    keys = [new_file_key() for _ in whole]
    sealed = [seal_group(table, key, AAD) for table, key in zip(whole, keys, strict=True)]
    names = bench.stored(sealed, "sealed")
    plain_names = bench.stored([parquet(table) for table in whole], "plain")
    facts = [(key, Digest.of(data), len(data)) for key, data in zip(keys, sealed, strict=True)]
    bucket, get = bench.site.data, bench.plain.get_object
    each = len(bench.tables) // FILES
    given = [pa.concat_tables(bench.tables[first : first + each]) for first in range(0, len(bench.tables), each)]
    if len(whole) != len(given):
        raise AssertionError("the peer writes as many files as ingest")
    found = {
        "ingest": compared(bench.ingest, lambda: bench.put_plain([parquet(table) for table in given]), INGESTS),
        "ingest_to_default_parquet": compared(
            bench.ingest, lambda: bench.put_plain([default_parquet(table) for table in given]), INGESTS
        ),
        "ingest_to_checked_tables": compared(
            bench.ingest, lambda: bench.put_plain([parquet(table) for table in whole]), INGESTS
        ),
        "seal_and_put": compared(
            lambda: bench.put_sealed([seal_group(table, new_file_key(), AAD) for table in whole]),
            lambda: bench.put_plain([parquet(table) for table in whole]),
        ),
        "puts": compared(lambda: bench.put_sealed(objects), lambda: bench.put_plain(objects)),
        "scan": compared(
            lambda: scan(compute, names, facts),
            lambda: [pq.read_table(pa.BufferReader(get(bucket, name).data)) for name in plain_names],
        ),
        "scan_to_bare_gets": compared(
            lambda: scan(compute, names, facts),
            lambda: [get(bucket, name).data for name in names],
        ),
    }
    bare = found["puts"]["plain_seconds"]
    seconds = found["ingest"]["seconds"]
    found["ingest_to_bare_puts"] = {"seconds": seconds, "plain_seconds": bare, "ratio": bare / seconds}
    steps = ingest_steps(bench, objects)
    return {
        "raw_bytes": sum(table.nbytes for table in bench.tables),
        "stored_bytes": stored,
        "load": os.getloadavg()[0],
        "ratios": {name: figures["ratio"] for name, figures in sorted(found.items())},
        "ingest_steps": steps,
        "ingest_step_ratios": {name: found["ingest"]["plain_seconds"] / taken for name, taken in steps.items()},
        "parts": found,
    }


def main() -> None:
    try:
        report = json.dumps(measure(), indent=2)
    except pytest.skip.Exception as left_out:
        print(f"Storage is left out: {left_out}.")
        return
    Path("bench-storage.json").write_text(report + "\n", "utf-8")
    print(report)


if __name__ == "__main__":
    main()

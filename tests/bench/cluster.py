"""What a zone's cluster costs over its own process, in one run; written to `bench-cluster.json`.

The demo's data: 160 vehicles that drive for 3 minutes, with the demo's plan. Rounds take turns: in this process, on one
shard, on two, so that a busy machine is as slow for each. What is judged is the difference of the medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from isthmus.cli.defaults import training_plan
from isthmus.contracts.raw_table import Group
from isthmus.fleet import simulate
from isthmus.learning import weights
from isthmus.learning.forecaster import initial_weights
from isthmus.zone.cluster.compute import RayCompute
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.compute import InProcessCompute
from isthmus.zone.drives import batches, group_columns, vehicles_of
from isthmus.zone.store import DirectoryStore
from isthmus.zone.validation import all_validated
from servers.ray_cluster import running
from servers.stored_order import an_order, stored

if TYPE_CHECKING:
    import pyarrow as pa

    from isthmus.zone.compute import Compute

ROUNDS = 10
LIMIT_S = 0.3
"""What a round may take more than in process."""


def motion() -> list[pa.Table]:
    """Return the fleet's motion, a table for each file, as ingest cuts it."""
    files = batches(all_validated(simulate("cn-shanghai", 160, 3.0, 7)))
    return [group_columns(file, {vehicle: vehicle for vehicle in vehicles_of(file)})[Group.MOTION] for file in files]


def measure() -> None:
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name, running(Path(name)) as cluster:
        idle = cluster.memory_bytes()
        drives = stored(cluster.site / "store", motion())
        settings = cluster.settings
        connection = Connection(settings.client_address, settings.token, 60)
        computes: dict[str, Compute] = {"in process": InProcessCompute(DirectoryStore(drives.folder))}
        for shards in (1, 2):
            chosen = settings.model_copy(update={"most_shards": shards})
            computes[f"{shards} shard(s)"] = RayCompute(connection, chosen, lambda *_: drives.bytes)
        order = an_order().model_copy(update={"training": training_plan()})
        report: dict[str, Any] = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
            "files": len(drives.files),
            "sealed_bytes": drives.bytes,
            "memory_mib": {"idle cluster": idle >> 20},
            "kinds": {},
        }
        model = weights.encode(initial_weights(7))
        runs = {}
        for kind, compute in computes.items():
            began = time.perf_counter()
            runs[kind] = drives.opened(compute, order)
            opened = time.perf_counter()
            runs[kind].train(0, model)  # compiles
            report["kinds"][kind] = {"open_s": opened - began, "first_round_s": time.perf_counter() - opened}
        times: dict[str, list[float]] = {kind: [] for kind in runs}
        for slot in range(1, ROUNDS + 1):
            for kind, run in runs.items():
                began = time.perf_counter()
                run.train(slot, model)
                times[kind].append(time.perf_counter() - began)
        report["memory_mib"]["with three shards open"] = cluster.memory_bytes() >> 20
        report["windows"] = runs["in process"].contributors.windows
        base = statistics.median(times["in process"])
        for kind, taken in times.items():
            median = statistics.median(taken)
            overhead = {"overhead_s": median - base, "overhead_to_limit": (median - base) / LIMIT_S}
            report["kinds"][kind] |= {"median_s": median, "best_s": min(taken), **overhead}
        for run in runs.values():
            run.close()
        connection.close()
    Path("bench-cluster.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(json.dumps(report, indent=2))


def main() -> None:
    try:
        measure()
    except pytest.skip.Exception as left_out:
        print(f"The cluster is left out: {left_out}.")


if __name__ == "__main__":
    main()

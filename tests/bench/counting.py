"""Counting for a question beside plain DuckDB on the same table, in one run; written to `bench-counting.json`.

    python tests/bench/counting.py [rows] [vehicles] [files]

Plain DuckDB answers the same question as SQL, with no bound on what one vehicle adds. It counts the distinct vehicles
too, since no answer leaves without that number; what it takes without them is written down beside it. Both read one
Arrow table in memory, by turns; the figure to judge is their ratio. Processor times are given too: a machine that does
other things blurs the clock more than these.

The limit is for one table, which stands as one file, or in a few, each with vehicles of its own: a run of ingest writes
one for every two million rows. The same rows in files that each have rows of every vehicle, as several runs write them,
are measured beside it: of a vehicle's rows in all of them the first are found by merging.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from isthmus.analytics.partials import partials
from isthmus.analytics.stored import DRAW, PLACE, VEHICLE, schema_of
from isthmus.contracts.queries import Condition, Figure, FigureKind, QuerySpec, in_order
from isthmus.contracts.tables import TABLES, TableName

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.tables import TableSpec

ROWS, VEHICLES = 10_000_000, 100_000
REPEATS = 7
FILES = 5
LIMIT = 1.3
"""What counting may take at most, in times of plain DuckDB."""
KINDS = {"tables": "", "in files apart": ", {} files apart", "in files": ", {} files that share vehicles"}
"""How a table stands, and what is said of it."""

DISTINCT = f"count(DISTINCT {VEHICLE})"
FIGURES: dict[str, tuple[tuple[Figure, ...], str, tuple[str, ...], tuple[Condition, ...], str]] = {
    "vehicles": ((), "", (), (), ""),
    "kilometres by road type": (
        (Figure(kind=FigureKind.SUM, measure="distance_km"),), "sum(distance_km)", ("road_type",), (), "",
    ),
    "mean speed": ((Figure(kind=FigureKind.MEAN, measure="speed_mps"),), "avg(speed_mps)", (), (), ""),
    "share of headway under 1 s": (
        (Figure(kind=FigureKind.MEAN, measure="headway_below_1s_share"),), "avg(headway_below_1s_share)", (), (), "",
    ),
    "braking": ((Figure(kind=FigureKind.MEAN, measure="braking_share"),), "avg(braking_share)", (), (), ""),
    "mean headway by road type, short ones": (
        (Figure(kind=FigureKind.MEAN, measure="headway_s"), Figure(kind=FigureKind.ROWS, measure=None)),
        "count(*), avg(headway_s)",
        ("road_type",),
        (Condition(column="headway_s", low=0, high=500),),
        "WHERE headway_s <= 500",
    ),
    "mean speed on freeways": (
        (Figure(kind=FigureKind.MEAN, measure="speed_mps"),),
        "avg(speed_mps)",
        (),
        (Condition(column="road_type", values=("freeway",)),),
        "WHERE road_type = 'freeway'",
    ),
}  # fmt: skip
"""The five headline figures, and two with conditions: specification and plain SQL."""


def table_of(spec: TableSpec, rows: int, vehicles: int) -> pa.Table:
    """Make a stored table of random rows, as ingest would order it."""
    rng = np.random.default_rng(1)
    vehicle = np.sort(rng.integers(0, vehicles, rows)).astype(np.int32)
    draw = rng.integers(0, 2**62, rows)
    draw = draw[np.lexsort((draw, vehicle))]
    place = (np.arange(rows) - np.searchsorted(vehicle, vehicle)).astype(np.int32)
    columns: dict[str, Any] = {
        VEHICLE: pa.DictionaryArray.from_arrays(pa.array(vehicle), pa.array([f"{n:024x}" for n in range(vehicles)])),
        DRAW: draw,
        PLACE: place,
    }
    for dimension in spec.dimensions:
        codes = rng.integers(0, len(dimension.values), rows).astype(np.int32)
        columns[dimension.name] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(dimension.values))
    for measure in spec.measures:
        values = rng.integers(measure.low, measure.high + 1, rows).astype(np.int32)
        columns[measure.name] = pa.array(values, mask=rng.random(rows) < 0.2 if measure.optional else None)
    return pa.table(columns, schema=schema_of(spec))


def divided(table: pa.Table, files: int) -> list[pa.Table]:
    """Deal a table's rows out to files, each as ingest would order it."""
    part = np.random.default_rng(2).integers(0, files, table.num_rows)
    found = []
    for number in range(files):
        file = table.take(pa.array(np.flatnonzero(part == number)))
        vehicle = file.column(VEHICLE).combine_chunks().indices.to_numpy()
        place = (np.arange(len(vehicle)) - np.searchsorted(vehicle, vehicle)).astype(np.int32)
        found.append(file.set_column(file.column_names.index(PLACE), PLACE, pa.array(place)))
    return found


def apart(table: pa.Table, files: int) -> list[pa.Table]:
    """Cut a table into files of so many vehicles each, with a dictionary of its own."""
    vehicle = table.column(VEHICLE).combine_chunks()
    places, words = vehicle.indices.to_numpy(), vehicle.dictionary
    edges = [len(words) * number // files for number in range(files + 1)]
    found = []
    for low, high in pairwise(edges):
        start, end = np.searchsorted(places, (low, high)).tolist()
        own = pa.DictionaryArray.from_arrays(pa.array(places[start:end] - np.int32(low)), words[low:high])
        file = table.slice(start, end - start)
        found.append(file.set_column(file.column_names.index(VEHICLE), file.schema.field(VEHICLE), own))
    return found


def question(spec: TableSpec, name: str) -> QuerySpec:
    figures, _, group_by, where, _ = FIGURES[name]
    counted = (*figures, Figure(kind=FigureKind.VEHICLES, measure=None))
    asked = QuerySpec(
        version=1,
        table=spec.name,
        group_by=group_by,
        where=where,
        figures=tuple(in_order(counted)),
        rows_per_vehicle=spec.rows_per_vehicle,
        groups_per_vehicle=1,
    )
    return asked.model_copy(update={"groups_per_vehicle": min(asked.domain_size(), spec.rows_per_vehicle)})


def plain(name: str, *, vehicles: bool) -> str:
    _, figures, group_by, _, where = FIGURES[name]
    columns = ", ".join(filter(None, [*group_by, figures, DISTINCT if vehicles or not figures else ""]))
    return f"SELECT {columns} FROM stored {where} {'GROUP BY ALL' if group_by else ''}"  # noqa: S608 -- constants


def by_turns(actions: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, dict[str, float]]:
    """Return the median seconds of each action, by the clock and of processor time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            began, busy = time.perf_counter(), time.process_time()
            action()
            if turn:
                times[name].append((time.perf_counter() - began, time.process_time() - busy))
    return {
        name: {
            "clock_s": statistics.median(clock for clock, _ in found),
            "processor_s": statistics.median(busy for _, busy in found),
        }
        for name, found in times.items()
    }


def answered(database: duckdb.DuckDBPyConnection, statement: str) -> list[Any]:
    return database.execute(statement).fetchall()


def measure(rows: int = ROWS, vehicles: int = VEHICLES, files: int = FILES, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure every figure on both tables: as one file, in files apart, and in files that share vehicles."""
    found: dict[str, Any] = {"rows": rows, "vehicles": vehicles, "files": files, **{kind: {} for kind in KINDS}}
    for name in TableName:
        table = table_of(TABLES[name], rows, vehicles)
        found["tables"][name.value] = _figures(TABLES[name], [table], repeats)
        found["in files apart"][name.value] = _figures(TABLES[name], apart(table, files), repeats)
        found["in files"][name.value] = _figures(TABLES[name], divided(table, files), repeats)
    return found


def _figures(spec: TableSpec, files: list[pa.Table], repeats: int) -> dict[str, Any]:
    database = duckdb.connect()
    database.register("stored", pa.concat_tables(files))
    figures = {}
    for name in FIGURES:
        times = by_turns(
            {
                "plain": partial(answered, database, plain(name, vehicles=True)),
                "plain without vehicles": partial(answered, database, plain(name, vehicles=False)),
                "counted": partial(partials, question(spec, name), files),
            },
            repeats,
        )
        figures[name] = {
            "times": times,
            "ratio": times["counted"]["clock_s"] / times["plain"]["clock_s"],
            "processor_ratio": times["counted"]["processor_s"] / times["plain"]["processor_s"],
            "ratio_without_vehicles": times["counted"]["clock_s"] / times["plain without vehicles"]["clock_s"],
        }
    database.close()
    return figures


def main() -> None:
    rows, vehicles, files = (int(float(a)) for a in (*sys.argv[1:4], *(ROWS, VEHICLES, FILES)[len(sys.argv) - 1 :]))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    report = {"machine": machine, **measure(rows, vehicles, files)}
    Path("bench-counting.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    for kind, said in KINDS.items():
        for table, figures in report[kind].items():
            for name, found in figures.items():
                print(
                    f"{table:<8}{name:<40}{1000 * found['times']['plain']['clock_s']:7.0f} ms plain"
                    f"{1000 * found['times']['counted']['clock_s']:7.0f} ms counted, {found['ratio']:.2f} x"
                    f" (processor {found['processor_ratio']:.2f} x; to plain without vehicles"
                    f" {found['ratio_without_vehicles']:.1f} x){said.format(files)}"
                )
    one, own, several = (
        [found["ratio"] for figures in report[kind].values() for found in figures.values()] for kind in KINDS
    )
    print(f"All figures: {statistics.median(one):.2f} x at the median, {max(one):.2f} x at most;"
          f" in {files} files apart: {statistics.median(own):.2f} x, {max(own):.2f} x; the limit is {LIMIT}."
          f" In {files} files that share vehicles: {statistics.median(several):.2f} x, {max(several):.2f} x at most."
          f" Load {machine['load']:.1f} on {machine['cores']} cores.")  # fmt: skip


if __name__ == "__main__":
    main()

"""Derived tables: from a batch of raw drives, one row a drive and one row a started minute (`contracts.tables`).

Definitions. All are of the recording vehicle (the ego), at its samples of 5 Hz:

    distance          straight way between samples that follow each other, counted where the later one stands
    duration          0.2 s a sample: time that a recording lost is not counted
    mean speed        of all samples
    vehicle ahead     of the cars, trucks and buses that head the same way, less than 1.8 m beside the ego's axis and
                      up to 100 m ahead of it, the one with the smallest gap
    headway           gap, bumper to bumper, over the ego's speed, at 3 m/s or more; one sample is at most 10 s
    braking           the speed's change over one step, below -2 m/s2
    cut-in            a vehicle is ahead that was not, and 0.2 s before it was 1.8 m or more beside the axis; each
                      counts once a row
    disengagement     `engaged` falls from 1 to 0; none where the recording does not say
    traffic           others recorded, mean over the row's samples
    road type         that of most samples; of equals, the first of the domain

Rules:
1. What a row says is of one vehicle's one drive: no row depends on another's.
2. A row's `draw` is a hash of all it says and of which drive and minute it is, so rows with the same draw are the
   same, and which rows of a vehicle count first depends on them alone, whatever file they came in.
3. No scene's name is kept, and rows stand by pseudonym and draw: their order says nothing of the drives' order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.analytics.stored import DRAW, PLACE, VEHICLE, schema_of
from isthmus.contracts.raw_table import EGO_TRACK, ROAD_TYPES, SAMPLE_RATE_HZ
from isthmus.contracts.tables import ROAD_CLASSES, TABLES, TRAFFIC, TableName
from isthmus.zone.columns import text_codes
from isthmus.zone.leaders import find_leaders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from isthmus.contracts.raw_table import Group
    from isthmus.contracts.tables import Measure, TableSpec
    from isthmus.zone.leaders import Leaders

STEP_S = 1.0 / SAMPLE_RATE_HZ
STEP_TOLERANCE_S = 0.01
MINUTE_S = 60.0
HEADWAY_FROM = 3.0
"""m/s. Below, a headway says nothing of how somebody follows."""
LONGEST_HEADWAY = 10.0
SHORT_HEADWAY = 1.0
BRAKING = -2.0
FREE_BELOW, MODERATE_BELOW = 2.0, 6.0


@dataclass(frozen=True, slots=True)
class _Samples:
    """The egos' samples of a batch, in order: arrays of one length.

    Attributes:
        row: of the raw table.
        scene: number of the drive; it does not fall.
        vehicle: code of the vehicle's name.
        since: time since the drive's first sample, s.
        others: other road users recorded.
        road: index into `ROAD_TYPES`.
        speed: m/s.
        way: from the sample before, m.
        change: of the speed over one step, m/s2, NaN where the sample before is missing.
        handed_back: the driver has taken over since the sample before.
        leaders: the vehicles ahead.
    """

    row: NDArray[np.int64]
    scene: NDArray[np.int64]
    vehicle: NDArray[np.int32]
    since: NDArray[np.float64]
    others: NDArray[np.int64]
    road: NDArray[np.int32]
    speed: NDArray[np.float64]
    way: NDArray[np.float64]
    change: NDArray[np.float64]
    handed_back: NDArray[np.bool_]
    leaders: Leaders


def derived_tables(batch: pa.Table, pseudonyms: Mapping[str, str]) -> dict[Group, pa.Table]:
    """Return the derived tables of a batch, by the group under whose keys they are stored.

    Args:
        batch: a validated raw table (`zone.validation`): whole drives, rows by `scene_id`, `t`, `track_id`.
        pseudonyms: each vehicle's.
    """
    samples = _samples(batch)
    scene_code, names = text_codes(batch.column("scene_id"))
    minute = np.floor((samples.since + STEP_TOLERANCE_S) / MINUTE_S).astype(np.int64)
    made = {}
    for table, part in ((TABLES[TableName.DRIVES], np.zeros_like(minute)), (TABLES[TableName.MINUTES], minute)):
        begins = np.diff(samples.scene, prepend=-1) != 0
        begins |= np.diff(part, prepend=-1) != 0
        of_sample = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        labels = [f"{names[scene_code[samples.row[index]]]}\0{part[index]}" for index in first]
        made[table.group] = _table(table, samples, of_sample, first, labels, _names_of(batch, pseudonyms))
    return made


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Return one derived table of several batches as one: rows by pseudonym and draw, with their places among all."""
    rows = pa.concat_tables(tables).combine_chunks()
    codes, names = text_codes(rows.column(VEHICLE))
    order, place = _by_vehicle_and_draw(codes, names, rows.column(DRAW).to_numpy())
    rows = rows.take(pa.array(order))
    columns = {PLACE: pa.array(place)}
    columns |= {f.name: _encoded(rows.column(f.name)) for f in rows.schema if pa.types.is_dictionary(f.type)}
    return pa.table({name: columns.get(name, rows.column(name)) for name in rows.column_names}, schema=rows.schema)


def _names_of(batch: pa.Table, pseudonyms: Mapping[str, str]) -> list[str]:
    """Return the pseudonym of each code of the vehicles' column; nothing for a code that no row has."""
    return [pseudonyms.get(name, "") for name in text_codes(batch.column("vehicle"))[1]]


def _samples(batch: pa.Table) -> _Samples:
    track = batch.column("track_id").to_numpy()
    ego = np.flatnonzero(track == EGO_TRACK)
    scene_code, _ = text_codes(batch.column("scene_id"))
    scene = np.cumsum(np.diff(scene_code[ego], prepend=-1) != 0) - 1
    number = {name: batch.column(name).to_numpy()[ego].astype(np.float64) for name in ("t", "x", "y", "vx", "vy")}
    same = np.diff(scene, prepend=-1) == 0
    step = np.diff(number["t"], prepend=0.0)
    speed = np.hypot(number["vx"], number["vy"])
    next_to = same & (np.abs(step - STEP_S) <= STEP_TOLERANCE_S)
    started = np.maximum.accumulate(np.where(same, 0, np.arange(len(ego))))
    engaged = pc.fill_null(batch.column("engaged").combine_chunks().take(pa.array(ego)), 0).to_numpy()
    way = np.hypot(np.diff(number["x"], prepend=0.0), np.diff(number["y"], prepend=0.0))
    return _Samples(
        row=ego,
        scene=scene,
        vehicle=text_codes(batch.column("vehicle"))[0][ego],
        since=number["t"] - number["t"][started],
        others=np.diff(ego, append=len(track)) - 1,
        road=_codes_in(batch.column("road_type"), ROAD_TYPES, ego),
        speed=speed,
        way=np.where(same, way, 0.0),
        change=np.where(next_to, np.diff(speed, prepend=0.0) * SAMPLE_RATE_HZ, np.nan),
        handed_back=same & (np.diff(engaged, prepend=0) < 0),
        leaders=find_leaders(batch, ego, next_to),
    )


def _codes_in(column: pa.ChunkedArray, domain: tuple[str, ...], rows: NDArray[np.int64]) -> NDArray[np.int32]:
    codes, texts = text_codes(column)
    return np.array([domain.index(text) for text in texts], np.int32)[codes[rows]]


def _table(
    table: TableSpec,
    samples: _Samples,
    of_sample: NDArray[np.int64],
    first: NDArray[np.int64],
    labels: list[str],
    names: list[str],
) -> pa.Table:
    """Sum samples up into rows; `of_sample` says to which row each belongs, `first` where the rows begin."""
    measures = _measures(samples, of_sample, len(first))
    dimensions = _dimensions(samples, of_sample, len(first))
    steps = {m.name: _in_steps(measures[m.name], m) for m in table.measures}
    codes = {d.name: dimensions[d.name] for d in table.dimensions}
    said = np.column_stack([*codes.values(), *(np.where(none, -1, whole) for whole, none in steps.values())])
    draws = np.array([_draw(label, row.tobytes()) for label, row in zip(labels, said.astype("<i8"), strict=True)])
    vehicles = samples.vehicle[first]
    order, place = _by_vehicle_and_draw(vehicles, names, draws)
    columns = {
        VEHICLE: _words(vehicles[order], names),
        DRAW: pa.array(draws[order]),
        PLACE: pa.array(place),
        **{d.name: _words(codes[d.name][order], list(d.values)) for d in table.dimensions},
        **{name: pa.array(whole[order], mask=none[order]) for name, (whole, none) in steps.items()},
    }
    return pa.table(columns, schema=schema_of(table))


def _by_vehicle_and_draw(
    codes: NDArray[np.int32], names: list[str], draws: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return rows' order by their vehicle's name and their draw, and each one's place in it among its vehicle's."""
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    order = np.lexsort((draws, rank[codes]))
    begins = np.diff(codes[order], prepend=-1) != 0
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    return order, place.astype(np.int32)


def _draw(label: str, said: bytes) -> int:
    return int.from_bytes(hashlib.sha256(label.encode() + b"\0" + said).digest()[:8]) >> 1


def _in_steps(values: NDArray[np.float64], measure: Measure) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return a measure in whole steps, and where it has no value."""
    none = np.isnan(values)
    return np.rint(np.where(none, 0.0, values) * measure.steps_per_unit).astype(np.int32), none


def _words(codes: NDArray[np.integer], words: list[str]) -> pa.Array:
    return _encoded(pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string())))


def _encoded(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a column of texts with those alone that rows have, in the rows' order: no other tells of the input's."""
    return pc.dictionary_encode(column.cast(pa.string()))


def _measures(samples: _Samples, of_sample: NDArray[np.int64], rows: int) -> dict[str, NDArray[np.float64]]:
    """Return each measure in its unit, NaN where a row has none."""

    def total(of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(of_sample, weights=of, minlength=rows).astype(np.float64, copy=False)

    def number(of: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(of_sample[of], minlength=rows).astype(np.float64)

    count = np.bincount(of_sample, minlength=rows).astype(np.float64)
    gap, speed = samples.leaders.gap, samples.speed
    follows = np.isfinite(gap) & (speed >= HEADWAY_FROM)
    headway = np.where(follows, np.minimum(np.maximum(gap, 0.0) / np.maximum(speed, HEADWAY_FROM), LONGEST_HEADWAY), 0)
    following = number(follows)
    stepped = ~np.isnan(samples.change)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: the row has none
        mean_headway = total(headway) / following
        short = number(follows & (headway < SHORT_HEADWAY)) / following
    return {
        "distance_km": total(samples.way) / 1000.0,
        "duration_s": count * STEP_S,
        "speed_mps": total(speed) / count,
        "headway_s": mean_headway,
        "headway_below_1s_share": short,
        "braking_share": number(np.where(stepped, samples.change, 0.0) < BRAKING) / np.maximum(number(stepped), 1.0),
        "cut_ins": _cut_ins(samples.leaders, of_sample, rows),
        "disengagements": number(samples.handed_back),
    }


def _cut_ins(leaders: Leaders, of_sample: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
    """Return how many vehicles cut in, each once a row."""
    came = np.flatnonzero(leaders.cut_in)
    each = np.unique(np.column_stack([of_sample[came], leaders.track[came]]), axis=0)
    return np.bincount(each[:, 0], minlength=rows).astype(np.float64)


def _dimensions(samples: _Samples, of_sample: NDArray[np.int64], rows: int) -> dict[str, NDArray[np.int64]]:
    """Return each dimension as an index into its domain."""
    votes = np.bincount(of_sample * len(ROAD_TYPES) + samples.road, minlength=rows * len(ROAD_TYPES))
    road = votes.reshape(rows, len(ROAD_TYPES)).argmax(axis=1)
    table = TABLES[TableName.DRIVES]
    classes = table.dimension("road_class")
    if classes is None:
        raise AssertionError("the catalogue has road classes")
    to_class = np.array([classes.values.index(ROAD_CLASSES[kind]) for kind in ROAD_TYPES])
    others = np.bincount(of_sample, weights=samples.others, minlength=rows) / np.bincount(of_sample, minlength=rows)
    traffic = np.digitize(others, [FREE_BELOW, MODERATE_BELOW])
    if len(TRAFFIC) != len((FREE_BELOW, MODERATE_BELOW)) + 1:
        raise AssertionError("each kind of traffic has its bound")
    return {"road_type": road, "road_class": to_class[road], "traffic": traffic.astype(np.int64)}

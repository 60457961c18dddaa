"""Exact sums, bounded per vehicle: against a count by hand, and whatever the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.analytics.partials import bounded, partials, summed
from isthmus.analytics.stored import DRAW, PLACE, VEHICLE
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import CellPartial, Condition, Partials, PrimitiveKind, QuerySpec, primitives
from isthmus.contracts.raw_table import ROAD_TYPES
from isthmus.contracts.tables import ROAD_CLASSES, TRAFFIC
from isthmus.proof.ids import question_digest
from unit.analytics.rows import DRIVES, EVERYTHING, figure, question, row, stored

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

Row = dict[str, Any]
NUMBERS = st.integers(-3_000, 15_000)
CONDITIONS = (
    (),
    (Condition(column="speed_mps", low=500, high=3_000),),
    (Condition(column="headway_s", low=0, high=1_000),),
    (Condition(column="road_type", values=("freeway", "roundabout")), Condition(column="traffic", values=("free",))),
)


def _question(group_by: tuple[str, ...], where: tuple[Condition, ...], rows: int, groups: int) -> QuerySpec:
    asked = question(group_by=group_by, where=where, rows=rows)
    return question(group_by=group_by, where=where, rows=rows, groups=min(groups, rows, asked.domain_size()))


QUESTIONS = st.builds(
    _question,
    st.sampled_from([(), ("road_type",), ("road_class",), ("road_type", "traffic")]),
    st.sampled_from(CONDITIONS),
    st.integers(1, 4),
    st.integers(1, 4),
)
FLEETS = st.lists(
    st.builds(
        lambda vehicle, road, traffic, distance, speed, headway: row(
            f"v{vehicle}", road_type=road, road_class=ROAD_CLASSES[road], traffic=traffic,
            distance_km=distance, speed_mps=speed, headway_s=headway,
        ),
        st.integers(0, 4), st.sampled_from(ROAD_TYPES), st.sampled_from(TRAFFIC), NUMBERS, NUMBERS,
        st.one_of(st.none(), NUMBERS),
    ),
    max_size=40,
)  # fmt: skip


def by_hand(spec: QuerySpec, rows: Sequence[Row]) -> Partials:
    """The same, row by row, as the words of the contract say it."""
    counting: dict[str, list[tuple[int, Row]]] = {}
    cells = {cell: number for number, cell in enumerate(spec.cells())}
    for each in sorted(rows, key=lambda r: int(r[DRAW])):
        cell = cells.get(tuple(each[name] for name in spec.group_by))
        if cell is not None and all(_holds(c, each) for c in spec.where):
            counting.setdefault(each[VEHICLE], []).append((cell, each))
    added: dict[tuple[int, str], list[Row]] = {}
    for vehicle, found in counting.items():
        kept: list[int] = []
        for cell, each in found[: spec.rows_per_vehicle]:
            if cell not in kept and len(kept) < spec.groups_per_vehicle:
                kept.append(cell)
            if cell in kept:
                added.setdefault((cell, vehicle), []).append(each)
    wanted = primitives(spec)
    body = []
    for cell in cells.values():
        each_vehicle = [_added(spec, rows) for (where, _), rows in added.items() if where == cell]
        values = [tuple(sum(v[i][0][b] for v in each_vehicle) for b in range(p.width)) for i, p in enumerate(wanted)]
        largest = [(*sorted((v[i][1] for v in each_vehicle), reverse=True), 0, 0)[:2] for i in range(len(wanted))]
        body.append(CellPartial(vehicles=len(each_vehicle), values=tuple(values), largest=tuple(largest)))
    vehicles = len({vehicle for _, vehicle in added})
    return Partials(version=1, question=question_digest(spec), vehicles=vehicles, cells=tuple(body))


def _holds(condition: Condition, each: Row) -> bool:
    value = each[condition.column]
    if condition.values:
        return value in condition.values
    measure = DRIVES.measure(condition.column)
    assert measure is not None
    if value is None:
        return False
    clamped = min(max(value, measure.low), measure.high)
    low = measure.low if condition.low is None else condition.low
    high = measure.high if condition.high is None else condition.high
    return bool(low <= clamped <= high)


def _added(spec: QuerySpec, rows: Sequence[Row]) -> list[tuple[list[int], int]]:
    """What a vehicle's rows in one cell add to each primitive, and what they weigh."""
    out: list[tuple[list[int], int]] = []
    for primitive in primitives(spec):
        if primitive.measure is None:
            count = 1 if primitive.kind is PrimitiveKind.VEHICLES else len(rows)
            out.append(([count], count))
            continue
        measure = DRIVES.measure(primitive.measure)
        assert measure is not None
        values = [min(max(r[measure.name], measure.low), measure.high) for r in rows if r[measure.name] is not None]
        centre = (measure.low + measure.high) // 2
        if primitive.kind is PrimitiveKind.COUNT:
            out.append(([len(values)], len(values)))
        elif primitive.kind is PrimitiveKind.SUM:
            out.append(([sum(v - centre for v in values)], sum(values)))
        elif primitive.kind is PrimitiveKind.SQUARES:
            squares = sum((v - centre) ** 2 for v in values)
            out.append(([squares], squares))
        else:
            bins = [0] * primitive.width
            for v in values:
                bins[(v - measure.low) * primitive.width // (measure.high - measure.low + 1)] += 1
            out.append((bins, len(values)))
    return out


@settings(max_examples=25, deadline=None)
@given(QUESTIONS, FLEETS, st.randoms(use_true_random=False))
def test_sums_are_those_of_a_count_by_hand_however_rows_are_divided(
    spec: QuerySpec, rows: list[Row], chance: random.Random
) -> None:
    files: list[list[Row]] = [[], [], []]
    for each in rows:
        chance.choice(files).append(each)
    expected = by_hand(spec, rows)
    tables = [stored(file) for file in files]
    assert partials(spec, tables) == expected
    assert partials(spec, [stored(rows)]) == expected
    assert summed(spec, [bounded(spec, [table]) for table in tables]) == expected


@settings(max_examples=25, deadline=None)
@given(QUESTIONS, FLEETS)
def test_a_vehicle_less_changes_each_sum_by_no_more_than_one_vehicle_may_add(spec: QuerySpec, rows: list[Row]) -> None:
    without = [each for each in rows if each[VEHICLE] != "v0"]
    all_of_them, others = partials(spec, [stored(rows)]), partials(spec, [stored(without)])
    wanted = primitives(spec)
    changed = 0
    moved = [0] * len(wanted)
    for one, two in zip(all_of_them.cells, others.cells, strict=True):
        changed += one.values != two.values
        for number, (mine, theirs) in enumerate(zip(one.values, two.values, strict=True)):
            moved[number] += sum(abs(a - b) for a, b in zip(mine, theirs, strict=True))
    assert changed <= spec.groups_per_vehicle
    assert abs(all_of_them.vehicles - others.vehicles) <= 1
    for primitive, difference in zip(wanted, moved, strict=True):
        assert difference <= _most(spec, primitive.kind, primitive.measure)


def _most(spec: QuerySpec, kind: PrimitiveKind, name: str | None) -> int:
    if kind is PrimitiveKind.VEHICLES:
        return spec.groups_per_vehicle
    measure = DRIVES.measure(name or "")
    if measure is None or kind in {PrimitiveKind.COUNT, PrimitiveKind.BINS}:
        return spec.rows_per_vehicle
    centre = (measure.low + measure.high) // 2
    reach = max(measure.high - centre, centre - measure.low)
    return spec.rows_per_vehicle * (reach**2 if kind is PrimitiveKind.SQUARES else reach)


def test_a_vehicle_with_a_thousand_times_the_data_counts_like_any_other() -> None:
    usual = [row(f"v{number}", n, distance_km=500) for number in range(20) for n in range(2)]
    heavy = [row("heavy", n, distance_km=10**6) for n in range(2_000)]
    (cell,) = partials(question(figure("rows"), figure("sum", "distance_km")), [stored([*usual, *heavy])]).cells
    count, rows, total = (values[0] for values in cell.values)
    assert (count, rows, cell.vehicles) == (42, 42, 21)
    assert total + count * 1_500 == 40 * 500 + 2 * 3_000
    assert cell.largest[2] == (6_000, 1_000)


def test_a_table_out_of_order_or_with_wrong_places_is_bounded_all_the_same() -> None:
    rows = [row("v0", n, distance_km=n) for n in range(50)]
    expected = partials(question(), [stored(rows)])
    table = stored(rows)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(50)))
    assert partials(question(), [shuffled]) == expected
    for wrong in ([0] * 50, list(range(50, 0, -1)), [1] * 50):
        named = table.set_column(table.column_names.index(PLACE), PLACE, pa.array(wrong, pa.int32()))
        (cell,) = partials(question(figure("rows")), [named]).cells
        assert cell.values[0][0] <= 2
    nought = table.set_column(table.column_names.index(PLACE), PLACE, pa.array([0] * 50, pa.int32()))
    assert partials(question(), [nought]) == expected


def test_a_vehicle_whose_name_stands_twice_in_a_dictionary_is_one() -> None:
    table = stored([row("a", n) for n in range(12)] + [row("b")])
    codes, words = pa.array([0, 1, 2] * 4 + [3], pa.int32()), pa.array(["a", "a", "a", "b"])
    twice = table.set_column(0, table.schema.field(0), pa.DictionaryArray.from_arrays(codes, words))
    spec = question(figure("rows"), figure("vehicles"))
    assert partials(spec, [twice]) == partials(spec, [table])
    assert partials(spec, [table]).vehicles == 2
    assert summed(spec, [bounded(spec, [twice])]) == partials(spec, [table])


@pytest.mark.parametrize("column", [VEHICLE, DRAW, PLACE, "road_type", "distance_km"])
def test_a_file_with_a_null_where_none_may_be_is_refused(column: str) -> None:
    table = stored([row("a", n) for n in range(3)])
    place = table.column_names.index(column)
    field = table.schema.field(place).with_nullable(nullable=True)
    values = [*table.column(place).to_pylist()[:2], None]
    with pytest.raises(Refusal) as refusal:
        partials(question(), [table.set_column(place, field, pa.array(values, field.type))])
    assert refusal.value.code is Code.SCHEMA_MISMATCH


@pytest.mark.parametrize("column", [VEHICLE, "road_type"])
@pytest.mark.parametrize("named", [True, False], ids=["a row names it", "no row names it"])
def test_a_file_with_no_word_where_a_word_must_be_is_refused(column: str, *, named: bool) -> None:
    """Beside good files, too: their words cannot be put together with it."""
    good, table = stored([row("b", n) for n in range(3)]), stored([row("a", n) for n in range(3)])
    place = table.column_names.index(column)
    words = pa.array([table.column(column)[0].as_py(), None])
    codes = pa.array([0, 0, 1 if named else 0], pa.int32())
    wrong = table.set_column(place, table.schema.field(place), pa.DictionaryArray.from_arrays(codes, words))
    for tables in ([wrong], [good, wrong], [wrong, good]):
        with pytest.raises(Refusal) as refusal:
            partials(question(), tables)
        assert refusal.value.code is Code.SCHEMA_MISMATCH


@settings(max_examples=25, deadline=None)
@given(
    FLEETS,
    st.sampled_from([(), ("road_type",)]),
    st.sampled_from([(), (Condition(column="headway_s", low=0, high=500),)]),
)
def test_vehicles_that_are_counted_alone_are_those_that_have_a_row(
    rows: list[Row], group_by: tuple[str, ...], where: tuple[Condition, ...]
) -> None:
    spec = question(figure("vehicles"), group_by=group_by, where=where, rows=3, groups=min(3, 4 if group_by else 1))
    assert partials(spec, [stored(rows[start::2]) for start in range(2)]) == by_hand(spec, rows)


def test_no_rows_give_zeros_in_every_cell() -> None:
    spec = question(group_by=("road_type", "traffic"))
    none = partials(spec, [])
    assert none == partials(spec, [stored([])]) == summed(spec, [])
    assert len(none.cells) == spec.domain_size() == 12
    assert all(cell.vehicles == 0 and not any(map(any, cell.values)) for cell in none.cells)


def test_cells_stand_in_the_questions_order_and_a_condition_takes_its_cells_away() -> None:
    rows = [row("a", road_type="freeway"), row("b", road_type="roundabout"), row("c", road_type="roundabout")]
    spec = question(
        figure("vehicles"),
        group_by=("road_type",),
        where=(Condition(column="road_type", values=("freeway", "roundabout")),),
    )
    assert spec.cells() == (("roundabout",), ("freeway",))
    assert [cell.vehicles for cell in partials(spec, [stored(rows)]).cells] == [2, 1]


def test_a_file_of_another_table_is_refused() -> None:
    for wrong in (stored([row("a")]).drop_columns(["cut_ins"]), pa.table({"x": [1]})):
        with pytest.raises(Refusal) as refusal:
            partials(question(*EVERYTHING), [wrong])
        assert refusal.value.code is Code.SCHEMA_MISMATCH


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(), ("road_type",)]), st.integers(0, 2**32), st.sampled_from([3, 4, 7]))
def test_vehicles_of_very_different_sizes_in_many_files_are_bounded_as_in_one(
    group_by: tuple[str, ...], seed: int, files: int
) -> None:
    """With so many rows a vehicle, files are looked through within a limit first, which leaves some vehicles few."""
    rng = np.random.default_rng(seed)
    rows = [
        row(f"v{vehicle}", number, road_type=ROAD_TYPES[rng.integers(4)], distance_km=int(rng.integers(3_000)))
        for vehicle, count in enumerate((1, 9, 10, 11, 60, 90, 150, int(rng.integers(1, 60))))
        for number in range(count)
    ]
    spec = question(group_by=group_by, rows=10, groups=min(4 if group_by else 1, int(rng.integers(1, 5))))
    dealt = rng.integers(0, files, len(rows))
    tables = [stored([each for each, file in zip(rows, dealt, strict=True) if file == n]) for n in range(files)]
    tables[0] = tables[0].take(pa.array(rng.permutation(tables[0].num_rows)))
    expected = by_hand(spec, rows)
    assert partials(spec, tables) == expected
    assert summed(spec, [bounded(spec, [table]) for table in tables]) == expected
    assert summed(spec, [bounded(spec, tables[:2]), bounded(spec, tables[2:])]) == expected

"""What can be asked in SQL, and what becomes of it."""

# ruff: noqa: S608 - SQL made of strings is what this is about

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.analytics import gate
from isthmus.analytics.gate import parse
from isthmus.analytics.sql_render import render
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import Condition, Figure, FigureKind, QuerySpec, in_order
from isthmus.contracts.tables import TABLES, Dimension, TableName

DRIVES = TABLES[TableName.DRIVES]


def where(text: str) -> tuple[Condition, ...]:
    return parse(f"SELECT count(*) FROM drives WHERE {text}").spec.where


def refused(text: str) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        parse(text)
    return refusal.value


def test_a_question_becomes_a_specification() -> None:
    asked = parse(
        "SELECT road_type, count(*), avg(headway_s) AS gap, count(DISTINCT vehicle)\n"
        "FROM drives WHERE traffic <> 'free' AND speed_mps >= 2.5 GROUP BY road_type"
    )
    assert asked.spec == QuerySpec(
        version=1,
        table=TableName.DRIVES,
        group_by=("road_type",),
        where=(
            Condition(column="speed_mps", low=250),
            Condition(column="traffic", values=("dense", "moderate")),
        ),
        figures=(
            Figure(kind=FigureKind.MEAN, measure="headway_s"),
            Figure(kind=FigureKind.ROWS, measure=None),
            Figure(kind=FigureKind.VEHICLES, measure=None),
        ),
        rows_per_vehicle=DRIVES.rows_per_vehicle,
        groups_per_vehicle=2,
    )
    assert [(c.label, c.figure) for c in asked.columns] == [
        ("count(*)", 1), ("gap", 0), ("count(DISTINCT vehicle)", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "figure"),
    [
        ("sum(distance_km)", Figure(kind=FigureKind.SUM, measure="distance_km")),
        ("AVG(speed_mps)", Figure(kind=FigureKind.MEAN, measure="speed_mps")),
        ("variance(speed_mps)", Figure(kind=FigureKind.VARIANCE, measure="speed_mps")),
        ("var_samp(drives.speed_mps)", Figure(kind=FigureKind.VARIANCE, measure="speed_mps")),
        ("histogram(speed_mps, 20)", Figure(kind=FigureKind.HISTOGRAM, measure="speed_mps", bins=20)),
        ("median(cut_ins)", Figure(kind=FigureKind.QUANTILES, measure="cut_ins", quantiles_ppm=(500_000,))),
        (
            "quantile(speed_mps, [0.9, 0.1])",
            Figure(kind=FigureKind.QUANTILES, measure="speed_mps", quantiles_ppm=(100_000, 900_000)),
        ),
    ],
)
def test_every_figure_can_be_asked(sql: str, figure: Figure) -> None:
    assert parse(f"SELECT {sql} FROM drives").spec.figures == (figure,)


def test_quantiles_of_one_measure_are_one_figure_and_keep_their_columns() -> None:
    asked = parse("SELECT median(speed_mps) AS middle, quantile(speed_mps, [0.9, 0.5]) AS q FROM drives")
    assert asked.spec.figures == (
        Figure(kind=FigureKind.QUANTILES, measure="speed_mps", quantiles_ppm=(500_000, 900_000)),
    )
    columns = [(c.label, c.quantile_ppm) for c in asked.columns]
    assert columns == [("middle", 500_000), ("q 0.9", 900_000), ("q 0.5", 500_000)]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("headway_s < 1", None, 99),
        ("headway_s <= 1.005", None, 100),
        ("headway_s < 1.005", None, 100),
        ("1 > headway_s", None, 99),
        ("headway_s > 1", 101, None),
        ("headway_s >= 1.001", 101, None),
        ("headway_s BETWEEN 0.5 AND 2", 50, 200),
        ("headway_s > 0.5 AND (headway_s < 2)", 51, 199),
        ("headway_s = 1.5", 150, 150),
        ("headway_s >= 0", 0, None),  # a row without a headway does not fulfil it
        ("headway_s > -3 AND headway_s < 99", 0, None),
    ],
)
def test_bounds_become_steps_exactly(text: str, low: int | None, high: int | None) -> None:
    assert where(text) == (Condition(column="headway_s", low=low, high=high),)


def test_a_bound_that_every_row_keeps_is_no_condition() -> None:
    assert where("speed_mps >= 0 AND distance_km <= 10") == ()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("traffic = 'free'", ("free",)),
        ("traffic <> 'free'", ("dense", "moderate")),
        ("traffic != 'free' AND traffic <> 'dense'", ("moderate",)),
        ("traffic IN ('free', 'dense', 'free')", ("dense", "free")),
        ("traffic NOT IN ('free')", ("dense", "moderate")),
        ("NOT traffic = 'free'", ("dense", "moderate")),
        ("(traffic = 'free' OR traffic = 'dense')", ("dense", "free")),
        ("NOT (traffic = 'free' OR (traffic = 'dense'))", ("moderate",)),
    ],
)
def test_conditions_on_a_dimension_name_its_values(text: str, values: tuple[str, ...]) -> None:
    assert where(text) == (Condition(column="traffic", values=values),)


def test_a_condition_that_all_values_fulfil_is_none() -> None:
    assert where("traffic IN ('free', 'dense', 'moderate')") == ()


def test_spelling_leaves_no_trace() -> None:
    plain = parse("SELECT traffic, count(*), avg(speed_mps) FROM drives WHERE speed_mps > 1 GROUP BY traffic")
    other = parse('select AVG("speed_mps") x, drives.Traffic,  Count( * ) , count(*)\nfrom DRIVES -- all\n'
                  " where 1.0 < speed_mps and speed_mps >= 0 group by TRAFFIC;")  # fmt: skip
    assert other.spec == plain.spec


REFUSED = [
    ("", 1, 1),
    ("SELECT count(*) FROM drives WHERE speed_kmh > 1", 1, 35),
    ("SELECT\n  avg(headway)\nFROM drives", 2, 7),
    ("SELECT count(*) FROM trips", 1, 22),
    ("SELECT max(speed_mps) FROM drives", 1, 12),
    ("SELECT count(*) FROM drives WHERE road_type = 'motorway'", 1, 47),
    ("SELECT count(*) FROM drives LIMIT 3", 1, 29),
    ("SELECT count(*) FROM drives WHERE a b", 1, 37),
    ("SELECT avg(speed_mps) FROM drives GROUP BY speed_mps", 1, 44),
    ("SELECT speed_mps FROM drives", 1, 8),
    ("SELECT count(*), traffic FROM drives", 1, 18),
    ("SELECT count(*) FROM drives WHERE vehicle = 'x'", 1, 35),
    ("SELECT count(*) FROM drives WHERE speed_mps > 41", 1, 35),
    ("SELECT count(*) FROM drives WHERE traffic = 'free' OR speed_mps > 1", 1, 55),
    ("SELECT count(*) FROM drives WHERE headway_s < 1e2", 1, 47),
    ('SELECT count(*) AS "a;b" FROM drives', 1, 8),
    ("FROM drives SELECT count(*)", 1, 1),
    ("SELECT count(*) FROM drives GROUP BY ()", 1, 8),
]


@pytest.mark.parametrize(("text", "line", "column"), REFUSED)
def test_a_refusal_names_the_place(text: str, line: int, column: int) -> None:
    refusal = refused(text)
    assert refusal.what.startswith(f"Line {line}, column {column}: "), refusal


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("SELECT count(*) FROM drivs", "drives"),
        ("SELECT avg(headway) FROM drives", "headway_s"),
        ("SELECT avg(speed_ms) FROM drives", "speed_mps"),
        ("SELECT road_typ, count(*) FROM drives GROUP BY road_typ", "road_type"),
        ("SELECT count(*) FROM drives WHERE trafic = 'free'", "traffic"),
        ("SELECT count(*) FROM drives WHERE traffic = 'dence'", "dense"),
        ("SELECT sums(speed_mps) FROM drives", "sum"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(text: str, nearest: str) -> None:
    refusal = refused(text)
    assert refusal.code is Code.QUERY_NAME_UNKNOWN
    assert refusal.remedy == f"Did you mean `{nearest}`?"


def test_a_refusal_never_repeats_the_text() -> None:
    told = str(refused("SELECT count(*) FROM drives WHERE lsvaa1234 = 'lsvaa1234'"))
    assert "lsvaa" not in told


def test_a_measure_without_bounds_is_refused() -> None:
    unbounded = tuple(dataclasses.replace(m, low=0, high=0) if m.name == "speed_mps" else m for m in DRIVES.measures)
    tables = {TableName.DRIVES: dataclasses.replace(DRIVES, measures=unbounded)}
    for text in ("SELECT avg(speed_mps) FROM drives", "SELECT count(*) FROM drives WHERE speed_mps > 1"):
        with pytest.raises(Refusal, match="no bounds") as refusal:
            parse(text, tables=tables)
        assert re.match(r"Line 1, column \d+: ", refusal.value.what)


def test_a_group_domain_of_a_million_is_refused() -> None:
    many = tuple(Dimension(f"place_{n}", tuple(f"v{value}" for value in range(1_000))) for n in (1, 2))
    tables = {TableName.DRIVES: dataclasses.replace(DRIVES, dimensions=(*DRIVES.dimensions, *many))}
    with pytest.raises(Refusal) as refusal:
        parse("SELECT count(*) FROM drives GROUP BY place_1, place_2", tables=tables)
    assert refusal.value.code is Code.QUERY_TOO_WIDE
    assert refusal.value.what.startswith("Line 1, column 38: ")


def test_an_answer_has_a_widest_form() -> None:
    cells = "road_type, traffic, road_class"
    bins = ", ".join(f"histogram({m}, 256)" for m in ("speed_mps", "headway_s", "distance_km", "duration_s"))
    refusal = refused(f"SELECT {bins} FROM drives GROUP BY {cells}")
    assert refusal.code is Code.QUERY_TOO_WIDE


@pytest.mark.parametrize(("rows", "groups"), [(0, None), (1_001, None), (None, 0), (2, 3), (5, 5)])
def test_what_of_a_vehicle_counts_has_bounds(rows: int | None, groups: int | None) -> None:
    with pytest.raises(Refusal) as refusal:
        parse("SELECT count(*) FROM drives GROUP BY road_type", rows_per_vehicle=rows, groups_per_vehicle=groups)
    assert refusal.value.code is Code.QUERY_INVALID


# ---- every specification in its normal form has a text that means it

measures = st.sampled_from(DRIVES.measures)
FIGURES = st.one_of(
    st.sampled_from([Figure(kind=k, measure=None) for k in (FigureKind.ROWS, FigureKind.VEHICLES)]),
    st.builds(
        lambda kind, m: Figure(kind=kind, measure=m.name),
        st.sampled_from([FigureKind.SUM, FigureKind.MEAN, FigureKind.VARIANCE]),
        measures,
    ),
    st.builds(
        lambda m, bins: Figure(kind=FigureKind.HISTOGRAM, measure=m.name, bins=bins), measures, st.integers(2, 256)
    ),
    st.builds(
        lambda m, q: Figure(kind=FigureKind.QUANTILES, measure=m.name, quantiles_ppm=tuple(sorted(q))),
        measures,
        st.sets(st.integers(1, 999_999), min_size=1, max_size=4),
    ),
)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Condition, ...]:
    found = []
    for dimension in draw(st.lists(st.sampled_from(DRIVES.dimensions), max_size=3, unique_by=lambda d: d.name)):
        kept = draw(st.sets(st.sampled_from(dimension.values), min_size=1, max_size=len(dimension.values) - 1))
        found.append(Condition(column=dimension.name, values=tuple(sorted(kept))))
    for name in draw(st.sets(measures.map(lambda m: m.name), max_size=3)):
        measure = DRIVES.measure(name)
        assert measure is not None
        low, high = sorted(draw(st.tuples(*[st.integers(measure.low, measure.high)] * 2)))
        least, most = (None if low == measure.low else low), (None if high == measure.high else high)
        if least is not None or most is not None:
            found.append(Condition(column=name, low=least, high=most))
    return tuple(sorted(found, key=lambda c: c.column))


@st.composite
def specs(draw: st.DrawFn) -> QuerySpec:
    group = tuple(sorted(draw(st.sets(st.sampled_from([d.name for d in DRIVES.dimensions])))))
    drawn = draw(st.lists(FIGURES, min_size=1, max_size=4))
    one_each = {(f.kind, f.measure, f.bins): f for f in drawn}
    rows = draw(st.integers(1, 20))
    made = QuerySpec(
        version=1,
        table=TableName.DRIVES,
        group_by=group,
        where=draw(conditions()),
        figures=tuple(in_order(tuple(one_each.values()))),
        rows_per_vehicle=rows,
        groups_per_vehicle=1,
    )
    most = min(made.domain_size(), rows)
    return made.model_copy(update={"groups_per_vehicle": draw(st.integers(1, most))})


@settings(deadline=None, max_examples=300)
@given(spec=specs())
def test_what_is_rendered_is_read_back_the_same(spec: QuerySpec) -> None:
    if gate.is_too_wide(spec):
        return
    text = render(spec)
    rows, groups = spec.rows_per_vehicle, spec.groups_per_vehicle
    assert parse(text, rows_per_vehicle=rows, groups_per_vehicle=groups).spec == spec

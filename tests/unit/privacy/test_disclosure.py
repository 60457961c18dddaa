"""Answers under `disclosure_controlled`: what is hidden, what is withheld."""

from __future__ import annotations

import pytest

from isthmus.contracts.queries import Answer, Condition, Figure, FigureKind, Mode, QuerySpec
from isthmus.contracts.tables import TableName
from isthmus.privacy.disclosure import Past, Withheld, control, pooled
from unit.privacy.crowd import ROADS, Row, figure, fleet, partials, plan, question

ROWS = figure(FigureKind.ROWS)
CLASSES = ("urban", "urban", "interurban", "interurban")
TRAFFIC = ("free", "moderate", "dense")


def crowd(*counts: tuple[int, int, int], distance: int = 600) -> list[Row]:
    """One drive each of vehicles by road type (in the catalogue's order) and traffic."""
    places = [(road, traffic) for road, row in enumerate(counts) for traffic, n in enumerate(row) for _ in range(n)]
    return [
        Row(
            vehicle,
            {"road_type": ROADS[road], "road_class": CLASSES[road], "traffic": TRAFFIC[traffic]},
            {"distance_km": distance, "speed_mps": 1_000 + vehicle, "headway_s": None, "braking_share": 20},
        )
        for vehicle, (road, traffic) in enumerate(places)
    ]


def ask(spec: QuerySpec, rows: list[Row], *history: Past) -> Answer | Withheld:
    return control(plan(spec, mode=Mode.DISCLOSURE_CONTROLLED), partials(spec, rows), history)


def released(spec: QuerySpec, rows: list[Row], *history: Past) -> Past:
    answer = ask(spec, rows, *history)
    assert isinstance(answer, Answer)
    return Past(spec, partials(spec, rows), answer)


def shown(answer: Answer | Withheld) -> list[bool]:
    assert isinstance(answer, Answer)
    return [not cell.suppressed for cell in answer.cells]


BY_TYPE = question(ROWS, by=["road_type"], rows=1)
BY_TRAFFIC = question(ROWS, by=["traffic"], rows=1)
BOTH = question(ROWS, by=["road_type", "traffic"], rows=1)
ALL = question(ROWS, rows=1)
EVEN = crowd((20, 20, 20), (20, 20, 20), (20, 20, 20), (20, 20, 20))


def test_a_table_without_small_cells_is_shown_exactly() -> None:
    answer = ask(BOTH, EVEN)
    assert isinstance(answer, Answer)
    assert [cell.values for cell in answer.cells] == [((20,),)] * 12
    assert answer.epsilon_micro == 0
    assert {noise.mechanism for noise in answer.noise} == {"none"}


@pytest.mark.parametrize(("few", "visible"), [(9, False), (10, True)])
def test_ten_vehicles_are_the_fewest(few: int, visible: bool) -> None:  # noqa: FBT001
    assert shown(ask(BY_TRAFFIC, crowd((few, 40, 50))))[0] is visible


def test_a_small_cell_takes_another_with_it() -> None:
    assert shown(ask(BY_TRAFFIC, crowd((4, 40, 50)))) == [False, False, True]


def test_the_class_of_a_hidden_road_type_does_not_give_it_away() -> None:
    """The other type of its class is hidden too: the class's total is known or may be asked for."""
    found = shown(ask(BY_TYPE, crowd((40, 0, 0), (3, 0, 0), (60, 0, 0), (50, 0, 0))))
    visible = {cell: seen for (cell,), seen in zip(BY_TYPE.cells(), found, strict=True)}
    assert visible == {"urban_intersection": False, "roundabout": False, "arterial": True, "freeway": True}


def test_a_dominant_vehicle_hides_its_cell() -> None:
    spec = question(figure(FigureKind.SUM, "distance_km"), rows=1)
    rows = crowd((10, 10, 10), distance=100)
    heavy = Row(0, rows[0].dimensions, {**rows[0].measures, "distance_km": 3_100})
    assert isinstance(ask(spec, rows), Answer)
    assert ask(spec, [heavy, *rows[1:]]) == Withheld("nothing_left")


def test_two_dominant_vehicles_hide_their_cell() -> None:
    spec = question(figure(FigureKind.SUM, "distance_km"), rows=1)
    rows = crowd((10, 10, 10), distance=100)
    heavy = [Row(i, rows[i].dimensions, {**rows[i].measures, "distance_km": 3_000}) for i in (0, 1)]
    assert ask(spec, [*heavy, *rows[2:]]) == Withheld("nothing_left")


def test_a_mean_of_what_few_rows_have_is_hidden() -> None:
    spec = question(figure(FigureKind.MEAN, "headway_s"), rows=1)
    rows = crowd((40, 0, 0))
    some = [Row(i, r.dimensions, {**r.measures, "headway_s": 150 if i < 9 else None}) for i, r in enumerate(rows)]
    assert ask(spec, some) == Withheld("nothing_left")


@pytest.mark.parametrize(
    ("second", "rule"),
    [
        (question(ROWS, where=[Condition(column="speed_mps", low=1_005, high=None)], rows=1), "difference"),
        (question(ROWS, where=[Condition(column="traffic", values=("dense", "moderate"))], rows=1), "difference"),
    ],
    ids=["a measure", "a dimension"],
)
def test_a_question_that_differs_by_few_vehicles_is_withheld(second: QuerySpec, rule: str) -> None:
    rows = crowd((5, 40, 50))
    assert isinstance(ask(second, rows), Answer)
    assert ask(second, rows, released(ALL, rows)) == Withheld(rule)
    assert ask(ALL, rows, released(second, rows)) == Withheld(rule)


def test_a_question_that_differs_by_many_vehicles_is_answered() -> None:
    rows = crowd((15, 40, 50))
    rest = question(ROWS, where=[Condition(column="traffic", values=("dense", "moderate"))], rows=1)
    assert isinstance(ask(rest, rows, released(ALL, rows)), Answer)


def test_other_figures_of_the_same_cells_are_answered() -> None:
    past = released(BOTH, EVEN)
    mean = question(figure(FigureKind.MEAN, "speed_mps"), by=["road_type", "traffic"], rows=1)
    assert isinstance(ask(mean, EVEN, past), Answer)


def test_margins_of_a_shown_table_are_answered() -> None:
    past = released(BOTH, EVEN)
    for spec in (BY_TYPE, BY_TRAFFIC, ALL):
        assert isinstance(ask(spec, EVEN, past), Answer)


def test_a_hidden_cell_is_not_spanned_by_three_answers() -> None:
    """Each of two answers alone hides the roundabouts; the sums that would isolate them are withheld."""
    rows = crowd((40, 0, 0), (8, 0, 0), (60, 0, 0), (50, 0, 0))
    past = released(BY_TYPE, rows)
    urban = question(ROWS, where=[Condition(column="road_class", values=("urban",))], rows=1)
    first = ask(urban, rows, past)
    assert isinstance(first, Answer)
    crossing_only = question(ROWS, where=[Condition(column="road_type", values=("urban_intersection",))], rows=1)
    assert isinstance(ask(crossing_only, rows), Answer)
    history = (past, Past(urban, partials(urban, rows), first))
    assert isinstance(ask(crossing_only, rows, *history), Withheld)


def test_another_bound_on_rows_is_withheld() -> None:
    rows = crowd((20, 20, 20))
    assert ask(question(ROWS, rows=2), rows, released(ALL, rows)) == Withheld("other_bounds")


def test_another_table_is_another_matter() -> None:
    minutes = question(ROWS, rows=2, table=TableName.MINUTES)
    assert isinstance(ask(minutes, EVEN, released(ALL, EVEN)), Answer)


@pytest.mark.parametrize("bins", [32, 64])
def test_no_bin_tells_the_smallest_or_largest_value(bins: int) -> None:
    figures: list[Figure] = [figure(FigureKind.HISTOGRAM, "speed_mps", bins=bins)]
    spec = question(*figures, rows=1)
    rows = fleet("us", 400, drives=1)
    fastest = Row(0, rows[0].dimensions, {**rows[0].measures, "speed_mps": 3_999})
    answer = ask(spec, [fastest, *rows[1:]])
    assert isinstance(answer, Answer)
    numbers = answer.cells[0].values[0]
    assert sum(numbers) == 400
    exact = partials(spec, [fastest, *rows[1:]]).cells[0].values[0]
    assert 1 <= exact[-1] < 10
    assert list(numbers[-2:]) != list(exact[-2:])
    ends = list(accumulated(numbers))
    assert all(end == pytest.approx(real, abs=10) for end, real in zip(ends, accumulated(exact), strict=True))


def accumulated(numbers: tuple[int, ...]) -> list[int]:
    return [sum(numbers[: place + 1]) for place in range(len(numbers))]


def test_pooling_keeps_the_total_and_hides_small_runs() -> None:
    assert pooled([0, 0, 12, 0, 3, 1], 10) == (2, 2, 3, 3, 3, 3)
    assert pooled([3, 3], 10) == (0, 0)


def test_a_table_of_impossible_cells_is_shown_where_it_is_possible() -> None:
    spec = question(ROWS, by=["road_class", "road_type"], rows=1)
    visible = [c for c, s in zip(spec.cells(), shown(ask(spec, EVEN)), strict=True) if s]
    assert sorted(road for _, road in visible) == sorted(ROADS)


def test_a_plan_of_the_other_mode_is_no_matter_of_this() -> None:
    with pytest.raises(ValueError, match="mode"):
        control(plan(ALL), partials(ALL, EVEN), ())

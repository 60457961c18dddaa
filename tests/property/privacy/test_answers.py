"""Whatever is asked and whatever the sums are: the cost stays within epsilon, and there is an answer that can cross."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Refusal
from isthmus.contracts.queries import Answer, CellPartial, Condition, FigureKind, Partials, QuerySpec, primitives
from isthmus.contracts.tables import TABLES, TableName
from isthmus.privacy.disclosure import pooled
from isthmus.privacy.estimates import on_simplex
from isthmus.privacy.figures import figures
from isthmus.privacy.loss import SMOOTHING
from isthmus.privacy.mechanism import curve_of, noise_of
from isthmus.privacy.release import release
from isthmus.proof import accounting, canonical
from isthmus.proof.ids import question_digest
from isthmus.proof.loss import delta
from unit.privacy.crowd import exact_answer, figure, plan, question

MEASURES = [m.name for m in TABLES[TableName.DRIVES].measures]
FIGURES = st.one_of(
    st.sampled_from([figure(FigureKind.ROWS), figure(FigureKind.VEHICLES)]),
    st.builds(figure, st.sampled_from(["sum", "mean", "variance"]).map(FigureKind), st.sampled_from(MEASURES)),
    st.builds(lambda m, b: figure(FigureKind.HISTOGRAM, m, bins=b), st.sampled_from(MEASURES), st.integers(2, 16)),
    st.builds(lambda m: figure(FigureKind.QUANTILES, m, at=[100_000, 500_000]), st.sampled_from(MEASURES)),
)  # fmt: skip


@st.composite
def questions(draw: st.DrawFn, most: int = 5) -> QuerySpec:
    where = []
    if draw(st.booleans()):
        measure = TABLES[TableName.DRIVES].measure(draw(st.sampled_from(MEASURES)))
        assert measure is not None
        low = draw(st.integers(measure.low, measure.high))
        where.append(Condition(column=measure.name, low=low, high=draw(st.integers(low, measure.high))))
    return question(
        *draw(st.lists(FIGURES, min_size=1, max_size=most)),
        by=draw(st.sampled_from([(), ("traffic",), ("road_type", "traffic")])),
        where=where,
        rows=draw(st.integers(1, 20)),
    )


@st.composite
def sums(draw: st.DrawFn, spec: QuerySpec) -> Partials:
    number = st.integers(-(2**53), 2**53) | st.integers(-50, 5_000)
    needed = primitives(spec)
    cell = CellPartial(
        vehicles=draw(st.integers(0, 100)),
        values=tuple((draw(number),) * p.width for p in needed),
        largest=((0, 0),) * len(needed),
    )
    return Partials(version=1, question=question_digest(spec), vehicles=100, cells=(cell,) * spec.domain_size())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_there_is_always_an_answer_that_can_cross_and_be_read(data: st.DataObject) -> None:
    spec = data.draw(questions())
    asked = plan(spec, data.draw(st.sampled_from([0.1, 1.0, 5.0])))
    assert accounting.keeps(curve_of(asked), asked.epsilon_micro, asked.delta_exponent)
    answer = release(asked, data.draw(sums(spec)))
    assert canonical.load(Answer, canonical.dump(answer)) == answer
    for cell in figures(spec, [answer]):
        for found in cell.figures:
            assert all(e.low <= e.value <= e.high for e in found.estimates)


@settings(max_examples=200, deadline=None)
@given(spec=questions(most=16), epsilon_micro=st.integers(20_000, 10_000_000), exponent=st.sampled_from([6, 9, 15]))
def test_the_noise_that_is_drawn_keeps_epsilon_at_delta(spec: QuerySpec, epsilon_micro: int, exponent: int) -> None:
    """From the noise itself: pure where it is Laplace's, else by its loss, less what steps cost, or by divergences."""
    asked = plan(spec, epsilon_micro / 1e6, delta_exponent=exponent)
    try:
        noise = noise_of(asked)
    except Refusal:  # noise beyond any number that crosses: there is no answer
        reject()
    if noise.mechanism == "discrete_laplace":
        assert sum(Fraction(m.block.l1 * 1_000_000, m.scale_micro) for m in noise.measured) <= asked.epsilon_micro / 1e6
        return
    variances = [(m.scale_micro / 1e6) ** 2 for m in noise.measured]
    kept = accounting.epsilon_micro(curve_of(asked), exponent) <= epsilon_micro
    if not kept:
        assert min(variances) > SMOOTHING
        rho = sum(m.block.l2_squared / (2 * (v - SMOOTHING)) for m, v in zip(noise.measured, variances, strict=True))
        assert delta(rho, epsilon_micro / 1e6) <= 10.0**-exponent


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_figures_without_noise_are_points(data: st.DataObject) -> None:
    spec = question(figure(FigureKind.ROWS), figure(FigureKind.MEAN, "speed_mps"))
    rows = data.draw(st.integers(1, 1_000))
    total = data.draw(st.integers(-2_000 * rows, 2_000 * rows))
    partials = data.draw(sums(spec))
    values = tuple((total,) if p.kind.value == "sum" else (rows,) for p in primitives(spec))
    cell = partials.cells[0].model_copy(update={"values": values})
    (told,) = figures(spec, [exact_answer(partials.model_copy(update={"cells": (cell,)}))])
    for found in told.figures:
        (estimate,) = found.estimates
        assert estimate.high - estimate.low < 1e-9


@given(st.lists(st.integers(-1_000, 1_000), min_size=1, max_size=64), st.integers(0, 10_000))
def test_bins_that_are_made_consistent_add_up_and_none_is_negative(numbers: list[int], total: int) -> None:
    told = on_simplex(numbers, total)
    assert sum(told) == total
    assert min(told) >= 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=64), st.integers(1, 100))
def test_pooled_bins_keep_their_total_or_vanish(numbers: list[int], fewest: int) -> None:
    told = pooled(numbers, fewest)
    assert len(told) == len(numbers)
    assert sum(told) in {0, sum(numbers)}
    assert sum(told) == 0 or sum(told) >= fewest

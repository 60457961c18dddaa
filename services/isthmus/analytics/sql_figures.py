"""Figures in SQL: one function of one measure, or a count of rows or vehicles. Nothing is computed with them.

| SQL | figure |
|---|---|
| `count(*)` | rows |
| `count(DISTINCT vehicle)` | vehicles |
| `sum(m)`, `avg(m)` | sum, mean |
| `var_samp(m)`, `variance(m)` | variance |
| `histogram(m, n)` | rows in n bins of equal width over the measure's bounds |
| `quantile(m, q)`, `quantile(m, [q, ...])`, `median(m)` | quantiles |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

from isthmus.analytics.sql_text import SHAPE
from isthmus.analytics.sql_tree import check, column_name, number, unknown
from isthmus.contracts.queries import Figure, FigureKind
from isthmus.contracts.tables import VEHICLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.analytics.sql_text import Source
    from isthmus.contracts.tables import Measure, TableSpec

MILLION = 1_000_000
MOST_BINS = 256
MOST_QUANTILES = 16
FUNCTIONS = ("count", "sum", "avg", "var_samp", "variance", "histogram", "quantile", "median")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]{0,63}")
_NAMES = {
    FigureKind.ROWS: "count(*)",
    FigureKind.VEHICLES: f"count(DISTINCT {VEHICLE})",
    FigureKind.SUM: "sum({})",
    FigureKind.MEAN: "avg({})",
    FigureKind.VARIANCE: "var_samp({})",
}
_OF_A_MEASURE: dict[type[exp.Expr], FigureKind] = {
    exp.Sum: FigureKind.SUM, exp.Avg: FigureKind.MEAN, exp.Variance: FigureKind.VARIANCE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One figure as it was asked for: one number a cell, or a histogram."""

    label: str
    kind: FigureKind
    measure: str | None
    bins: int | None = None
    ppm: int | None = None


def read(source: Source, node: exp.Expr, table: TableSpec) -> tuple[Asked, ...]:
    """Return the figures that an item of the SELECT list is: one, or as many as it lists quantiles.

    Raises:
        Refusal: `QUERY_INVALID`, `QUERY_NAME_UNKNOWN`.
    """
    alias = None
    if type(node) is exp.Alias:
        check(source, node, "this", "alias")
        alias = _alias(source, node)
        node = node.this
    kind, measure, bins, quantiles = _figure(source, node, table)
    return tuple(
        Asked(_labelled(alias, kind, measure, bins, ppm, several=len(quantiles) > 1), kind, measure, bins, ppm)
        for ppm in quantiles or (None,)
    )


def merged(asked: Iterable[Asked]) -> tuple[Figure, ...]:
    """Return the figures to answer: each once, all quantiles of a measure together."""
    quantiles: dict[tuple[FigureKind, str | None, int | None], set[int]] = {}
    for item in asked:
        found = quantiles.setdefault((item.kind, item.measure, item.bins), set())
        if item.ppm is not None:
            found.add(item.ppm)
    return tuple(
        Figure(kind=kind, measure=measure, bins=bins, quantiles_ppm=tuple(sorted(ppms)))
        for (kind, measure, bins), ppms in quantiles.items()
    )


def own_name(figure: Figure, ppm: int | None = None) -> str:
    """Return a figure's own name: how it is asked for in SQL.

    >>> own_name(Figure(kind=FigureKind.QUANTILES, measure="speed_mps", quantiles_ppm=(900_000,)), 900_000)
    'quantile(speed_mps, 0.9)'
    """
    return _name(figure.kind, figure.measure, figure.bins, ppm)


def share(ppm: int) -> str:
    """Return parts per million as a decimal.

    >>> share(500_000), share(25)
    ('0.5', '0.000025')
    """
    return f"{ppm / MILLION:.6f}".rstrip("0").rstrip(".")


def _name(kind: FigureKind, measure: str | None, bins: int | None, ppm: int | None) -> str:
    if kind is FigureKind.HISTOGRAM:
        return f"histogram({measure}, {bins})"
    if kind is FigureKind.QUANTILES:
        return f"quantile({measure}, {share(ppm or 0)})"
    return _NAMES[kind].format(measure)


def _labelled(
    alias: str | None, kind: FigureKind, measure: str | None, bins: int | None, ppm: int | None, *, several: bool
) -> str:
    if alias is None:
        return _name(kind, measure, bins, ppm)
    return f"{alias} {share(ppm)}" if several and ppm is not None else alias


def _alias(source: Source, node: exp.Alias) -> str:
    name = node.args.get("alias")
    if type(name) is not exp.Identifier or not _LABEL.fullmatch(name.name):
        raise source.invalid(node, "An alias is letters, digits, blanks and underscores, at most 64.")
    return name.name


def _figure(
    source: Source, node: exp.Expr, table: TableSpec
) -> tuple[FigureKind, str | None, int | None, tuple[int, ...]]:
    """Return a figure's kind, measure, bins and quantiles."""
    match node:
        case exp.Count():
            return _count(source, node, table), None, None, ()
        case exp.Median():
            check(source, node, "this")
            return FigureKind.QUANTILES, _measure(source, node.this, table), None, (MILLION // 2,)
        case exp.Quantile():
            check(source, node, "this", "quantile")
            measure = _measure(source, node.this, table)
            return FigureKind.QUANTILES, measure, None, _quantiles(source, node, node.args.get("quantile"))
        case exp.Anonymous() if str(node.this).lower() == "histogram":
            return FigureKind.HISTOGRAM, *_histogram(source, node, table), ()
        case _ if type(node) in _OF_A_MEASURE:
            check(source, node, "this")
            return _OF_A_MEASURE[type(node)], _measure(source, node.this, table), None, ()
        case exp.Anonymous():
            raise unknown(source, node, "figure", str(node.this), FUNCTIONS)
        case exp.Func():
            raise unknown(source, node, "figure", node.sql_name(), FUNCTIONS)
        case _:
            raise source.invalid(node, "A figure has to stand here: one function of one measure, or a count.")


def _count(source: Source, node: exp.Count, table: TableSpec) -> FigureKind:
    check(source, node, "this", "big_int")
    what = node.this
    if type(what) is exp.Star:
        check(source, what)
        return FigureKind.ROWS
    if type(what) is exp.Distinct:
        check(source, what, "expressions")
        if len(what.expressions) == 1 and column_name(source, what.expressions[0], table) == VEHICLE:
            return FigureKind.VEHICLES
    at = what if isinstance(what, exp.Expr) else node
    raise source.invalid(at, "Counted are rows or vehicles.", remedy=f"Ask for count(*) or count(DISTINCT {VEHICLE}).")


def _measure(source: Source, node: object, table: TableSpec) -> str:
    name = column_name(source, node, table)
    measure = table.measure(name)
    if measure is None:
        place = node if isinstance(node, exp.Expr) else exp.Null()
        if name == VEHICLE or table.dimension(name) is not None:
            raise source.invalid(place, "Only measures have such figures.", remedy=f"Measures: {_all(table)}.")
        raise unknown(source, place, "measure", name, [m.name for m in table.measures])
    return bounded(source, node, measure).name


def bounded(source: Source, node: object, measure: Measure) -> Measure:
    """Return a measure that the catalogue gives bounds; one without a width between them has none.

    Raises:
        Refusal: `QUERY_INVALID`.
    """
    if measure.low >= measure.high:
        place = source.start(node) if isinstance(node, exp.Expr) else 0
        why = "What a vehicle adds to a figure is held within public bounds; without any, no figure is safe."
        raise source.refusal(place, "The catalogue has no bounds for this measure.", why=why)
    return measure


def _all(table: TableSpec) -> str:
    return ", ".join(m.name for m in table.measures)


def _histogram(source: Source, node: exp.Anonymous, table: TableSpec) -> tuple[str, int]:
    check(source, node, "this", "expressions")
    if len(node.expressions) != 2:  # noqa: PLR2004 - a measure and a number
        raise source.invalid(node, "A histogram has a measure and a number of bins.", remedy="histogram(m, 20)")
    measure = _measure(source, node.expressions[0], table)
    bins = number(source, node.expressions[1])
    if bins.denominator != 1 or not 2 <= bins <= MOST_BINS:  # noqa: PLR2004 - said below
        raise source.invalid(node.expressions[1], f"A histogram has 2 to {MOST_BINS} bins.")
    return measure, int(bins)


def _quantiles(source: Source, node: exp.Expr, asked: object) -> tuple[int, ...]:
    if type(asked) is exp.Array:
        check(source, asked, "expressions", "bracket_notation")
        items = asked.expressions
    else:
        items = [asked]
    if not 0 < len(items) <= MOST_QUANTILES:
        raise source.refusal(source.start(node), f"1 to {MOST_QUANTILES} quantiles may be listed.", remedy=SHAPE)
    return tuple(_ppm(source, node, item) for item in items)


def _ppm(source: Source, node: exp.Expr, item: object) -> int:
    if item is None:
        raise source.invalid(node, "A quantile has a measure and a share.", remedy="quantile(m, 0.9)")
    ppm = number(source, item) * MILLION
    if ppm.denominator != 1 or not 0 < ppm < MILLION:
        at = item if isinstance(item, exp.Expr) else node
        raise source.invalid(at, "A quantile is above 0 and below 1, in steps of a millionth.")
    return int(ppm)

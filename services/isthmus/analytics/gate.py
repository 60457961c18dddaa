"""The SQL gate: a narrow question in SQL becomes a typed specification, or a refusal with a code and a place.

    SELECT road_type, count(*), avg(headway_s) AS gap FROM drives WHERE traffic <> 'free' GROUP BY road_type

Rules:
1. What is not listed is refused: one table of the catalogue, its dimensions to group by, its measures in figures,
   conditions joined by AND. Nothing is passed on: the text is read into values, and ends here.
2. Every part of the tree is asked for all that it holds; a part with more than the gate reads is refused.
3. The same question has the same specification: order, spelling, units and repeats leave no trace.
4. All that it decides by is public: the catalogue. No data is touched.

Source: the tree is sqlglot's, of DuckDB's dialect (`sql_text`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

from isthmus.analytics import sql_figures, sql_where
from isthmus.analytics.sql_text import SHAPE, Source, read
from isthmus.analytics.sql_tree import check, column_name, plain, unknown
from isthmus.contracts.errors import Code
from isthmus.contracts.queries import MAX_CELLS, MAX_FIGURES, QuerySpec, in_order, primitives
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.analytics.sql_figures import Asked
    from isthmus.contracts.queries import Condition, Figure
    from isthmus.contracts.tables import TableName, TableSpec

MAX_GROUPS = 4
MAX_NUMBERS = 20_000
"""Most numbers of an answer: what has to be added up, in all cells together."""


@dataclass(frozen=True, slots=True)
class Selected:
    """One column of the answer, as the text asked for it.

    Attributes:
        label: its name: the alias, else the figure's own.
        figure: its place in the specification's figures.
        quantile_ppm: which quantile of that figure it is, None where it is none.
    """

    label: str
    figure: int
    quantile_ppm: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a text asks: the specification that an order carries, and the columns in the text's order."""

    spec: QuerySpec
    columns: tuple[Selected, ...]


def parse(
    text: str,
    *,
    tables: Mapping[TableName, TableSpec] = TABLES,
    rows_per_vehicle: int | None = None,
    groups_per_vehicle: int | None = None,
) -> Question:
    """Return the question that `text` is.

    Args:
        text: SQL, at most 4 KiB.
        tables: the catalogue.
        rows_per_vehicle: how many rows of one vehicle count; the table's own number where None.
        groups_per_vehicle: in how many cells one vehicle counts; as many as it has rows where None.

    Raises:
        Refusal: `QUERY_INVALID`, `QUERY_NAME_UNKNOWN`, `QUERY_TOO_WIDE` or `TOO_LARGE`. Its first sentence begins with
            line and column.
    """
    source, select = read(text)
    check(source, select, "expressions", "from_", "where", "group")
    table = _table(source, select, tables)
    keys = _groups(source, select, table)
    asked = _asked(source, select, table, keys)
    where = sql_where.conditions(source, select.args.get("where"), table)
    cells = _cells(source, select, table, keys, where)
    figures = tuple(in_order(sql_figures.merged(asked)))
    if len(figures) > MAX_FIGURES:
        raise source.invalid(select, f"A question has at most {MAX_FIGURES} figures.")
    rows = table.rows_per_vehicle if rows_per_vehicle is None else rows_per_vehicle
    groups = min(cells, rows) if groups_per_vehicle is None else groups_per_vehicle
    try:
        spec = QuerySpec(
            version=1,
            table=table.name,
            group_by=keys,
            where=where,
            figures=figures,
            rows_per_vehicle=rows,
            groups_per_vehicle=groups,
        )
    except ValueError as error:  # the bounds a caller gave; a catalogue other than the one that orders are held to
        why = "A vehicle counts in 1 to 1,000 rows, in no more cells than there are, and than it has rows."
        raise source.refusal(0, "The question does not fit the catalogue.", why=why) from error
    if is_too_wide(spec):
        why = f"An answer has at most {MAX_NUMBERS} numbers."
        remedy = "Ask for fewer groups, figures or bins."
        raise source.refusal(0, "The answer would be too wide.", why=why, remedy=remedy, code=Code.QUERY_TOO_WIDE)
    return Question(spec, tuple(Selected(a.label, _place(a, figures), a.ppm) for a in asked))


def is_too_wide(spec: QuerySpec) -> bool:
    """Tell whether an answer would have more than `MAX_NUMBERS` numbers."""
    return spec.domain_size() * sum(p.width for p in primitives(spec)) > MAX_NUMBERS


def columns_of(spec: QuerySpec) -> tuple[Selected, ...]:
    """Return the columns of a question that was asked as a specification: its figures under their own names."""
    return tuple(
        Selected(sql_figures.own_name(figure, ppm), place, ppm)
        for place, figure in enumerate(spec.figures)
        for ppm in (figure.quantiles_ppm or (None,))
    )


def _place(asked: Asked, figures: tuple[Figure, ...]) -> int:
    return next(
        place
        for place, f in enumerate(figures)
        if (f.kind, f.measure, f.bins) == (asked.kind, asked.measure, asked.bins)
    )


def _table(source: Source, select: exp.Select, tables: Mapping[TableName, TableSpec]) -> TableSpec:
    part = select.args.get("from_")
    if type(part) is not exp.From:
        raise source.refusal(len(source.text) - 1, "The question names no table.", remedy=SHAPE)
    check(source, part, "this")
    table = plain(source, part.this, exp.Table, "The question is about one table, named directly.")
    name = plain(source, table.this, exp.Identifier, "The question is about one table, named directly.")
    for known in tables.values():
        if known.name.value == name.name.lower():
            return known
    names = sorted(table.name.value for table in tables.values())
    raise unknown(source, name, "table", name.name, names)


def _groups(source: Source, select: exp.Select, table: TableSpec) -> tuple[str, ...]:
    group = select.args.get("group")
    if group is None:
        return ()
    check(source, group, "expressions")
    names = {_dimension(source, node, table) for node in group.expressions}
    if not 0 < len(names) <= MAX_GROUPS:
        raise source.invalid(group, f"A question is grouped by at most {MAX_GROUPS} dimensions.")
    return tuple(sorted(names))


def _dimension(source: Source, node: exp.Expr, table: TableSpec) -> str:
    name = column_name(source, node, table)
    if table.dimension(name) is None:
        if table.measure(name) is not None:
            raise source.invalid(node, "A measure cannot be grouped by.", remedy="Ask for its histogram.")
        raise unknown(source, node, "dimension", name, [d.name for d in table.dimensions])
    return name


def _asked(source: Source, select: exp.Select, table: TableSpec, keys: tuple[str, ...]) -> tuple[Asked, ...]:
    """Read what is selected: the dimensions that are grouped by, and figures."""
    found: list[Asked] = []
    for node in select.expressions:
        if type(node) is exp.Column:
            name = column_name(source, node, table)
            if name in keys:
                continue
            if table.dimension(name) is not None:
                raise source.invalid(node, "A dimension stands for groups.", remedy="Add it to GROUP BY.")
            if table.measure(name) is not None:
                raise source.invalid(node, "Single values are never answered.", remedy=f"Ask for avg({name}).")
            raise unknown(source, node, "column", name, [*(d.name for d in table.dimensions), *_measures(table)])
        found += sql_figures.read(source, node, table)
    if not found:
        raise source.invalid(select, "The question asks for no figure.", remedy="Add one, such as count(*).")
    return tuple(found)


def _measures(table: TableSpec) -> list[str]:
    return [m.name for m in table.measures]


def _cells(
    source: Source, select: exp.Select, table: TableSpec, keys: tuple[str, ...], where: tuple[Condition, ...]
) -> int:
    """Return the number of cells, from public domains alone."""
    size = 1
    for key in keys:
        dimension = table.dimension(key)
        allowed = next((c.values for c in where if c.column == key), None)
        size *= len(allowed if allowed is not None else dimension.values if dimension else ())
        if size > MAX_CELLS:
            raise source.refusal(
                source.start(select.args["group"]), "There are too many groups.",
                why=f"An answer has at most {MAX_CELLS} cells, empty ones too.",
                remedy="Group by fewer dimensions, or select fewer values.", code=Code.QUERY_TOO_WIDE,
            )  # fmt: skip
    return size

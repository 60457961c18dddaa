"""Reading a part of the tree: it must be of one type, hold nothing more than is read, and name what there is."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from sqlglot import exp

from isthmus.analytics.sql_text import SHAPE
from isthmus.contracts.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.analytics.sql_text import Source
    from isthmus.contracts.errors import Refusal
    from isthmus.contracts.tables import TableSpec

Node = TypeVar("Node", bound=exp.Expr)

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}")


def check(source: Source, node: exp.Expr, *read: str) -> None:
    """Refuse a part that holds more than the arguments that are `read`.

    Raises:
        Refusal: `QUERY_INVALID`.
    """
    for name, value in node.args.items():
        if name not in read and value:
            first = value[0] if isinstance(value, list) else value
            at = first if isinstance(first, exp.Expr) else node
            raise source.invalid(at, "This cannot be part of a question.")


def plain(source: Source, node: object, kind: type[Node], why: str) -> Node:
    """Return `node` if it is of exactly this kind and holds `this` alone.

    Raises:
        Refusal: `QUERY_INVALID`.
    """
    if type(node) is not kind:
        raise source.invalid(node, why) if isinstance(node, exp.Expr) else source.refusal(0, why, remedy=SHAPE)
    check(source, node, "this", "quoted")
    return node


def column_name(source: Source, node: object, table: TableSpec) -> str:
    """Return the name of a column, which may be spelled with its table's name.

    Raises:
        Refusal: `QUERY_INVALID`: it is no column of the question's table.
    """
    if type(node) is not exp.Column:
        why = "A column's name has to stand here."
        raise source.invalid(node, why) if isinstance(node, exp.Expr) else source.refusal(0, why, remedy=SHAPE)
    check(source, node, "this", "table")
    name = plain(source, node.this, exp.Identifier, "A column's name has to stand here.")
    owner = node.args.get("table")
    if owner is not None and plain(source, owner, exp.Identifier, "").name.lower() != table.name.value:
        raise source.invalid(node, "The question is about another table.")
    return name.name if name.args.get("quoted") else name.name.lower()


def number(source: Source, node: object) -> Fraction:
    """Return a literal number, exactly.

    Raises:
        Refusal: `QUERY_INVALID`.
    """
    if type(node) is exp.Neg:
        check(source, node, "this")
        return -number(source, node.this)
    if type(node) is exp.Paren:
        check(source, node, "this")
        return number(source, node.this)
    if type(node) is not exp.Literal or node.is_string or not _NUMBER.fullmatch(node.name):
        why = "A plain number has to stand here, of at most 12 digits and 9 decimals."
        raise source.invalid(node, why) if isinstance(node, exp.Expr) else source.refusal(0, why, remedy=SHAPE)
    return Fraction(node.name)


def unknown(source: Source, node: exp.Expr, what: str, name: str, known: Iterable[str]) -> Refusal:
    """Return the refusal of a name that the catalogue does not have, with the nearest that it has."""
    names = list(known)
    near = get_close_matches(name.lower()[:64], names, n=1, cutoff=0.5)
    remedy = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(names[:16])}."
    return source.refusal(source.start(node), f"There is no such {what}.", remedy=remedy, code=Code.QUERY_NAME_UNKNOWN)

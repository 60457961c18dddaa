"""From a question's text to a tree of sqlglot's, or a refusal with its place. The dialect is pinned to DuckDB's.

Rules:
1. The text is ASCII, at most `MAX_BYTES` long, has at most `MAX_TOKENS` words and `MAX_DEPTH` open brackets: what
   is larger is refused before it is parsed, so that a hostile text costs no more than a fair one.
2. A word that no question needs is refused where it stands. What a string may follow is listed: a string is a value,
   never a table, a column or a name.
3. Whatever the parser raises becomes a refusal. A refusal names line and column and never repeats the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.tokenizer_core import TokenType

from isthmus.contracts.errors import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlglot.tokenizer_core import Token

MAX_BYTES = 4_096
MAX_TOKENS = 600
MAX_DEPTH = 16
DIALECT = "duckdb"
SHAPE = "Ask `SELECT dimensions, figures FROM table WHERE conditions GROUP BY dimensions`; see docs/reference/sql.md."

_OPENS = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET})
_CLOSES = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET})
_COMPARES = frozenset({TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.LTE, TokenType.GT, TokenType.GTE})
_WORDS = frozenset(
    {
        TokenType.SELECT, TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY, TokenType.AND, TokenType.OR,
        TokenType.NOT, TokenType.IN, TokenType.BETWEEN, TokenType.ALIAS, TokenType.DISTINCT, TokenType.VAR,
        TokenType.IDENTIFIER, TokenType.NUMBER, TokenType.STRING, TokenType.COMMA, TokenType.DOT, TokenType.STAR,
        TokenType.DASH,
    }
)  # fmt: skip
_ALLOWED = _WORDS | _OPENS | _CLOSES | _COMPARES
_BEFORE_A_STRING = _COMPARES | {TokenType.L_PAREN, TokenType.COMMA}
_INSTEAD = {
    TokenType.SEMICOLON: "One question at a time.",
    TokenType.JOIN: "A question is about one table.",
    TokenType.UNION: "One question at a time.",
    TokenType.WITH: "A question is about one table, named directly.",
    TokenType.HAVING: "Figures cannot be conditions; small groups are hidden by the borders.",
    TokenType.ORDER_BY: "All groups are answered, in the catalogue's order.",
    TokenType.LIMIT: "All groups are answered, in the catalogue's order.",
    TokenType.OVER: "Figures are of groups, not of windows.",
    TokenType.LIKE: "Name the values: `dimension IN (...)`.",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A question's text, in which places are counted from line 1, column 1."""

    text: str

    def refusal(
        self, at: int, what: str, *, why: str = "", remedy: str = "", code: Code = Code.QUERY_INVALID
    ) -> Refusal:
        """Return the refusal of what stands `at` characters into the text."""
        before = self.text[: max(at, 0)]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        return Refusal(code, f"Line {line}, column {column}: {what}", why=why, remedy=remedy)

    def invalid(self, node: exp.Expr, what: str, *, remedy: str = SHAPE) -> Refusal:
        """Return the refusal of a part of the tree as something that cannot be asked."""
        return self.refusal(self.start(node), what, remedy=remedy)

    def start(self, node: exp.Expr) -> int:
        """Return where a part of the tree begins in the text; where the parser does not say, what it is part of."""
        part: exp.Expr | None = node
        while part is not None:
            starts = [int(found.meta["start"]) for found in part.walk() if found.meta and "start" in found.meta]
            if starts:
                return min(starts)
            part = part.parent
        return 0


def read(text: str) -> tuple[Source, exp.Select]:
    """Return the one SELECT that `text` is.

    Raises:
        Refusal: `TOO_LARGE`; `QUERY_INVALID` with line and column.
    """
    source = Source(text)
    size = len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        raise source.refusal(
            MAX_BYTES, "The question is too long.", why=f"It has {size} bytes; at most {MAX_BYTES} are read.",
            remedy="Ask a shorter question.", code=Code.TOO_LARGE,
        )  # fmt: skip
    strange = next((i for i, c in enumerate(text) if not (" " <= c <= "~" or c in "\n\r\t")), None)
    if strange is not None:  # the parser folds letters of other scripts into words of SQL
        raise source.refusal(strange, "A question is written in ASCII.", remedy="Retype what stands here.")
    tokens = _tokens(source)
    _check(source, tokens)
    statements = _parsed(source, tokens)
    if len(statements) != 1 or type(statements[0]) is not exp.Select:
        raise source.refusal(0, "A question is one plain SELECT.", remedy=SHAPE)
    return source, statements[0]


def _tokens(source: Source) -> list[Token]:
    try:
        tokens = Dialect.get_or_raise(DIALECT).tokenize(source.text)
    except (TokenError, SqlglotError, ValueError, RecursionError):
        at = max(source.text.rfind("'"), source.text.rfind('"'), 0)
        raise source.refusal(at, "The text cannot be read from here on.", remedy="Close what is quoted.") from None
    if tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise source.refusal(0, "There is no question.", remedy=SHAPE)
    return tokens


def _check(source: Source, tokens: Sequence[Token]) -> None:
    """Refuse a word that no question needs, a string that is no value, and what is too long or too deep."""
    if tokens[0].token_type is not TokenType.SELECT:
        raise source.refusal(tokens[0].start, "A question begins with SELECT.", remedy=SHAPE)
    depth = 0
    before: TokenType | None = None
    for place, token in enumerate(tokens):
        kind, at = token.token_type, token.start
        if place >= MAX_TOKENS:
            raise source.refusal(at, f"A question has at most {MAX_TOKENS} words and signs.")
        is_name = before is TokenType.ALIAS and kind is not TokenType.STRING and _NAME.fullmatch(token.text)
        if kind not in _ALLOWED and not is_name:
            raise source.refusal(at, "This cannot be part of a question.", why=_INSTEAD.get(kind, ""), remedy=SHAPE)
        if kind is TokenType.STRING and before not in _BEFORE_A_STRING:
            raise source.refusal(at, "A string stands where a name or a number has to.", remedy=SHAPE)
        depth += (kind in _OPENS) - (kind in _CLOSES)
        if not 0 <= depth <= MAX_DEPTH:
            why = "More brackets are closed than were opened." if depth < 0 else f"At most {MAX_DEPTH} may be open."
            raise source.refusal(at, "The brackets do not fit.", why=why)
        before = kind


def _parsed(source: Source, tokens: list[Token]) -> Sequence[exp.Expr | None]:
    try:
        return Dialect.get_or_raise(DIALECT).parser().parse(tokens, source.text)
    except ParseError as error:
        raise source.refusal(_at(source, tokens, error), "This cannot be understood here.", remedy=SHAPE) from None
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        # A parser of a whole language has corners; whichever is found, the question is refused, not the service.
        raise source.refusal(0, "The question cannot be understood.", remedy=SHAPE) from None


def _at(source: Source, tokens: Sequence[Token], error: ParseError) -> int:
    """Return where the parser stopped: the token that ends where it says, else the text's end."""
    first = error.errors[0] if error.errors else {}
    where = (first.get("line"), first.get("col"))
    return next((t.start for t in tokens if (t.line, t.col) == where), max(len(source.text) - 1, 0))

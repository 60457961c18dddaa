"""Canonical bytes: the one spelling of a value, so that it has one digest and one signature (RFC 8785).

Rules:
1. Objects, arrays, strings, whole numbers, true, false, null. No floats.
2. Numbers lie within 2^53 either way; strings and keys are NFC and well-formed Unicode.
3. Keys are sorted by UTF-16 code units (RFC 8785, section 3.2.3) and stand once; no white space.
4. Nesting goes 32 deep at most, and a reader says how many bytes it takes.
5. What does not encode back to the same bytes is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pydantic import ValidationError

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.wire import MAX_INTEGER, Wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

JsonValue: TypeAlias = "bool | int | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
W = TypeVar("W", bound=Wire)

MAX_DEPTH = 32
DEFAULT_LIMIT = 1 << 20


def encode(value: JsonValue) -> bytes:
    """Return the canonical bytes of `value`.

    >>> encode({"b": [1, True], "a": None})
    b'{"a":null,"b":[1,true]}'

    Raises:
        ValueError: `value` holds what rules 1, 2 or 4 leave out.
    """
    ordered = _ordered(value, MAX_DEPTH)
    # Python's escapes are those of RFC 8785, section 3.2.2.2: two-letter ones where JSON has them, else \u00xx.
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False)
    return text.encode()


def decode(data: bytes, *, limit: int = DEFAULT_LIMIT) -> JsonValue:
    """Read canonical bytes; objects come back as `dict`, arrays as `list`.

    Raises:
        Refusal: `TOO_LARGE` over `limit` bytes; `MALFORMED` for all else that is not canonical.
    """
    if len(data) > limit:
        raise Refusal(Code.TOO_LARGE, "the message is too large", why=f"{len(data)} bytes, at most {limit} are read")
    try:
        value: JsonValue = json.loads(data.decode())
        again = encode(value)
    except (ValueError, RecursionError):
        # The reader's own words can quote the message, so they are dropped.
        raise _malformed("it is not JSON within the rules of canonical bytes") from None
    # White space, order, escapes, -0, and a key that stands twice (the reader keeps one of them) all show here; floats
    # and NaN have already failed to encode.
    if again != data:
        raise _malformed("it is JSON, but not in its canonical spelling")
    return value


def dump(model: Wire) -> bytes:
    """Return the canonical bytes of a wire type.

    Raises:
        ValueError: a field holds what canonical bytes cannot (a string that is not NFC).
    """
    return encode(model.model_dump(mode="json"))


def load(type_: type[W], data: bytes, *, limit: int = DEFAULT_LIMIT) -> W:
    """Read a wire type from its canonical bytes, strictly: every field present, none unknown.

    Raises:
        Refusal: `TOO_LARGE` over `limit` bytes; `MALFORMED` otherwise. `why` names the field, never what was in it.
    """
    decode(data, limit=limit)
    try:
        model = type_.model_validate_json(data)
    except ValidationError as error:
        raise _malformed(f"as {type_.__name__}: {_place(error)}") from None
    if dump(model) != data:
        raise _malformed(f"as {type_.__name__}: a field is left out or spelled in a second way")
    return model


def digest(model: Wire) -> Digest:
    """Return the SHA-256 digest of a wire type's canonical bytes."""
    return Digest.of(dump(model))


def to_base64(data: bytes) -> str:
    """Return standard base64 (RFC 4648, section 4)."""
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """Return the bytes of base64 in its one spelling: padded, no white space, no stray bits in the last letter.

    Raises:
        ValueError: any other text.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if to_base64(raw) != text:
        raise ValueError("not the canonical base64 of its bytes")
    return raw


def _ordered(value: JsonValue, depth: int) -> JsonValue:
    """Check `value` and put its keys in order."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise ValueError("a number beyond 2^53")
        return value
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        return {key: _ordered(value[key], depth - 1) for key in _sorted_keys(value)}
    if isinstance(value, list | tuple):
        return [_ordered(item, depth - 1) for item in value]
    raise ValueError(f"no canonical form for {type(value).__name__}")


def _sorted_keys(keys: Iterable[object]) -> list[str]:
    """Sort by UTF-16 code units. For ASCII that is Python's own order."""
    names = []
    ascii_only = True
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("a key that is not a string")  # noqa: TRY004  one kind of error for whatever has no canonical form
        names.append(_text(key))
        ascii_only = ascii_only and key.isascii()
    return sorted(names) if ascii_only else sorted(names, key=lambda name: name.encode("utf-16-be"))


def _text(text: str) -> str:
    """Hold a string to NFC. Lone surrogates have no bytes, so the final encoding refuses them."""
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        raise ValueError("a string that is not NFC")
    return text


def _malformed(why: str) -> Refusal:
    return Refusal(Code.MALFORMED, "the message is malformed", why=why)


def _place(error: ValidationError) -> str:
    """Name where the first error lies. Keys that we did not choose are not repeated: they can hold anything."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    known = _field_names(Wire)
    path = ".".join(str(part) if isinstance(part, int) or part in known else "?" for part in first["loc"][:8])
    return f"{path or 'the whole'} ({first['type']})"


def _field_names(type_: type[Wire]) -> set[str]:
    return set(type_.model_fields).union(*(_field_names(child) for child in type_.__subclasses__()))

"""Canonical bytes: one value, one spelling; all else is refused, and never by any other exception."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.contracts.wire import Count, Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from isthmus.proof.canonical import JsonValue

texts = st.text(max_size=12).map(lambda text: unicodedata.normalize("NFC", text))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
quick = settings(deadline=None, max_examples=150)


class Part(Wire):
    site: SiteId
    kind: Literal["small", "large"]
    counts: tuple[Count, ...]
    note: str | None


class Whole(Wire):
    parts: tuple[Part, ...]
    by_name: dict[str, Count]
    version: Literal[1] = 1


parts = st.builds(
    Part,
    site=st.sampled_from([SiteId("cn-shanghai"), SiteId("us-texas")]),
    kind=st.sampled_from(["small", "large"]),
    counts=st.lists(st.integers(0, 2**53), max_size=3).map(tuple),
    note=st.none() | texts,
)
wholes = st.builds(
    Whole,
    parts=st.lists(parts, max_size=3).map(tuple),
    by_name=st.dictionaries(texts, st.integers(0, 9), max_size=3),
)


def refusal(data: bytes, limit: int = 1 << 20) -> Code:
    with pytest.raises(Refusal) as refused:
        canonical.decode(data, limit=limit)
    return refused.value.code


def spelling_or_refusal(data: bytes) -> bytes | Code:
    """What the value of `data` is written as, or why there is none."""
    try:
        return canonical.encode(canonical.decode(data))
    except Refusal as refused:
        return refused.code


@quick
@given(values)
def test_a_value_comes_back_and_is_spelled_the_same_again(value: JsonValue) -> None:
    data = canonical.encode(value)
    back = canonical.decode(data)
    assert back == value
    assert canonical.encode(back) == data


@quick
@given(st.dictionaries(texts, st.integers(0, 9), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: dict[str, int], random: object) -> None:
    shuffled = sorted(value.items(), key=lambda _: random.random())  # type: ignore[attr-defined]  # hypothesis's own Random
    assert canonical.encode(dict(shuffled)) == canonical.encode(value)


@quick
@given(wholes)
def test_a_wire_type_comes_back(whole: Whole) -> None:
    data = canonical.dump(whole)
    assert canonical.load(Whole, data) == whole
    assert canonical.digest(whole) == Digest.of(data)


@quick
@given(st.binary(max_size=80))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    assert spelling_or_refusal(data) in {data, Code.MALFORMED}


@quick
@given(values, st.data())
def test_one_changed_byte_is_another_value_or_refused(value: JsonValue, data: st.DataObject) -> None:
    good = bytearray(canonical.encode(value))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    assert spelling_or_refusal(bytes(good)) in {bytes(good), Code.MALFORMED}


@quick
@given(st.text(alphabet='{}[]",:0123456789.-+eEtruefalsn \\u', max_size=40))
def test_what_nearly_is_json_is_read_or_refused(text: str) -> None:
    assert spelling_or_refusal(text.encode()) in {text.encode(), Code.MALFORMED}


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":1,"a":2}',
        '{"b":1,"a":2}',
        '[{"x":{"a":1,"a":1}}]',
        "1.0",
        "1.5",
        "1e2",
        "-0",
        "01",
        "+1",
        "NaN",
        "Infinity",
        "-Infinity",
        "9007199254740993",
        "-9007199254740993",
        "9" * 5000,
        ' {"a":1}',
        '{"a":1}\n',
        '{"a": 1}',
        "[1, 2]",
        "[1,]",
        "[1",
        "",
        "null null",
        '"\\u0041"',
        '"\\/"',
        '"\\u000A"',
        '"\\u001F"',
        '"e\\u0301"',
        '"e\u0301"',
        '{"e\u0301":1}',
        '"\\ud83d\\ude00"',
        '"\\ud800"',
        '"\x01"',
        "'a'",
        "\ufeff1",
        "True",
        "\u0661",
        '{"\uff21":1,"\U0001f600":2}',
    ],
)
def test_a_second_spelling_is_refused(text: str) -> None:
    assert refusal(text.encode()) is Code.MALFORMED


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xc0\xaf"', b'"\xed\xa0\x80"', "1".encode("utf-16"), b'"\xf4\x90\x80\x80"']
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    assert refusal(data) is Code.MALFORMED


@pytest.mark.parametrize("depth", [33, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused(depth: int, opening: bytes, closing: bytes) -> None:
    assert refusal(opening * depth + b"1" + closing * depth) is Code.MALFORMED
    assert refusal(opening * depth) is Code.MALFORMED


def test_nesting_of_32_is_read() -> None:
    data = b"[" * 32 + b"]" * 32
    assert canonical.encode(canonical.decode(data)) == data


def test_more_bytes_than_the_limit_are_refused_unread() -> None:
    assert refusal(b'"aaaa"', limit=5) is Code.TOO_LARGE
    assert canonical.decode(b'"aaaa"', limit=6) == "aaaa"


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        {1: 2},
        {None: 1},
        b"bytes",
        {1, 2},
        2**53 + 1,
        -(2**53) - 1,
        "e\u0301",
        {"e\u0301": 1},
        "\ud800",
        [object()],
    ],
)
def test_what_has_no_canonical_form_is_not_written(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the kinds differ, the class is the promise
        canonical.encode(value)  # type: ignore[arg-type]  # what a caller may try


def test_what_nests_too_deep_is_not_written() -> None:
    value: list[object] = []
    for _ in range(32):
        value = [value]
    with pytest.raises(ValueError, match="deeper"):
        canonical.encode(value)  # type: ignore[arg-type]  # lists of lists, all the way down


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"surprise": 1}, "? (extra_forbidden)"),
        ({"version": 2}, "version (literal_error)"),
        ({"parts": [{"site": "LSVAX60E8K2012345"}]}, "parts.0.site"),
        ({"by_name": {"LSVAX60E8K2012345": -1}}, "by_name.?"),
        ({"parts": None}, "parts"),
        ({"parts": [{"site": "hq", "kind": "small", "counts": [True], "note": None}]}, "parts.0.counts.0"),
        ({"parts": [{"site": "hq", "kind": "small", "counts": ["1"], "note": None}]}, "parts.0.counts.0"),
    ],
)
def test_a_wire_type_is_refused_by_its_place_and_never_by_its_content(change: dict[str, JsonValue], place: str) -> None:
    body: dict[str, JsonValue] = {"parts": [], "by_name": {}, "version": 1}
    with pytest.raises(Refusal) as refused:
        canonical.load(Whole, canonical.encode(body | change))
    assert refused.value.code is Code.MALFORMED
    assert place in refused.value.why
    assert "LSVAX" not in str(refused.value)
    assert "surprise" not in str(refused.value)


def test_a_field_left_to_its_default_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        canonical.load(Whole, b'{"by_name":{},"parts":[]}')
    assert refused.value.code is Code.MALFORMED


def test_a_wire_type_is_refused_when_a_key_stands_twice() -> None:
    with pytest.raises(Refusal):
        canonical.load(Whole, b'{"by_name":{},"by_name":{},"parts":[],"version":1}')


def test_a_refusal_quotes_nothing_of_the_message() -> None:
    for text in ('{"LSVAX60E8K2012345":1,"LSVAX60E8K2012345":1}', '["LSVAX60E8K2012345', "LSVAX60E8K2012345"):
        with pytest.raises(Refusal) as refused:
            canonical.decode(text.encode())
        assert "LSVAX" not in json.dumps([str(refused.value), repr(refused.value.__cause__)])


@quick
@given(st.binary(max_size=40))
def test_base64_has_one_spelling(data: bytes) -> None:
    assert canonical.from_base64(canonical.to_base64(data)) == data


@pytest.mark.parametrize(
    "text", ["QR==", "QQ=", "QQ", "Q", "QQ==\n", " QQ==", "QQ==QQ==", "QUJ=", "Q-==", "\u0441Q==", "===="]
)
def test_a_second_spelling_of_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are the library's
        canonical.from_base64(text)

"""Every type that crosses or is signed: it comes back as it was, and nothing that differs from it in spelling is read.

The types are found, not listed: whatever is added to the contracts is held to this.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import types
import typing
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import annotated_types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from isthmus import contracts
from isthmus.contracts import answers, approvals, crossings, jobs, keys, ledger, link, orders, queries, roster, tensors
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, Identifier, JobId, Name
from isthmus.contracts.wire import MAX_INTEGER, SortedUnique, Wire
from isthmus.proof import canonical
from isthmus.proof.sealing import SealingKey
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator

for module in pkgutil.iter_modules(contracts.__path__, "isthmus.contracts."):
    importlib.import_module(module.name)


def below(type_: type[Wire]) -> set[type[Wire]]:
    return {type_}.union(*(below(child) for child in type_.__subclasses__()))


TYPES = sorted(
    (t for t in below(Wire) - {Wire} if t.__module__.startswith("isthmus.contracts.")), key=lambda t: t.__qualname__
)
CROSSING = (
    crossings.Manifest, crossings.Receipt, crossings.Notice, orders.Order, orders.Evaluation, link.Opening, link.Heads,
    link.HeadsAnswer, link.Parcel, link.ParcelAnswer, link.ReceiptParcel, link.LinkProblem, approvals.Approval,
    approvals.StandingApproval, approvals.Rejection,
)  # fmt: skip
"""What another site sends, or an officer signs: it must be bounded in every part."""

# ---- values of a type, from its own fields

SIGNERS = [SigningKey.generate().verify_key for _ in range(3)]
SEALERS = [SealingKey.generate().public for _ in range(3)]
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=2, max_size=8).map(lambda text: "a" + text)


def identifiers(type_: type[Identifier]) -> st.SearchStrategy[Identifier]:
    if issubclass(type_, Digest):
        return st.binary(min_size=32, max_size=32).map(type_.from_bytes)
    if issubclass(type_, JobId):
        return st.binary(min_size=8, max_size=8).map(lambda raw: type_(f"job-{raw.hex()}"))
    if type_.__name__ == "FileId":
        return st.binary(min_size=16, max_size=16).map(lambda raw: type_(f"file-{raw.hex()}"))
    return words.map(type_)


def flattened(metadata: Any) -> list[Any]:
    """Take apart what `Field` and `Annotated` wrapped."""
    found: list[Any] = []
    for item in metadata:
        found += flattened(item.metadata) if isinstance(item, FieldInfo) else [item]
    return found


def bound(metadata: list[Any], kind: type, name: str, default: int) -> int:
    values = [getattr(item, name) for item in metadata if isinstance(item, kind) and getattr(item, name) is not None]
    return int(values[-1]) if values else default


def of(annotation: Any, metadata: Any = ()) -> st.SearchStrategy[Any]:
    """Return values of an annotation, within what its metadata allows."""
    noted = flattened(metadata)
    origin = typing.get_origin(annotation)
    return plain(annotation, noted) if origin is None else compound(origin, typing.get_args(annotation), noted)


def compound(origin: Any, arguments: tuple[Any, ...], noted: list[Any]) -> st.SearchStrategy[Any]:
    if origin is Annotated:
        return of(arguments[0], (*arguments[1:], *noted))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return tuples(arguments[0], noted)
    if origin is dict:
        return st.dictionaries(of(arguments[0]), of(arguments[1]), max_size=2)
    assert origin in {typing.Union, types.UnionType}, origin
    return st.one_of(*(of(argument) for argument in arguments))


def plain(annotation: Any, noted: list[Any]) -> st.SearchStrategy[Any]:
    if annotation is int:
        return integers(noted)
    if annotation is str:
        return strings(noted)
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    return identifiers(annotation) if issubclass(annotation, Identifier) else values_of(annotation)


SIMPLE: dict[Any, st.SearchStrategy[Any]] = {type(None): st.none(), bool: st.booleans()}


def integers(noted: list[Any]) -> st.SearchStrategy[int]:
    least = bound(noted, annotated_types.Ge, "ge", -MAX_INTEGER)
    return st.integers(least, bound(noted, annotated_types.Le, "le", MAX_INTEGER))


def tuples(item: Any, noted: list[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    least = bound(noted, annotated_types.MinLen, "min_length", 0)
    lists = st.lists(of(item), min_size=least, max_size=max(least, 2), unique_by=repr)
    ordered = SortedUnique in noted
    return lists.map(lambda found: tuple(sorted(found) if ordered else found))


def strings(noted: list[Any]) -> st.SearchStrategy[str]:
    patterns = [i.pattern for i in noted if isinstance(i, StringConstraints) and i.pattern]
    patterns += [i.pattern for i in noted if getattr(i, "pattern", None) and not isinstance(i, StringConstraints)]
    if any("A-Za-z0-9+/" in str(pattern) for pattern in patterns):
        return st.binary(min_size=1, max_size=30).map(canonical.to_base64)
    return words


def values_of(type_: type[BaseModel]) -> st.SearchStrategy[Any]:
    if type_ in POOLS:
        return st.sampled_from(POOLS[type_])
    fields = {name: of(field.annotation, field.metadata) for name, field in type_.model_fields.items()}
    return st.fixed_dictionaries(fields).map(lambda found: type_(**MENDED.get(type_, dict)(found)))


POOLS: dict[type[BaseModel], list[Any]] = {keys.HybridKey: SIGNERS, keys.HpkeKey: SEALERS}


def manifest(found: dict[str, Any]) -> dict[str, Any]:
    comes_in = found["kind"] in {Kind.ORDER, Kind.MODEL}
    same = found["sender"] == found["recipient"]
    return {
        **found,
        "plaintext": (found["plaintext"] or Digest.of(b"")) if comes_in else None,
        "recipient": type(found["sender"])(f"not-{found['sender'][:20]}") if same else found["recipient"],
    }


def order(found: dict[str, Any]) -> dict[str, Any]:
    if found["query"]:
        asked = {"outputs": (Kind.AGGREGATE,), "training": None, "evaluation": None, "tensors": ()}
        return {**found, **asked}
    outputs = set(found["outputs"])
    outputs -= set() if found["training"] and found["tensors"] else {Kind.MODEL_UPDATE}
    outputs -= set() if found["evaluation"] else {Kind.AGGREGATE}
    outputs = outputs or {Kind.EXTRACT}
    training = found["training"] if Kind.MODEL_UPDATE in outputs else None
    evaluation = found["evaluation"] if Kind.AGGREGATE in outputs else None
    if training and evaluation:
        slots = tuple(s for s in evaluation.at_slots if s <= training.rounds)
        evaluation = evaluation.model_copy(update={"at_slots": slots})
    return {
        **found,
        "outputs": tuple(sorted(outputs)),
        "training": training,
        "evaluation": evaluation,
        "tensors": found["tensors"] if training else (),
    }


def settled(found: dict[str, Any]) -> dict[str, Any]:
    if found["question"] is not None:
        return {**found, "rounds": None}
    rounds = found["rounds"] if found["outcome"] == "spent" and found["rounds"] else 0
    return {**found, "rounds": rounds}


def receipt(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "code": (found["code"] or Code.MALFORMED) if found["verdict"] == "refused" else None}


def job_request(found: dict[str, Any]) -> dict[str, Any]:
    zones = {zone.zone: zone for zone in found["zones"]}
    work = "train" if found["training"] else "query" if found["query"] else "raw"
    query = found["query"] if work == "query" else None
    return {**found, "zones": tuple(zones.values()), "work": work, "query": query}


def figure(found: dict[str, Any]) -> dict[str, Any]:
    kind = found["kind"]
    alone = kind in {queries.FigureKind.ROWS, queries.FigureKind.VEHICLES}
    return {
        "kind": kind,
        "measure": None if alone else "speed_mps",
        "bins": (found["bins"] or 2) if kind is queries.FigureKind.HISTOGRAM else None,
        "quantiles_ppm": (found["quantiles_ppm"] or (1,)) if kind is queries.FigureKind.QUANTILES else (),
    }


def question(found: dict[str, Any]) -> dict[str, Any]:
    """Name what the catalogue has: of what was drawn, the table, the figures and a vehicle's rows stay."""
    where = (queries.Condition(column="cut_ins", low=1), queries.Condition(column="traffic", values=("free",)))
    figures = tuple(queries.in_order(found["figures"]))
    return {**found, "group_by": ("road_type",), "where": where, "figures": figures, "groups_per_vehicle": 1}


def protected(found: dict[str, Any]) -> dict[str, Any]:
    private = found["mode"] is queries.Mode.DP
    epsilon, delta = max(1, found["epsilon_micro"]), max(6, found["delta_exponent"])
    return {**found, "epsilon_micro": epsilon if private else 0, "delta_exponent": delta if private else 0}


def query_request(found: dict[str, Any]) -> dict[str, Any]:
    zones = {zone.zone: zone for zone in found["zones"]}
    text = None if found["spec"] else (found["sql"] or "select")
    own = {} if text else {"rows_per_vehicle": None, "groups_per_vehicle": None}
    free = {} if found["mode"] is queries.Mode.DP else {"epsilon_micro": None, "delta_exponent": None}
    return {**found, "sql": text, "zones": tuple(zones.values()), **own, **free}


def person(found: dict[str, Any]) -> dict[str, Any]:
    officer = roster.PersonRole.OFFICER in found["roles"]
    held = tuple(role for role in found["roles"] if not officer or role is not roster.PersonRole.ENGINEER)
    return {**found, "roles": held, "key": found["key"] or (SIGNERS[0] if officer else None)}


def whole_roster(found: dict[str, Any]) -> dict[str, Any]:
    """Give each site keys of its own, and nobody a key."""
    sites = tuple(
        site.model_copy(
            update={
                "id": type(site.id)(f"site-{number}"),
                "signing": SIGNERS[number],
                "sealing": SEALERS[number],
                "certificate": Digest.of(bytes([number])),
            }
        )
        for number, site in enumerate(found["sites"])
    )
    people = tuple(
        p.model_copy(update={"id": type(p.id)(f"person.{n}"), "key": None, "roles": (roster.PersonRole.AUDITOR,)})
        for n, p in enumerate(found["persons"])
    )
    return {"sites": sites, "persons": people}


def tensor(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "shape": tuple(1 + extent % 60 for extent in found["shape"])}


MENDED: dict[type[BaseModel], Any] = {
    crossings.Manifest: manifest,
    crossings.Receipt: receipt,
    orders.Order: lambda found: order({**found, "tensors": tuple(sorted(found["tensors"], key=lambda t: t.name))}),
    jobs.JobRequest: job_request,
    ledger.PrivacySettled: settled,
    queries.Figure: figure,
    queries.QuerySpec: question,
    queries.QueryPlan: protected,
    queries.CellPartial: lambda found: {**found, "largest": ((2, 1),) * len(found["values"])},
    answers.QueryRequest: query_request,
    roster.Person: person,
    roster.Roster: whole_roster,
    tensors.TensorSpec: tensor,
}
"""What fields must agree on among each other."""

every_type = pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.__qualname__)
quick = settings(
    deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


# ---- messages that differ in one place

Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Give every value in a message with the way to it."""
    yield path, value
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    yield from chain.from_iterable(places(child, (*path, key)) for key, child in children)


def with_at(value: Any, path: Path, new: Any) -> Any:
    """Return the message with another value at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_at(value[path[0]], path[1:], new)
    return copy


def as_json(value: Any) -> bytes:
    """Write what canonical bytes would not."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def refused(type_: type[Wire], data: bytes, code: Code = Code.MALFORMED) -> None:
    with pytest.raises(Refusal) as refusal:
        canonical.load(type_, data)
    assert refusal.value.code is code, data


def drawn(type_: type[Wire], data: st.DataObject) -> tuple[Any, bytes]:
    message = canonical.dump(data.draw(values_of(type_)))
    return json.loads(message), message


def a_place(data: st.DataObject, value: Any, kind: type | tuple[type, ...]) -> tuple[Path, Any] | None:
    found = [(p, v) for p, v in places(value) if isinstance(v, kind) and not isinstance(v, bool)]
    return data.draw(st.sampled_from(found)) if found else None


def test_types_are_found() -> None:
    assert len(TYPES) > 60
    assert set(CROSSING) <= set(TYPES)


@every_type
@quick
@given(data=st.data())
def test_it_comes_back_as_it_was(type_: type[Wire], data: st.DataObject) -> None:
    value = data.draw(values_of(type_))
    message = canonical.dump(value)
    back = canonical.load(type_, message)
    assert back == value
    assert canonical.dump(back) == message
    assert canonical.digest(back) == Digest.of(message)


@every_type
@quick
@given(data=st.data())
def test_an_unknown_field_anywhere_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, _ = drawn(type_, data)
    place = a_place(data, value, dict)
    assert place is not None
    refused(type_, as_json(with_at(value, place[0], {**place[1], "Extra Field": 1})))


@every_type
@quick
@given(data=st.data())
def test_a_missing_field_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, _ = drawn(type_, data)
    gone = data.draw(st.sampled_from(sorted(value)))
    refused(type_, as_json({key: item for key, item in value.items() if key != gone}))


@every_type
@quick
@given(data=st.data())
def test_a_key_that_stands_twice_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, _ = drawn(type_, data)
    path, inner = a_place(data, value, dict) or ((), value)
    if not inner:
        return
    key = data.draw(st.sampled_from(sorted(inner)))
    marker = "\x00twice"
    text = as_json(with_at(value, path, {marker: 0, **inner}))
    twice = as_json({key: inner[key]})[1:-1]
    refused(type_, text.replace(as_json({marker: 0})[1:-1], twice))


@every_type
@quick
@given(data=st.data())
def test_a_number_of_another_kind_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, _ = drawn(type_, data)
    place = a_place(data, value, int)
    if place is None:
        return
    path, number = place
    for other in (float(number), number + 0.5, str(number), True, [number], float("nan"), float("inf"), -float("inf")):
        refused(type_, as_json(with_at(value, path, other)))
    for beyond in (MAX_INTEGER + 1, -MAX_INTEGER - 1, 10**400):
        refused(type_, as_json(with_at(value, path, beyond)))


@every_type
@quick
@given(data=st.data())
def test_a_digest_of_the_wrong_length_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, _ = drawn(type_, data)
    found = [(p, v) for p, v in places(value) if isinstance(v, str) and v.startswith("sha256:")]
    if not found:
        return
    path, digest = data.draw(st.sampled_from(found))
    for other in (digest[:-1], digest + "0", digest.upper(), digest[7:], "sha512:" + digest[7:], digest + "\n", ""):
        refused(type_, as_json(with_at(value, path, other)))


@every_type
@quick
@given(data=st.data())
def test_text_in_the_place_of_something_else_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, _ = drawn(type_, data)
    place = a_place(data, value, (dict, list))
    assert place is not None
    for other in ("text", 1, None, [[[]]], {"": {}}):  # lists of lists cross; none is deeper
        if other is None and place[0]:
            continue  # some of these may be absent
        refused(type_, as_json(with_at(value, place[0], other)))


@every_type
@quick
@given(data=st.data())
def test_a_message_over_its_limit_is_refused_unread(type_: type[Wire], data: st.DataObject) -> None:
    _, message = drawn(type_, data)
    with pytest.raises(Refusal) as refusal:
        canonical.load(type_, message, limit=len(message) - 1)
    assert refusal.value.code is Code.TOO_LARGE
    refused(type_, b"[" + b"0," * (1 << 19) + b"0]", Code.TOO_LARGE)


@every_type
@quick
@given(data=st.data())
def test_a_second_spelling_is_refused(type_: type[Wire], data: st.DataObject) -> None:
    value, message = drawn(type_, data)
    refused(type_, message + b"\n")
    refused(type_, b" " + message)
    refused(type_, json.dumps(value, sort_keys=True).encode())
    if len(value) > 1:
        backwards = dict(sorted(value.items(), reverse=True))
        refused(type_, json.dumps(backwards, ensure_ascii=False, separators=(",", ":")).encode())


# ---- what comes from outside is bounded in every part


def unbounded(schema: Any, path: str = "") -> Iterator[str]:
    """Name the parts of a JSON schema that may be of any length."""
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "string" and not schema.keys() & {"maxLength", "enum", "const"} and not closed(schema.get("pattern")):
        yield path
    if kind == "array" and "maxItems" not in schema:
        yield path
    if kind == "object" and schema.get("additionalProperties") is not False and "propertyNames" not in schema:
        yield path
    for key in ("properties", "$defs"):
        for name, child in schema.get(key, {}).items():
            yield from unbounded(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        yield from unbounded(schema.get(key), f"{path}[]")
    for child in schema.get("anyOf", ()):
        yield from unbounded(child, path)


def closed(pattern: str | None) -> bool:
    """Tell whether a pattern ends after a number of characters that it states."""
    return pattern is not None and "{0,63}$" in pattern


@pytest.mark.parametrize("type_", CROSSING, ids=lambda t: t.__qualname__)
def test_what_another_site_says_has_a_longest_form(type_: type[Wire]) -> None:
    assert list(unbounded(type_.model_json_schema())) == []


def test_a_name_ends_where_its_text_does() -> None:
    """A pattern that takes a trailing newline would make two names look the same in a log."""
    for text in ("name\n", "name ", "Name", "nаme", "na me", "", "n" * 65, "../name", "name\x00"):
        with pytest.raises(ValueError, match="not a Name"):
            Name(text)

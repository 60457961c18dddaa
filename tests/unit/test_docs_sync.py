"""The pages name what the code has: codes, kinds, routes, roles, rules, facts, fields. Their links lead somewhere."""

from __future__ import annotations

import dataclasses
import re
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isthmus.border.gate.inside import ROUTES as INSIDE_ROUTES
from isthmus.border.gate.outside import outside_app
from isthmus.border.keeper.policy import NEEDS
from isthmus.border.keeper.states import Inbound, Outbound
from isthmus.contracts.crossings import Check, Kind, Manifest, Receipt
from isthmus.contracts.errors import Code
from isthmus.contracts.facts import Action, Facts
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import ApiRole, JobEvent, JobRequest
from isthmus.coordinator.people import ROUTES as JOBS_ROUTES
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit.bell import Bell
from isthmus.kit.web import STATUS
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.tracks import ROAD_USERS, ROADS, TRACK_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def rows(name: str) -> set[str]:
    """Return what stands, as code, in the first cell of the tables' rows: each word of a cell that holds several."""
    first = re.findall(r"^\| (`[^|]*) \|", page(name), re.MULTILINE)
    return {word for cell in first for word in re.findall(r"`([^`]+)`", cell)}


def missing(named: Iterable[str], text: str) -> set[str]:
    return {name for name in named if f"`{name}`" not in text}


def test_the_wire_format_has_a_row_for_every_code_and_kind() -> None:
    assert {code.value for code in Code} <= rows("reference/wire-format.md")
    assert {kind.value for kind in Kind} <= rows("reference/wire-format.md")


def test_the_wire_format_names_every_field_of_a_manifest_and_a_receipt() -> None:
    text = page("reference/wire-format.md")
    assert not missing([*Manifest.model_fields, *Receipt.model_fields, *Check], text)


def test_the_wire_format_has_a_row_for_every_route_of_the_link() -> None:
    app = outside_app(cast("Any", None), cast("Any", SimpleNamespace(sites=())), Bell(), "0")
    served = {
        f"{method} {path}"
        for path, methods in ((getattr(r, "path", ""), getattr(r, "methods", None) or ()) for r in app.routes)
        for method in methods
    }
    assert len(served) > 5
    assert {route for route in rows("reference/wire-format.md") if "/link/" in route} == served


def test_the_inside_face_page_has_every_route_with_its_roles_and_no_other() -> None:
    table = re.findall(r"^\| `((?:GET|POST|PUT) [^`]+)` \| ([^|]+) \|", page("reference/inside-face.md"), re.MULTILINE)
    said = {
        route: frozenset(InsideRole) if who == "all" else frozenset(map(InsideRole, who.split(", ")))
        for route, who in table
    }
    assert said == dict(INSIDE_ROUTES)
    assert {role.value for role in InsideRole} <= rows("reference/inside-face.md")


def test_the_inside_face_page_gives_every_status() -> None:
    section = page("reference/inside-face.md").partition("## Status")[2]
    said = {
        code: int(status)
        for codes, status in re.findall(r"((?:`[a-z_]+`,?\s+)+)(\d{3})", section)
        for code in re.findall(r"`([a-z_]+)`", codes)
    }
    assert said == {code.value: status for code, status in STATUS.items()}


def test_the_jobs_page_has_every_route_with_its_roles_and_no_other() -> None:
    table = re.findall(r"^\| `((?:GET|POST) [^`]+)` \| ([^|]+) \|", page("reference/jobs-api.md"), re.MULTILINE)
    said = {
        tuple(route.split(" ")): frozenset[ApiRole]() if who == "anyone" else frozenset(map(ApiRole, who.split(", ")))
        for route, who in table
    }
    assert said == dict(JOBS_ROUTES)


def test_the_jobs_page_names_every_field_of_a_request_and_every_event() -> None:
    text = page("reference/jobs-api.md")
    events = JobEvent.model_json_schema()["properties"]["event"]["enum"]
    assert not missing([*JobRequest.model_fields, *events], text)


def test_the_policy_page_has_a_row_for_every_rule_with_its_code_and_need() -> None:
    packs = sorted(p for p in (files("isthmus.border.packs")).iterdir() if p.name.endswith(".cedar"))
    pack = "\n".join(p.read_text("utf-8") for p in packs)
    rules = re.findall(r'@id\("([^"]+)"\)(.*?)\n(permit|forbid) ', pack, re.DOTALL)
    said = dict(re.findall(r"^\| `([a-z]+\.[a-z-]+)` \| ([^|]+) \|", page("reference/policy.md"), re.MULTILINE))
    expected = {}
    for name, notes, effect in rules:
        code, need = (re.search(rf'@{note}\("([^"]+)"\)', notes) for note in ("code", "needs"))
        expected[name] = effect + (f", `{code[1]}`" if code else "") + (f", needs `{need[1]}`" if need else "")
    assert len(rules) == pack.count("@id(")
    assert said == expected


def test_the_policy_page_has_a_row_for_every_fact_and_action_and_names_every_need() -> None:
    facts = {field.name for field in dataclasses.fields(Facts)} - {"action"}
    assert facts | {action.value for action in Action} <= rows("reference/policy.md")
    assert not missing(NEEDS, page("reference/policy.md"))


def test_the_settings_page_names_every_setting_and_token() -> None:
    text = page("reference/settings-and-files.md")
    settings = {*ZoneSettings.model_fields, *CoordinatorSettings.model_fields}
    unnamed = {name for name in settings if not re.search(rf"`(\[[a-z]+\] )?{name}`", text)}
    assert not unnamed


def test_the_page_on_rounds_names_every_state() -> None:
    text = page("explanation/how-a-round-goes.md")
    assert not {state.value for state in (*Outbound, *Inbound) if state.value not in text}


def test_the_page_on_tracks_names_every_column_and_type() -> None:
    text = page("how-to/ingest-recorded-tracks.md")
    assert not missing([column.name for column in TRACK_COLUMNS], text)
    assert not {name for name in (*ROAD_USERS, *ROADS) if name not in text}


def test_the_tests_that_the_threat_model_leans_on_are_there() -> None:
    named = re.findall(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`", page("explanation/threat-model.md"))
    assert len(named) > 20
    gone = {f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / "tests" / path).read_text()}
    assert not gone


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", path.read_text("utf-8"))
    gone = [link for link in links if link and "://" not in link and not (path.parent / link).exists()]
    assert not gone


def test_every_page_is_in_the_index() -> None:
    index = page("README.md")
    unlisted = [p for p in PAGES[1:] if p.name != "README.md" and p.relative_to(DOCS).as_posix() not in index]
    assert not unlisted

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from isthmus.cli import federation
from isthmus.cli.homes import Home
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.kit.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

PLAN = federation.demo_plan()


class Killed(BaseException):
    """What ends a set-up from outside."""


class Killer(Clock):
    """A clock that ends the set-up which asks it for the time."""

    def now(self) -> int:
        raise Killed


@pytest.mark.parametrize("exists", [False, True])
def test_a_home_is_made_where_there_is_none_or_an_empty_one(tmp_path: Path, *, exists: bool) -> None:
    home = tmp_path / "over" / "home"
    if exists:
        home.mkdir(parents=True)
    federation.create(home, PLAN)
    assert len(Home.open(home).sites) == 3
    assert [each.name for each in home.parent.iterdir()] == ["home"]
    assert home.stat().st_mode & 0o077 == 0


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    federation.create(tmp_path / "home", PLAN)
    assert (tmp_path / "disk" / "roots.json").exists()
    assert (tmp_path / "home").is_symlink()


def test_no_file_knows_where_it_was_made(tmp_path: Path) -> None:
    federation.create(tmp_path / "home", PLAN)
    files = [each for each in (tmp_path / "home").rglob("*") if each.is_file()]
    assert len(files) > 20
    for each in files:
        assert b"home.new-" not in each.read_bytes()
        assert os.fsencode(tmp_path) not in each.read_bytes()


@pytest.mark.parametrize("left", ["hq", "roots.json", "notes.txt"])
def test_a_home_with_something_in_it_is_refused_and_left_alone(tmp_path: Path, left: str) -> None:
    home = tmp_path / "home"
    (home / left).mkdir(parents=True)
    with pytest.raises(Refusal) as refusal:
        federation.create(home, PLAN)
    assert refusal.value.code is Code.ALREADY_EXISTS
    assert refusal.value.remedy
    assert [each.name for each in tmp_path.rglob("*")] == ["home", left]


def test_a_set_up_that_was_ended_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(Killed):
        federation.create(home, PLAN, Killer())
    assert list(tmp_path.iterdir()) == []
    federation.create(home, PLAN)
    assert len(Home.open(home).sites) == 3


def test_a_set_up_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    twice = dataclasses.replace(PLAN, persons=(*PLAN.persons, PLAN.persons[1]))
    with pytest.raises(Fault) as fault:
        federation.create(tmp_path / "home", twice)
    assert fault.value.code is Code.STORAGE_FAILED
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_set_up_left_beside_the_home_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "home.new-abc" / "hq").mkdir(parents=True)
    federation.create(tmp_path / "home", PLAN)
    assert (tmp_path / "home.new-abc" / "hq").is_dir()


@pytest.mark.parametrize("place", ["file", "file/home", "file/over/home"])
def test_where_no_folder_can_be_made_the_storage_is_at_fault(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Fault) as fault:
        federation.create(tmp_path / place, PLAN)
    assert fault.value.code is Code.STORAGE_FAILED
    assert fault.value.why
    assert "new-" not in str(fault.value)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_place_where_nothing_can_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Fault) as fault:
        federation.create(tmp_path / "file" / "home", PLAN)
    assert fault.value.code is Code.STORAGE_FAILED

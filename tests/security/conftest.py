"""Every attack starts from the same federation: made once, copied for each test."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isthmus.cli import federation
from security.scene import ALGORITHM, Scene, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def federation_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of a federation whose borders are stopped."""
    home = tmp_path_factory.mktemp("federation") / "home"
    set_up(home, replace(federation.demo_plan(), algorithms=(ALGORITHM,)))
    return home


@pytest.fixture
def scene(federation_home: Path, tmp_path: Path) -> Iterator[Scene]:
    """Return the borders of a copy of the federation, running."""
    home = tmp_path / "home"
    shutil.copytree(federation_home, home)
    scene = Scene(home)
    yield scene
    scene.close()

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from isthmus.fleet import PARAMETERS, simulate

if TYPE_CHECKING:
    import numpy as np

if TYPE_CHECKING:
    import numpy as np

SITES = tuple(PARAMETERS)


@cache
def fleet(site: str) -> tuple[pa.Table, ...]:
    """One whole batch of a site, so that every road type occurs."""
    return tuple(simulate(site, 40, 3, 11))


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def tables(site: str) -> tuple[pa.Table, ...]:
    return fleet(site)


@pytest.fixture
def columns(tables: tuple[pa.Table, ...]) -> dict[str, np.ndarray]:
    """All rows of the fleet, in order, by column."""
    table = pa.concat_tables(tables)
    return {name: table[name].to_numpy() for name in table.column_names}

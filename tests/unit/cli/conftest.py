"""Borders that the command line reaches without a socket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from isthmus.client.border import BorderClient
from isthmus.kit.tokens import read_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from isthmus.cli.homes import SiteHome
    from isthmus.contracts.inside import InsideRole
    from world.pair import Pair


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pair], Pair]:
    """Let the command line reach the borders of a pair."""

    def reached(pair: Pair) -> Pair:
        @asynccontextmanager
        async def border_of(site: SiteHome, role: InsideRole) -> AsyncIterator[BorderClient]:
            transport = httpx2.ASGITransport(app=pair.borders[site.id].inside)
            async with httpx2.AsyncClient(transport=transport, base_url="http://border") as http:
                yield BorderClient(http, read_token(site.folder / "tokens" / role))

        monkeypatch.setattr("isthmus.cli.connections.border_of", border_of)
        return pair

    return reached

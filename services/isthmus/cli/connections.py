"""Connections to the services of a home. The module loads the HTTP library, so verbs import it when they run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2

from isthmus.client.border import BorderClient
from isthmus.client.jobs import JobsClient
from isthmus.kit.tokens import read_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isthmus.cli.homes import Home, SiteHome
    from isthmus.contracts.identifiers import PersonId
    from isthmus.contracts.inside import InsideRole

TIMEOUT_S = 60.0


@asynccontextmanager
async def border_of(site: SiteHome, role: InsideRole) -> AsyncIterator[BorderClient]:
    """Yield a client of a site's border, with the token of `role`."""
    token = read_token(site.folder / "tokens" / role.value)
    async with httpx2.AsyncClient(base_url=f"http://{site.inside}", timeout=TIMEOUT_S, trust_env=False) as http:
        yield BorderClient(http, token)


@asynccontextmanager
async def jobs_of(home: Home, person: PersonId | None) -> AsyncIterator[JobsClient]:
    """Yield a client of the jobs API, as `person` (the one engineer of this home where None)."""
    token = read_token(home.token_file(person or home.engineer()))
    url = f"http://{home.coordinator.api}"
    async with httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http:
        yield JobsClient(http, token)

"""How the tests are shared out where several workers run them: a file to a worker, and servers at one worker alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

SERVERS = ("tests/e2e/", "tests/ports/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Keep the tests of a file together, and all that start real servers: what these time, no other server disturbs."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only where there are workers

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, *_ = nodeid.split("::")
            return "servers" if file.startswith(SERVERS) else file

    return ByFile(config, log)

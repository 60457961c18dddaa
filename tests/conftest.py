"""How the tests are shared out where several workers run them: a file to a worker, and servers at one worker alone."""

from __future__ import annotations

import pytest

SERVERS = frozenset({"e2e", "ports"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, and all that start real servers: what they time, they time undisturbed."""
    for item in items:
        folder, *_ = item.path.relative_to(config.rootpath / "tests").parts
        item.add_marker(pytest.mark.xdist_group("servers" if folder in SERVERS else str(item.path)))

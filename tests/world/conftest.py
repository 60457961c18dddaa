"""What tests of a whole federation share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from isthmus.kit import journal

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Keep the log of failures that are meant to be: formatting it takes longer than the runs."""
    journal.configure("test", logging.CRITICAL)
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()

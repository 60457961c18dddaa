"""What a process that was killed leaves: the files that it used, as they were."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

Part: TypeAlias = Literal["border", "behind"]
"""The two processes of a site: the border, and the zone or the coordinator that stands behind it."""

BELONGS: dict[Part, tuple[str, ...]] = {
    "border": ("settings.toml", "genesis.json", "policy", "tokens", "keys", "ledger.db", "ledger.db-wal", "blobs"),
    "behind": ("settings.toml", "tokens", "store", "catalogue.db", "catalogue.db-wal", "results", "coordinator"),
}
"""Which files of a site's folder a process uses."""


def copy(source: Path, target: Path, part: Part) -> None:
    """Copy what is there; a file that goes meanwhile, by a dead process's last thread, may be missed."""
    for name in BELONGS[part]:
        for path in [source / name, *(source / name).rglob("*")]:
            if path.is_file():
                found = target / path.relative_to(source)
                found.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy2(path, found)

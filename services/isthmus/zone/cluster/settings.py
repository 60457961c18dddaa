"""Section `[zone.ray]` of a site's settings: the zone's cluster, for the zone's process and for the cluster's nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from isthmus.contracts.identifiers import Name

Port = Annotated[int, Field(strict=True, ge=1, le=65_535)]
MIB = 1 << 20
SPREAD = 60
"""How many ports a node takes, counted from the setting `ports`."""


class RaySettings(BaseModel):
    """Section `[zone.ray]`. Relative paths start at the site's folder.

    Attributes:
        head: host of the head, as the zone's process and the workers reach it.
        ports: the first port of the cluster's block: the head's own is this, that for clients is this + 10.
        token: file with the cluster's token, the same on every node and at the zone.
        folder: the site's folder, as the cluster's nodes see it; the one that the settings stand in where None.
        allowed_accelerators: classes of nodes on which this zone's orders may run.
        most_shards: most actors that one order is spread over.
        shard_bytes: sealed bytes of the order's snapshot that one actor is worth starting for.
        small_question_bytes: a question about no more sealed bytes is counted in the zone's process, which needs
            many times as much memory for it. 0 has actors open all files.
        gpus_per_shard: share of a GPU that an actor asks for.
        start_within_s: how long a head or a worker may be away, and actors may take to load.
        object_store_bytes: memory of a node's object store, through which models and gradients pass.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\[\]-]{1,253}$")] = "127.0.0.1"
    ports: Annotated[int, Field(strict=True, ge=1024, le=65_535 - SPREAD)] = 24_000
    token: Path = Path("tokens/ray")
    folder: Path | None = None
    allowed_accelerators: tuple[Name, ...] = (Name("cpu"),)
    most_shards: Annotated[int, Field(strict=True, ge=1, le=256)] = 4
    shard_bytes: Annotated[int, Field(strict=True, ge=1)] = 64 * MIB
    small_question_bytes: Annotated[int, Field(strict=True, ge=0)] = 16 * MIB
    gpus_per_shard: Annotated[float, Field(ge=0, le=8)] = 0
    start_within_s: Annotated[int, Field(strict=True, ge=1, le=3600)] = 60
    object_store_bytes: Annotated[int, Field(strict=True, ge=80_000_000)] = 100_000_000

    @property
    def address(self) -> str:
        """`host:port` of the head."""
        return f"{self.head}:{self.ports}"

    @property
    def client_address(self) -> str:
        """`host:port` where the head takes clients."""
        return f"{self.head}:{self.ports + 10}"

    def within(self, folder: Path) -> Self:
        """Return these settings with paths that start at the site's folder."""
        return self.model_copy(update={"token": folder / self.token, "folder": folder / (self.folder or "")})

"""The zone's settings: one frozen object, read once from its site's folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import Name, SiteId
from isthmus.kit.objects.place import S3Place
from isthmus.zone.cluster.settings import RaySettings

SECTION = "zone"


class S3Settings(S3Place):
    """Section `[zone.s3]`: the bucket (see `S3Place`), and whose credentials are where.

    Attributes:
        ingest: file with the credentials of ingest's user. The worker does not read it.
        compute: file with the credentials of compute's user. Ingest does not read it.
    """

    ingest: Path = Path("s3/ingest.json")
    compute: Path = Path("s3/compute.json")

    def within(self, folder: Path) -> Self:
        """Return these settings with paths that start at the site's folder."""
        ca = folder / self.ca if self.ca else None
        return self.model_copy(update={"ingest": folder / self.ingest, "compute": folder / self.compute, "ca": ca})


class ZoneSettings(BaseModel):
    """Section `[zone]` of `<site folder>/settings.toml`. Relative paths start at the site's folder.

    Attributes:
        site: the site's id: that of the file, or the folder's name.
        border_url: the inside face of the own border.
        compute_token: file with the worker's token.
        ingest_token: file with ingest's token. The worker does not read it, ingest not the worker's.
        store: folder of the sealed objects.
        catalogue: the catalogue's file.
        results: folder of the jobs' results and adapted models.
        s3: the bucket of the sealed objects, in place of the folder `store`; None for the folder.
        accelerator: the class of the chip that the worker's own process computes on; of a cluster, each node says its,
            and this process adds up a question's rows.
        ray: the cluster that computes, in place of the worker's own process; None for that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteId
    border_url: str
    compute_token: Path = Path("tokens/compute")
    ingest_token: Path = Path("tokens/ingest")
    store: Path = Path("store")
    catalogue: Path = Path("catalogue.db")
    results: Path = Path("results")
    accelerator: Name = Name("cpu")
    s3: S3Settings | None = None
    ray: RaySettings | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the settings of the site in `folder`.

        Raises:
            Fault: `CONFIGURATION`, naming the setting at fault.
        """
        path = folder / "settings.toml"
        try:
            table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            settings = cls.model_validate({"site": table.get("site", folder.name), **table[SECTION]})
        except (OSError, KeyError, TypeError, ValueError) as error:
            what = f"The zone's settings in {path} cannot be read."
            remedy = f"See the section [{SECTION}], or run `isthmus setup`."
            raise Fault(Code.CONFIGURATION, what, why=_place(error), remedy=remedy) from error
        paths = ("compute_token", "ingest_token", "store", "catalogue", "results")
        update: dict[str, Any] = {name: folder / getattr(settings, name) for name in paths}
        for name in ("s3", "ray"):
            section = getattr(settings, name)
            update[name] = section.within(folder) if section else None
        return settings.model_copy(update=update)


def _place(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
    return type(error).__name__

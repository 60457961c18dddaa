"""The zone's settings: one frozen object, read once from its site's folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import SiteId

SECTION = "zone"


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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteId
    border_url: str
    compute_token: Path = Path("tokens/compute")
    ingest_token: Path = Path("tokens/ingest")
    store: Path = Path("store")
    catalogue: Path = Path("catalogue.db")
    results: Path = Path("results")

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
        return settings.model_copy(update={name: folder / getattr(settings, name) for name in paths})


def _place(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
    return type(error).__name__

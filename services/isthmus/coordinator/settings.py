"""The coordinator's settings: one frozen object, read once from its site's folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import PersonId, SiteId
from isthmus.contracts.queries import PrivacyBudget

SECTION = "coordinator"


class CoordinatorSettings(BaseModel):
    """Section `[coordinator]` of `<site folder>/settings.toml`. Relative paths start at the site's folder.

    Attributes:
        site: the site's id, from the file's own `site`; the folder's name where it is not given.
        listen_host: address of the jobs API.
        listen_port: its port.
        border_url: the inside face of the own border.
        border_token: file with the submitter's token.
        people: file with the persons' token hashes and roles (see `people`).
        data: folder of the store and the registry.
        officers: persons who approve releases anywhere: none of them may submit jobs.
        budgets: for dry runs, each zone's privacy budget as its genesis has it: a table
            `[coordinator.budgets.<zone>]` with `epsilon_micro` and `delta_exponent`.
        minimum_slots: for dry runs, the shortest slot that each zone's genesis lets a question have, seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteId
    listen_host: str = "127.0.0.1"
    listen_port: Annotated[int, Field(ge=0, le=65_535)] = 8600
    border_url: str
    border_token: Path = Path("tokens/submitter")
    people: Path = Path("tokens/people.toml")
    data: Path = Path("coordinator")
    officers: tuple[PersonId, ...] = ()
    budgets: dict[SiteId, PrivacyBudget] = Field(default_factory=dict)
    minimum_slots: dict[SiteId, Annotated[int, Field(strict=True, ge=1, le=3_600)]] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> CoordinatorSettings:
        """Read the settings of the site in `folder`.

        Raises:
            Fault: `CONFIGURATION`, naming the setting at fault.
        """
        path = folder / "settings.toml"
        try:
            document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            settings = cls.model_validate({"site": document.get("site", folder.name), **document[SECTION]})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise Fault(
                Code.CONFIGURATION,
                f"The coordinator's settings in {path} cannot be read.",
                why=_place(error),
                remedy=f"See the section [{SECTION}].",
            ) from error
        return settings.model_copy(
            update={name: folder / getattr(settings, name) for name in ("border_token", "people", "data")}
        )

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.data / "coordinator.db"

    @property
    def registry(self) -> Path:
        """The registry's folder."""
        return self.data / "models"


def _place(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
    return type(error).__name__

"""Finding what set-up made: the sites under a home, where they listen, who is who.

Only names, addresses and rosters are read here; a token or a key is read by whoever uses it, when it is used.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import PersonId, SiteId
from isthmus.contracts.roster import Genesis, PersonRole
from isthmus.proof import canonical

if TYPE_CHECKING:
    from isthmus.contracts.roster import Roster

DEFAULT_HOME = Path(".isthmus")
DEFAULT_API_PORT = 8600
MAX_GENESIS = 1 << 20


@dataclass(frozen=True, slots=True)
class SiteHome:
    """One site under a home.

    Attributes:
        id: the site.
        folder: its directory.
        part: what stands behind its border.
        inside: `host:port` of its border's inside face.
        outside: `host:port` of its link, None for a border that dials.
        api: `host:port` of the jobs API, None for a zone.
    """

    id: SiteId
    folder: Path
    part: Literal["zone", "coordinator"]
    inside: str
    outside: str | None
    api: str | None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a site's settings.

        Raises:
            Fault: `CONFIGURATION`: they are missing or lack something.
        """
        path = folder / "settings.toml"
        try:
            settings: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
            hub = settings.get("coordinator")
            return cls(
                id=SiteId(settings["site"]),
                folder=folder,
                part="zone" if hub is None else "coordinator",
                inside=str(settings["border"]["inside"]),
                outside=settings["border"].get("outside"),
                api=hub and f"{hub.get('listen_host', '127.0.0.1')}:{hub.get('listen_port', DEFAULT_API_PORT)}",
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise Fault(
                Code.CONFIGURATION,
                f"The settings {path} cannot be used.",
                why=f"{type(error).__name__}: {error}",
                remedy="Put them right, or make a new home with `isthmus setup`.",
            ) from error

    def roster(self) -> Roster:
        """Return who the site knows.

        Raises:
            Fault: `CONFIGURATION`: it has no genesis, or none that this release reads.
        """
        try:
            return canonical.load(Genesis, (self.folder / "genesis.json").read_bytes(), limit=MAX_GENESIS).roster
        except OSError as error:
            raise Fault(
                Code.CONFIGURATION,
                f"There is no genesis in {self.folder}.",
                why=error.strerror or "",
                remedy="Make a new home with `isthmus setup`.",
            ) from error
        except Refusal as error:
            raise Fault(
                Code.CONFIGURATION,
                f"The genesis in {self.folder} is not one that this release reads.",
                why="Another release wrote it, or it was changed.",
                remedy="Run the release that wrote it, or make a new home with `isthmus setup`.",
            ) from error


@dataclass(frozen=True, slots=True)
class Home:
    """A home and its sites, the coordinator's first."""

    path: Path
    sites: tuple[SiteHome, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read which sites a home has.

        Raises:
            Fault: `CONFIGURATION`: it has none.
        """
        folders = sorted(settings.parent for settings in path.glob("*/settings.toml"))
        if not folders:
            raise Fault(
                Code.CONFIGURATION,
                f"There is no site in {path}.",
                remedy="Run `isthmus setup`, or name another home with --home or ISTHMUS_HOME.",
            )
        sites = (SiteHome.load(folder) for folder in folders)
        return cls(path, tuple(sorted(sites, key=lambda site: (site.part != "coordinator", site.id))))

    @property
    def zones(self) -> tuple[SiteHome, ...]:
        """The sites that are zones."""
        return tuple(site for site in self.sites if site.part == "zone")

    @property
    def coordinator(self) -> SiteHome:
        """The coordinator's site.

        Raises:
            Fault: `CONFIGURATION`: it is not under this home.
        """
        for site in self.sites:
            if site.part == "coordinator":
                return site
        raise Fault(Code.CONFIGURATION, f"No coordinator stands in {self.path}.", remedy="Name its home with --home.")

    def site(self, site: SiteId) -> SiteHome:
        """Return the site of this id.

        Raises:
            Refusal: `NOT_FOUND`.
        """
        for each in self.sites:
            if each.id == site:
                return each
        known = ", ".join(each.id for each in self.sites)
        raise Refusal(Code.NOT_FOUND, f"There is no site {site} in {self.path}.", remedy=f"Use one of: {known}.")

    def token_file(self, person: PersonId) -> Path:
        """Return where a person's token of the jobs API is kept."""
        return self.path / "people" / person / "token"

    def engineer(self) -> PersonId:
        """Return the one engineer whose token is kept here.

        Raises:
            Refusal: `NOT_FOUND`: there is none, or more than one.
        """
        here = [
            person.id
            for person in self.coordinator.roster().persons
            if PersonRole.ENGINEER in person.roles and self.token_file(person.id).exists()
        ]
        if len(here) != 1:
            found = f"There are {len(here)} engineers with a token in {self.path}."
            raise Refusal(Code.NOT_FOUND, found, remedy="Say who you are with --as.")
        return here[0]

"""`setup`: make the sites of a federation."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

from dataclasses import dataclass, replace
from typing import Annotated, Self

import typer

from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import HomeFolder, Json
from isthmus.cli.screen import Screen, table
from isthmus.contracts.answers import SLOT_S
from isthmus.contracts.identifiers import Name, SiteId


@dataclass(frozen=True, slots=True)
class ZoneChips:
    """One class of chips that one zone's genesis is to permit."""

    zone: SiteId
    accelerator: Name

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `ZONE=CLASS` says.

        Raises:
            ValueError: it says something else.
        """
        zone, _, accelerator = text.partition("=")
        try:
            return cls(SiteId(zone), Name(accelerator))
        except ValueError:
            raise ValueError("expected a zone and a class, such as us-texas=h100") from None


Permitted = Annotated[
    list[ZoneChips] | None,
    typer.Option(
        "--accelerator",
        parser=ZoneChips.parse,
        metavar="ZONE=CLASS",
        help="A class of chips that a zone's genesis permits, in place of cpu alone; may be repeated.",
    ),
]
MinimumSlot = Annotated[
    int, typer.Option("--minimum-slot", min=1, max=3600, help="Shortest slot of a question that zones take, seconds.")
]


def setup(
    *,
    accelerators: Permitted = None,
    minimum_slot: MinimumSlot = SLOT_S,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Make a coordinator and two zones, each with its border, keys, tokens, policy and genesis.

    Nothing that exists is overwritten. `roots.json`, for whoever verifies, is written beside the sites.
    """
    from isthmus.cli import federation

    screen = Screen(machine=json)
    with screen.waiting("Making keys and sites ..."):
        said = [(each.zone, each.accelerator) for each in accelerators or ()]
        plan = federation.permitting(federation.demo_plan(), said)
        federation.create(home, replace(plan, minimum_slot_s=minimum_slot))
    made = Home.open(home)
    persons = made.coordinator.roster().persons
    rows = [(site.id, site.part, site.inside, site.outside or "", site.api or "") for site in made.sites]
    people = [(p.id, p.organisation, ", ".join(p.roles)) for p in persons]
    screen.result(
        {
            "home": str(home),
            "roots": str(home / "roots.json"),
            "sites": [
                {"site": s.id, "part": s.part, "inside": s.inside, "outside": s.outside, "api": s.api}
                for s in made.sites
            ],
            "persons": [{"person": p.id, "organisation": p.organisation, "roles": list(p.roles)} for p in persons],
        },
        table(f"Sites in {home}", ("site", "what", "inside face", "link", "jobs API"), rows),
        table("People", ("person", "organisation", "roles"), people),
        f"Next: `isthmus up --home {home}`.",
    )

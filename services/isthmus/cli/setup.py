"""`setup`: make the sites of a federation."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import HomeFolder, Json
from isthmus.cli.screen import Screen, table


def setup(*, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Make a coordinator and two zones, each with its border, keys, tokens, policy and genesis.

    Nothing that exists is overwritten. `roots.json`, for whoever verifies, is written beside the sites.
    """
    from isthmus.cli import federation

    screen = Screen(machine=json)
    with screen.waiting("Making keys and sites ..."):
        federation.create(home, federation.demo_plan())
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

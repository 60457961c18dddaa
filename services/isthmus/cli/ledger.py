"""`ledger`: what each border has logged, and the evidence of it for whoever verifies."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
from collections.abc import Sequence
from math import ceil, floor
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import bundles
from isthmus.cli.answers import MICRO, epsilon
from isthmus.cli.homes import DEFAULT_HOME, Home, SiteHome
from isthmus.cli.options import HomeFolder, Json, Sites
from isthmus.cli.screen import Screen, short, table
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.inside import Evidence, InsideRole, LedgerView, PrivacyView, UsageReport

app = typer.Typer(help="What the borders have logged.")

MOST_ANSWERS = 10
LATER = "Export when no job runs, or name the sites one at a time."
OUTSIDE = (
    "Releases outside the budget: evaluations, disclosure-controlled answers and updates without an epsilon, of the"
    " same vehicles. It promises nothing of them, nor of them and what is in it together."
)


@app.command("show")
def show(*, site: Sites = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Show each border's two logs, who cosigned them, and what crossed."""
    found = asyncio.run(_views(chosen(home, site)))
    logs = [
        (view.site, log.log, log.size, short(log.root), len(log.cosigned))
        for view, _ in found
        for log in view.logs
    ]  # fmt: skip
    halted = [
        f"{view.site} has stopped the link to {p}: {code}." for view, _ in found for p, code in view.halted.items()
    ]
    crossed = [
        (usage.site, u.kind, u.direction, u.count, u.sealed_bytes, u.information_bits)
        for _, usage in found
        for u in usage.usage
    ]
    columns = ("site", "kind", "way", "count", "sealed bytes", "information bits, at most")
    Screen(machine=json).result(
        {
            "sites": [
                {"ledger": view.model_dump(mode="json"), "usage": usage.model_dump(mode="json")["usage"]}
                for view, usage in found
            ]
        },
        table("Ledgers", ("site", "log", "entries", "root", "cosigned heads"), logs),
        table("Crossed", columns, crossed),
        *halted,
    )


@app.command("budget")
def budget(*, site: Sites = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Show what answers and private trainings may cost each zone's vehicles together, and what is gone of it.

    It never renews.
    """
    found = asyncio.run(_budgets(chosen(home, site)))
    rows = [
        (
            each,
            epsilon(view.budget.epsilon_micro, view.budget.delta_exponent),
            f"{ceil(view.epsilon_micro / MICRO * 100) / 100:g}",
            f"{floor(max(0, view.budget.epsilon_micro - view.epsilon_micro) / MICRO * 100) / 100:g}",
            view.answered,
            view.trainings,
            view.repeated,
            view.open,
            view.unprotected,
        )
        for each, view in found.items()
        if view.budget is not None
    ]
    columns = ("zone", "budget", "gone", "left", "answers", "trainings", "repeated", "open", "outside it")
    Screen(machine=json).result(
        {"sites": {each: view.model_dump(mode="json") for each, view in found.items()}},
        table("Privacy of the vehicles", columns, rows),
        *([OUTSIDE] if any(view.unprotected for view in found.values()) else []),
        *(f"{each} has no budget." for each, view in found.items() if view.budget is None),
    )


@app.command("export")
def export(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new folder, or a new file that ends with .zip.")],
    *,
    site: Sites = None,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Write an evidence bundle of all sites, or of the named ones. `isthmus verify` reads it."""
    screen = Screen(machine=json)
    with screen.waiting("Asking the borders for their evidence ..."):
        evidence = asyncio.run(gather(chosen(home, site)))
        bundles.write(target, evidence)
    screen.result(
        {"bundle": str(target), "sites": [each.site for each in evidence]},
        f"{target} holds the evidence of {', '.join(each.site for each in evidence)}.",
        f"Verify it with `isthmus verify {target} --roots roots.json`.",
    )


def chosen(home: Path, sites: Sequence[SiteId] | None) -> tuple[SiteHome, ...]:
    """Return the sites that are named, all of a home where none is."""
    opened = Home.open(home)
    return tuple(opened.site(site) for site in sites) if sites else opened.sites


async def gather(sites: Sequence[SiteHome]) -> tuple[Evidence, ...]:
    """Return the evidence of every site's border, of one moment: asked again until two answers are the same.

    Heads that are exchanged between one border's answer and another's would look like a ledger that was rolled back.

    Raises:
        Fault: `STATE_CONFLICT`: the borders are too busy.
    """
    from isthmus.cli.connections import border_of

    async def ask(site: SiteHome) -> Evidence:
        async with border_of(site, InsideRole.AUDITOR) as border:
            return await border.evidence()

    latest = await asyncio.gather(*(ask(site) for site in sites))
    for _ in range(MOST_ANSWERS):
        before, latest = latest, await asyncio.gather(*(ask(site) for site in sites))
        if [_moment(each) for each in before] == [_moment(each) for each in latest]:
            return tuple(latest)
    raise Fault(Code.STATE_CONFLICT, "The borders are at work, and no two answers were of one moment.", remedy=LATER)


def _moment(evidence: Evidence) -> tuple[object, ...]:
    """Return what changes whenever a ledger grows or a head is exchanged."""
    return (tuple((log.size, log.cosigned) for log in evidence.logs), evidence.witnessed)


async def _budgets(sites: Sequence[SiteHome]) -> dict[SiteId, PrivacyView]:
    from isthmus.cli.connections import border_of

    async def ask(site: SiteHome) -> tuple[SiteId, PrivacyView]:
        async with border_of(site, InsideRole.AUDITOR) as border:
            return site.id, await border.privacy()

    return dict(await asyncio.gather(*(ask(site) for site in sites)))


async def _views(sites: Sequence[SiteHome]) -> list[tuple[LedgerView, UsageReport]]:
    from isthmus.cli.connections import border_of

    async def ask(site: SiteHome) -> tuple[LedgerView, UsageReport]:
        async with border_of(site, InsideRole.AUDITOR) as border:
            return await border.ledger(), await border.usage()

    return list(await asyncio.gather(*(ask(site) for site in sites)))

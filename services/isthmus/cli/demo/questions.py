"""The demo's questions: the five headline figures of both fleets, asked at once, shown with their bars."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.cli import defaults
from isthmus.cli.answers import HIDDEN, MICRO, PROMISES, shown
from isthmus.cli.screen import table
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.jobs import JobState
from isthmus.contracts.queries import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from isthmus.client.jobs import JobsClient
    from isthmus.contracts.answers import CellView, QueryView
    from isthmus.contracts.identifiers import SiteId

SOME = "*"
"""Marks a whole that lacks a zone."""
HEADLINES = (
    ("vehicles", "SELECT count(DISTINCT vehicle) FROM drives"),
    ("way", "SELECT road_type, sum(distance_km) FROM drives GROUP BY road_type"),
    ("mean speed", "SELECT avg(speed_mps) FROM drives"),
    ("headway under 1 s, share", "SELECT avg(headway_below_1s_share) FROM drives"),
    ("braking over 2 m/s2, share", "SELECT avg(braking_share) FROM drives"),
)
"""What is asked of both fleets: a name for people, and the question."""


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure of the fleets: its name and the question with what it brought."""

    name: str
    view: QueryView


async def headlines(jobs: JobsClient, coordinator: SiteId, zones: Iterable[SiteId]) -> tuple[Headline, ...]:
    """Ask all five at once and return them when all are answered, or their orders have expired.

    Raises:
        Fault: `COMPUTE_FAILED`: a question was not answered by every zone.
    """
    named = tuple(zones)
    asked = [await jobs.ask(defaults.question(coordinator, named, sql)) for _, sql in HEADLINES]
    views = await asyncio.gather(*(jobs.answered(question.id) for question in asked))
    for view in views:
        codes = {zone.zone: zone.code for zone in view.zones if zone.answer is None}
        if codes or view.state is not JobState.DONE:
            why = ", ".join(f"{zone}: {code}" for zone, code in codes.items())
            raise Fault(Code.COMPUTE_FAILED, "A question was not answered by every zone.", why=why)
    return tuple(Headline(name, view) for (name, _), view in zip(HEADLINES, views, strict=True))


def as_json(found: tuple[Headline, ...]) -> list[dict[str, Any]]:
    """Return the report's fields: for each figure and cell, each zone's value and bar, and the whole's."""
    return [
        {
            "figure": headline.name,
            "unit": headline.view.units[0],
            "question": headline.view.sql,
            "epsilon_micro": headline.view.plan.epsilon_micro,
            "cells": [
                {
                    "group": list(cell.group),
                    "zones": {zone.zone: _numbers(zone.cells[index]) for zone in headline.view.zones},
                    "whole": _numbers(cell),
                }
                for index, cell in enumerate(headline.view.whole)
            ],
        }
        for headline in found
    ]


def tables(found: tuple[Headline, ...]) -> list[RenderableType]:
    """Return what a person is shown."""
    if not found:
        return []
    zones = [zone.zone for zone in found[0].view.zones]
    spent = sum(headline.view.plan.epsilon_micro for headline in found) / MICRO
    cost = f"Each cost epsilon 1 of each zone's budget, {spent:g} together at most."
    wide = "Small fleets have wide bars: the noise hides one vehicle, however few there are."
    some = f"{SOME} without a zone where too few vehicles would show." if _some_missing(found) else ""
    return [
        table("Five questions to both fleets: value and 95 % bar", ("figure", *zones, "whole"), _rows(found)),
        "\n".join(line for line in (some, PROMISES[Mode.DP], f"{cost} {wide}", "") if line) + "\n",
    ]


def _rows(found: tuple[Headline, ...]) -> Iterator[tuple[str, ...]]:
    for headline in found:
        unit = f" [{headline.view.units[0]}]" if headline.view.units[0] else ""
        for index, cell in enumerate(headline.view.whole):
            name = " ".join([headline.name + unit, *(value.replace("_", " ") for value in cell.group)])
            yield name, *(_shown(zone.cells[index]) for zone in headline.view.zones), _whole(cell)


def _some_missing(found: tuple[Headline, ...]) -> bool:
    return any(cell.missing and not cell.suppressed for headline in found for cell in headline.view.whole)


def _shown(cell: CellView) -> str:
    return HIDDEN if cell.suppressed else shown(cell.columns[0].points[0])


def _whole(cell: CellView) -> str:
    return f"{_shown(cell)} {SOME}" if cell.missing and not cell.suppressed else _shown(cell)


def _numbers(cell: CellView) -> dict[str, float] | None:
    """Return a value with the ends of its bar, nothing where it is hidden."""
    if cell.suppressed:
        return None
    point = cell.columns[0].points[0]
    return {"value": point.value_micro / MICRO, "low": point.low_micro / MICRO, "high": point.high_micro / MICRO}

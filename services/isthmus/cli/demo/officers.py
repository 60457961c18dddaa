"""The demo's officers: a process of its own that signs with their keys, one line for each signature.

A real officer reads before signing. These sign what the demo's job asks for, once each, and nothing else: a release of
another job, or one outside a standing approval's bounds, stays held.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from isthmus.cli.connections import border_of
from isthmus.cli.federation import officer_key
from isthmus.cli.homes import Home, SiteHome
from isthmus.cli.review import approval
from isthmus.contracts.errors import IsthmusError
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.inside import InsideRole, ReviewItem
from isthmus.contracts.roster import PersonRole

LOOKS_EVERY_S = 0.2


async def attend(home: Home, job: JobId) -> None:
    """Let the officers of every zone attend to what is held of `job`, until this process is ended."""
    await asyncio.gather(*(_zone(home, zone, job) for zone in home.zones))


async def _zone(home: Home, zone: SiteHome, job: JobId) -> None:
    async with border_of(zone, InsideRole.OFFICER) as border:
        while True:
            for item in (await border.review()).items:
                if item.manifest.job == job:
                    await _sign(home, zone, item)
            await asyncio.sleep(LOOKS_EVERY_S)


async def _sign(home: Home, zone: SiteHome, item: ReviewItem) -> None:
    async with border_of(zone, InsideRole.OFFICER) as border:
        for person in zone.roster().persons:
            if PersonRole.OFFICER in person.roles and person.id not in item.signed_by:
                status = await border.approve(approval(officer_key(home.path, person.id), item, standing=True))
                bounds, kind = item.standing.bounds, item.manifest.kind
                say(
                    f"{zone.id}: {person.id} ({person.organisation}) signs for {bounds.releases} x {kind},"
                    f" at most {bounds.information_bits_per_release} bits each: {status.state}"
                )


def say(line: str) -> None:
    """Write a line for the demo to show."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run: `officers <home> <job>`."""
    try:
        asyncio.run(attend(Home.open(Path(sys.argv[1])), JobId(sys.argv[2])))
    except IsthmusError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

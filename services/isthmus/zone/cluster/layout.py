"""How an order's windows are laid out over shards: which shard has which file, and where each window stands. Pure.

Rules:
1. The order of windows, the vehicles held out and so every batch are those of one process that has all files
   (`zone.compute`), whatever the number of shards.
2. A vehicle is known here by its draw, the salted hash that decides whether it is held out, never by its pseudonym.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a shard tells of one file that it has loaded.

    Attributes:
        file: the file's place in the grant.
        first_drive: the name of its first drive, by which files stand in an order of their content.
        windows: how many windows each vehicle has in it, by the vehicle's draw.
    """

    file: int
    first_drive: str
    windows: dict[bytes, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands.

    Attributes:
        held_out: draws of the vehicles that are never trained on.
        starts: by file, the place of its first window for training among all windows for training.
        contributors: vehicles and windows to train on.
        evaluators: vehicles and windows held out.
    """

    held_out: frozenset[bytes]
    starts: dict[int, int]
    contributors: Contributors
    evaluators: Contributors


def draw(salt: str, pseudonym: str) -> bytes:
    """Return the hash by which `learning.windows.split_by_vehicle` draws a vehicle."""
    return hashlib.sha256(f"{salt}\0{pseudonym}".encode()).digest()


def shards_for(size: int, bytes_each: int, most: int, cpus: int) -> int:
    """Return how many shards `size` sealed bytes are worth: at least one, at most `most` and the processors."""
    return max(1, min(-(-size // bytes_each), most, cpus))


def share_out(sizes: Sequence[int], shards: int) -> tuple[tuple[int, ...], ...]:
    """Return which files each shard gets: the largest first, each to the shard that has least."""
    loads = [0] * shards
    chosen: list[list[int]] = [[] for _ in range(shards)]
    for file in sorted(range(len(sizes)), key=lambda file: (-sizes[file], file)):
        least = loads.index(min(loads))
        loads[least] += sizes[file]
        chosen[least].append(file)
    return tuple(tuple(sorted(files)) for files in chosen)


def lay_out(reports: Sequence[FileReport], held_out: int, *, least: int = 1) -> Layout:
    """Choose the vehicles that are held out, and give every file its place.

    Args:
        reports: of all files.
        held_out: how many vehicles to set aside.
        least: how many must be left, as for `learning.windows.split_by_vehicle`.

    Raises:
        Refusal: `INPUT_INVALID`, when fewer vehicles than `least` would be left to train on.
    """
    windows: dict[bytes, int] = {}
    for report in reports:
        for vehicle, count in report.windows.items():
            windows[vehicle] = windows.get(vehicle, 0) + count
    if held_out < 0 or (least and held_out + least > len(windows)):
        raise Refusal(
            Code.INPUT_INVALID,
            f"Cannot hold out {held_out} of {len(windows)} vehicles.",
            why="At least one vehicle must be left to train on.",
            remedy="Hold out fewer vehicles, or take a dataset with more.",
        )
    drawn = frozenset(sorted(windows)[:held_out])
    starts, place = {}, 0
    for report in sorted(reports, key=lambda report: (report.first_drive, report.file)):
        starts[report.file] = place
        place += sum(count for vehicle, count in report.windows.items() if vehicle not in drawn)
    return Layout(
        held_out=drawn,
        starts=starts,
        contributors=Contributors(vehicles=len(windows) - len(drawn), windows=place),
        evaluators=Contributors(vehicles=len(drawn), windows=sum(windows[vehicle] for vehicle in drawn)),
    )

"""Filling the volumes of the Compose demo, once: each whole, or none.

Rules:
1. Every volume carries a mark with the federation's name and how far it is: `begun`, `made`, `ready`.
2. What a service may have used (`ready` anywhere) is never made again, emptied or overwritten. Where volumes are
   missing from such a federation, they are named, and nothing is done.
3. A run that was cut short is finished or, where nothing was ready, begun again. A volume without a mark is filled
   only where it is empty.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli import federation
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.kit.objects.place import Credentials, read_credentials, write_credentials
from isthmus.kit.tokens import make_token, write_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.cli.compose_plan import Volume
    from isthmus.cli.federation import FederationPlan
    from isthmus.kit.clock import Clock

MARK = ".isthmus"
BEGUN, MADE, READY = "begun", "made", "ready"


def fill(root: Path, plan: FederationPlan, volumes: tuple[Volume, ...], clock: Clock | None = None) -> bool:
    """Fill `volumes`, which are folders under `root`; return False where they stand ready already.

    Args:
        root: the folder under which every volume is mounted by its name.
        plan: the federation.
        volumes: what goes where (`compose_plan.volumes`).
        clock: tells the time; the host's where None.

    Raises:
        Refusal: `STATE_CONFLICT`: some volumes of a federation in use are missing, or are of another one.
            `ALREADY_EXISTS`: a volume holds something that this did not put there.
        Fault: `CONFIGURATION`: a volume is not mounted. `STORAGE_FAILED`: it cannot be written.
    """
    try:
        _require_mounted(root, volumes)
        marks = {volume.name: _mark(root / volume.name) for volume in volumes}
        if not _is_made(marks):
            _make(root, plan, volumes, clock)
        elif all(state == READY for _, state in marks.values()):
            return False
        _finish(root, volumes)
    except OSError as error:
        why = f"{error.strerror}: {error.filename}." if error.strerror else ""
        raise Fault(
            Code.STORAGE_FAILED,
            f"The volumes under {root} cannot be filled.",
            why=why,
            remedy="Look at the disk, and run this again: what was begun is finished.",
        ) from error
    return True


def _is_made(marks: dict[str, tuple[str, str]]) -> bool:
    """Tell whether all volumes are of one federation and at least made; False where all may be made anew."""
    states = {state for _, state in marks.values()}
    if READY not in states and states != {MADE}:
        return False
    missing = sorted(name for name, (_, state) in marks.items() if state not in {MADE, READY})
    if missing:
        raise Refusal(
            Code.STATE_CONFLICT,
            f"These volumes of the federation are missing: {', '.join(missing)}.",
            why="Others of it have been in use. What was lost cannot be made again: its keys are pinned elsewhere.",
            remedy="Restore them from a back-up, or remove every volume for a new federation.",
        )
    if len({name for name, _ in marks.values()}) > 1:
        raise Refusal(
            Code.STATE_CONFLICT,
            "These volumes are of several federations.",
            remedy="Restore those of one, or remove every volume for a new federation.",
        )
    return True


def _make(root: Path, plan: FederationPlan, volumes: tuple[Volume, ...], clock: Clock | None) -> None:
    name = secrets.token_hex(8)
    for volume in volumes:
        _empty(root / volume.name)
        _write_mark(root / volume.name, name, BEGUN)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        federation.create(home, plan, clock)
        _add_secrets(home, plan)
        for volume in volumes:
            _put(home, root / volume.name, volume)
    for volume in volumes:
        _write_mark(root / volume.name, name, MADE)


def _add_secrets(home: Path, plan: FederationPlan) -> None:
    """Make what containers need beside a federation's own secrets: the store's users, and the cluster's token."""
    for site in plan.sites:
        if site.part != "zone":
            continue
        store = home / site.id / "s3"
        for user in ("root", "ingest", "compute", "border"):
            write_credentials(store / f"{user}.json", Credentials.generate(f"{site.id}-{user}"))
        root = read_credentials(store / "root.json")
        write_secret(store / "root.user", root.access_key.encode())
        write_secret(store / "root.password", root.secret_key.encode())
        make_token(home / site.id / "tokens" / "ray")


def _finish(root: Path, volumes: tuple[Volume, ...]) -> None:
    """Give every volume to its owner, then mark all as ready."""
    for volume in volumes:
        _give(root / volume.name, volume)
    for volume in volumes:
        folder = root / volume.name
        _write_mark(folder, _mark(folder)[0], READY)


def _put(home: Path, folder: Path, volume: Volume) -> None:
    for source, target in volume.copies:
        place = folder / target
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (home / source).is_dir():
            shutil.copytree(home / source, place, dirs_exist_ok=True)
        else:
            shutil.copy2(home / source, place)
    for target, text in volume.texts:
        place = folder / target
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    for target, _ in volume.folders:
        (folder / target).mkdir(mode=0o755, parents=True, exist_ok=True)


def _give(folder: Path, volume: Volume) -> None:
    """Change who owns what is in a volume. The folder itself can be entered by all: it is mounted in few services."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, volume.owner, volume.owner)
    for target, owner in volume.folders:
        os.chown(folder / target, owner, owner)
    folder.chmod(0o755)


def _require_mounted(root: Path, volumes: Iterable[Volume]) -> None:
    missing = [volume.name for volume in volumes if not (root / volume.name).is_dir()]
    if missing:
        raise Fault(
            Code.CONFIGURATION,
            f"These volumes are not mounted under {root}: {', '.join(missing)}.",
            remedy="Mount each volume at the folder of its name, as deploy/compose.yaml does.",
        )


def _mark(folder: Path) -> tuple[str, str]:
    """Return a volume's federation and state, both empty where it has none."""
    try:
        name, _, state = (folder / MARK).read_text("ascii").strip().partition(" ")
    except FileNotFoundError:
        return "", ""
    return name, state


def _write_mark(folder: Path, name: str, state: str) -> None:
    new = folder / f"{MARK}.new"
    with new.open("w", encoding="ascii") as file:
        file.write(f"{name} {state}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / MARK)


def _empty(folder: Path) -> None:
    """Empty a volume that an earlier run had begun to fill."""
    if _mark(folder) == ("", "") and any(path.name != f"{MARK}.new" for path in folder.iterdir()):
        raise Refusal(
            Code.ALREADY_EXISTS,
            f"The volume {folder.name} is not empty.",
            remedy="Set-up fills new volumes alone: remove it yourself, or use another project name.",
        )
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()

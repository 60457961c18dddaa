"""`storage`: make a site's buckets and users in its S3 store, or print the policies for one that is made by hand."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import json as json_text
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from isthmus.cli.options import Json
from isthmus.cli.screen import Screen, table
from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from isthmus.zone.buckets import BucketPlan

app = typer.Typer(help="A site's S3 store: its buckets, users and policies.", no_args_is_help=True)

RETENTION_DAYS = 365
PRIVATE = 0o077

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The site's folder.", file_okay=False, exists=True)]


@app.command()
def setup(
    folder: Folder,
    *,
    root: Annotated[
        Path, typer.Option("--root", metavar="FILE", help="File with the credentials of the store's administrator.")
    ],
    retention_days: Annotated[
        int, typer.Option("--days", min=1, max=36_500, help="How long each checkpoint is locked.")
    ] = RETENTION_DAYS,
    json: Json = False,
) -> None:
    """Make what `[zone.s3]` and `[border.archive]` in the site's settings name: buckets, users, their credentials.

    Run again, it leaves the same state and keeps the credentials. For MinIO; see `storage policies` for other stores.
    """
    from isthmus.kit.objects.place import read_credentials
    from isthmus.zone.buckets import set_up

    screen = Screen(machine=json)
    os.umask(PRIVATE)
    plans = _plans(folder, retention_days)
    administrator = read_credentials(root)
    with screen.waiting("Making buckets and users ..."):
        reports = [set_up(plan, administrator) for plan in plans]
    rows = [
        (report.bucket, "made" if report.made else "stood", user.value, name, "made" if new else "kept")
        for report in reports
        for user, (name, new) in report.users.items()
    ]
    screen.result(
        {
            "buckets": [
                {
                    "bucket": report.bucket,
                    "made": report.made,
                    "users": {user.value: {"name": name, "made": new} for user, (name, new) in report.users.items()},
                }
                for report in reports
            ]
        },
        table("Store", ("bucket", "", "for", "user", "credentials"), rows),
    )


@app.command()
def policies(folder: Folder, *, json: Json = False) -> None:
    """Print the least policy of each user, for a store whose users are made by other means."""
    from isthmus.zone.users import policy

    screen = Screen(machine=json)
    documents = {
        user.value: policy(user, plan.place.bucket) for plan in _plans(folder, RETENTION_DAYS) for user in plan.users
    }
    screen.result(documents, json_text.dumps(documents, indent=2))


def _plans(folder: Path, retention_days: int) -> "list[BucketPlan]":
    """Return what the settings of the site in `folder` ask for. Only its two sections on a store need be there."""
    from isthmus.border.archive import ArchiveSettings
    from isthmus.zone.buckets import BucketPlan
    from isthmus.zone.settings import S3Settings
    from isthmus.zone.users import User

    path = folder / "settings.toml"
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        sealed = document.get("zone", {}).get("s3")
        checkpoints = document.get("border", {}).get("archive")
        found = []
        if sealed is not None:
            files = S3Settings.model_validate(sealed).within(folder)
            found.append(BucketPlan(files, {User.INGEST: files.ingest, User.COMPUTE: files.compute}))
        if checkpoints is not None:
            archive = ArchiveSettings.parse(checkpoints, folder)
            found.append(BucketPlan(archive, {User.BORDER: archive.credentials}, retention_days))
    except (OSError, AttributeError, ValueError) as error:
        raise _unusable(path, error) from error
    if not found:
        what = f"The settings {path} name no S3 store."
        raise Fault(Code.CONFIGURATION, what, remedy="Add a section [zone.s3] or [border.archive].")
    return found


def _unusable(path: Path, error: Exception) -> Fault:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        why = f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
    else:
        why = str(error)
    remedy = "See the sections [zone.s3] and [border.archive]."
    return Fault(Code.CONFIGURATION, f"The settings {path} cannot be used.", why=why, remedy=remedy)

"""Arguments and options that several verbs share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.contracts.identifiers import Digest, JobId, Name, PersonId, SiteId

Json = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, and nothing else.")]
HomeFolder = Annotated[
    Path, typer.Option("--home", envvar="ISTHMUS_HOME", help="Folder of the sites.", file_okay=False)
]
As = Annotated[
    PersonId | None,
    typer.Option(
        "--as", parser=PersonId, metavar="PERSON", help="Who asks; the one engineer of this home if left out."
    ),
]
Site = Annotated[SiteId, typer.Option("--site", parser=SiteId, metavar="SITE", help="The site.")]
SiteArgument = Annotated[SiteId, typer.Argument(parser=SiteId, metavar="SITE", help="The site.")]
Sites = Annotated[
    list[SiteId] | None,
    typer.Option("--site", parser=SiteId, metavar="SITE", help="Only this site; may be repeated."),
]
Job = Annotated[JobId, typer.Argument(parser=JobId, metavar="JOB", help="The job's id.")]
Model = Annotated[Digest, typer.Argument(parser=Digest, metavar="DIGEST", help="The model's digest.")]
Dataset = Annotated[Name, typer.Option("--dataset", parser=Name, metavar="NAME", help="The dataset.")]
Snapshot = Annotated[Name, typer.Option("--snapshot", parser=Name, metavar="NAME", help="The snapshot's name.")]

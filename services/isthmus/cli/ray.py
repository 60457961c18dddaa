"""`ray`: start a node of a zone's cluster, as a container's entry or by hand.

Rules: a node does not start without the zone's token; what is missing is named. The process becomes Ray's own, so that
it gets its signals; it leaves no core file, which would hold plaintext.
"""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import importlib.util
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from isthmus.zone.cluster.launch import Command
    from isthmus.zone.cluster.settings import RaySettings

app = typer.Typer(help="Nodes of a zone's compute cluster.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The zone's folder.", file_okay=False, exists=True)]
Address = Annotated[str, typer.Option("--address", metavar="IP", help="This node's address inside the zone.")]
State = Annotated[
    Path, typer.Option("--state", metavar="FOLDER", help="Where it keeps sockets and logs; a short path.")
]
Cpus = Annotated[int, typer.Option("--cpus", min=0, help="Processors it offers.")]
Gpus = Annotated[int, typer.Option("--gpus", min=0, help="GPUs it offers.")]
Accelerator = Annotated[str, typer.Option("--accelerator", metavar="CLASS", help="Its accelerator class.")]
Shift = Annotated[
    int, typer.Option("--shift", min=0, help="How much later its ports start, beside others on one host.")
]

DEFAULT_STATE = Path("/tmp/isthmus-ray")  # noqa: S108 - in a container, where nobody else is; by hand, another is named


@app.command()
def head(
    folder: Folder,
    *,
    address: Address = "127.0.0.1",
    state: State = DEFAULT_STATE,
    cpus: Cpus = 0,
    gpus: Gpus = 0,
    accelerator: Accelerator = "cpu",
) -> None:
    """Run the head of the zone's cluster in the foreground."""
    from isthmus.zone.cluster.launch import Machine, head_command

    settings = _settings(folder)
    _become(head_command(settings, Machine(address, state, cpus, gpus, accelerator)), state)


@app.command()
def worker(
    folder: Folder,
    *,
    address: Address = "127.0.0.1",
    state: State = DEFAULT_STATE,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    accelerator: Accelerator = "cpu",
    shift: Shift = 0,
) -> None:
    """Run a worker of the zone's cluster in the foreground, once its head is there."""
    from isthmus.zone.cluster.launch import Machine, worker_command

    settings = _settings(folder)
    _become(worker_command(settings, Machine(address, state, cpus, gpus, accelerator, shift)), state)


def _settings(folder: Path) -> "RaySettings":
    """Return the cluster's settings, with a token that is there and Ray installed."""
    from isthmus.kit.tokens import read_token
    from isthmus.zone.settings import ZoneSettings

    settings = ZoneSettings.load(folder).ray
    if settings is None:
        remedy = "Add the section [zone.ray]."
        raise Fault(Code.CONFIGURATION, f"The settings in {folder} name no cluster.", remedy=remedy)
    read_token(settings.token)
    if importlib.util.find_spec("ray") is None:
        raise Fault(Code.CONFIGURATION, "Ray is not installed here.", remedy="Install `isthmus[site,ray]`.")
    return settings


def _become(command: "Command", state: Path) -> None:
    """Replace this process by `command`."""
    os.umask(0o077)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.execve(command.arguments[0], command.arguments, {**os.environ, **command.environment})  # noqa: S606 - our own

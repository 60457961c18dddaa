"""What one border needs to know of its surroundings: read once, in `border.app`, and passed in."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.border.archive import ArchiveSettings
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.roster import Genesis
from isthmus.kit.serving import Address
from isthmus.proof import canonical

if TYPE_CHECKING:
    from pathlib import Path


MAX_GENESIS = 1 << 20


@dataclass(frozen=True, slots=True)
class BorderSettings:
    """Settings of one border.

    Attributes:
        site: whose border this is.
        home: the site's directory; keys, ledger, blobs, tokens and policy lie under it.
        inside: where the inside face listens.
        outside: where the link listens; None for a border that dials.
        dials: the peer it dials and the URL, None for a border that listens.
        keeper: the socket between gate and keeper, where they are two processes.
        gate_user: the user id of the gate's process, None where it is the keeper's own.
        archive: where checkpoints are archived, None for nowhere.
    """

    site: SiteId
    home: Path
    inside: Address
    outside: Address | None
    dials: tuple[SiteId, str] | None
    keeper: Path
    gate_user: int | None
    archive: ArchiveSettings | None = None

    @classmethod
    def load(cls, home: Path) -> BorderSettings:
        """Read `settings.toml` in the site's home.

        Raises:
            Fault: it is missing, or lacks something: named.
        """
        path = home / "settings.toml"
        try:
            table: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
            border = table["border"]
            dials = border.get("dials")
            return cls(
                site=SiteId(table["site"]),
                home=home,
                inside=Address.parse(border["inside"]),
                outside=Address.parse(border["outside"]) if "outside" in border else None,
                dials=(SiteId(dials["site"]), str(dials["url"])) if dials else None,
                keeper=home / str(border.get("keeper", "keeper.sock")),
                gate_user=int(border["gate_user"]) if "gate_user" in border else None,
                archive=ArchiveSettings.parse(border["archive"], home) if "archive" in border else None,
            )
        except OSError as error:
            raise _unusable(path, error.strerror or "") from error
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise _unusable(path, f"{type(error).__name__}: {error}") from error


def load_genesis(home: Path) -> Genesis:
    """Read the genesis that set-up wrote.

    Raises:
        Fault: there is none, or none that this release reads.
    """
    try:
        return canonical.load(Genesis, (home / "genesis.json").read_bytes(), limit=MAX_GENESIS)
    except OSError as error:
        raise Fault(
            Code.CONFIGURATION,
            f"There is no genesis in {home}.",
            why=error.strerror or "",
            remedy="Run `isthmus setup`.",
        ) from error
    except Refusal as error:
        raise Fault(
            Code.CONFIGURATION,
            f"The genesis in {home} is not one that this release reads.",
            why="Another release wrote it, or it was changed.",
            remedy="Run the release that wrote it, or make new sites with `isthmus setup`. Nothing was changed.",
        ) from error


def _unusable(path: Path, why: str) -> Fault:
    return Fault(Code.CONFIGURATION, f"The settings {path} cannot be used.", why=why, remedy="Run `isthmus setup`.")

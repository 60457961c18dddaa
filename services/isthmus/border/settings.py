"""What one border needs to know of its surroundings: read once, in `border.app`, and passed in."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import SiteId
from isthmus.kit.serving import Address

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class BorderSettings:
    """Settings of one border.

    Attributes:
        site: whose border this is.
        home: the site's directory; keys, ledger, blobs, tokens and policy lie under it.
        inside: where the inside face listens.
        outside: where the link listens; None for a border that dials.
        dials: the peer it dials and the URL, None for a border that listens.
    """

    site: SiteId
    home: Path
    inside: Address
    outside: Address | None
    dials: tuple[SiteId, str] | None

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
            )
        except OSError as error:
            raise _unusable(path, error.strerror or "") from error
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise _unusable(path, f"{type(error).__name__}: {error}") from error


def _unusable(path: Path, why: str) -> Fault:
    return Fault(Code.CONFIGURATION, f"The settings {path} cannot be used.", why=why, remedy="Run `isthmus setup`.")

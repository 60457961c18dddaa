"""The frozen parameters of each site, and their digest.

Rules: they were set from the calibration table of `docs/explanation/fleet.md` alone, before anything was trained on
them; that page repeats the digests, so no value changes without it.
"""

from __future__ import annotations

import dataclasses
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.fleet.shanghai import CHINA
from isthmus.fleet.texas import TEXAS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.fleet.parameters import FleetParameters

PARAMETERS: Mapping[str, FleetParameters] = MappingProxyType({"cn-shanghai": CHINA, "us-texas": TEXAS})
"""The frozen parameters by site id."""


def parameters_of(site: str) -> FleetParameters:
    """Return a site's parameters.

    Raises:
        Refusal: `INPUT_INVALID` if no fleet is simulated for `site`.
    """
    if site not in PARAMETERS:
        raise Refusal(
            Code.INPUT_INVALID, f"No fleet is simulated for {site!r}.", remedy=f"Use one of {', '.join(PARAMETERS)}."
        )
    return PARAMETERS[site]


def parameters_digest(site: str) -> Digest:
    """Return the digest of a site's parameters: of sorted, compact JSON with floats written as Python's `repr`."""
    plain = _exact(dataclasses.asdict(parameters_of(site)))
    return Digest.of(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def _exact(value: Any) -> Any:
    """Replace floats by their shortest exact text, all the way down."""
    match value:
        case float():
            return repr(value)
        case dict():
            return {key: _exact(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_exact(inner) for inner in value]
        case _:
            return value

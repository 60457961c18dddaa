"""Who may use the jobs API: persons with a token each, and one table from route to role.

Rules:
1. Every request names a person by their token. Where it comes from counts for nothing.
2. The tokens' file holds hashes: reading it gives nobody a token. It is readable by its owner alone.
3. A route that is not in the table is forbidden. An officer is never an engineer.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter, ValidationError

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Identifier, PersonId
from isthmus.contracts.jobs import ApiRole
from isthmus.contracts.wire import Wire
from isthmus.kit.tokens import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ANYONE: frozenset[ApiRole] = frozenset()
"""For routes that say nothing of jobs: no token is asked for."""
READERS = frozenset(ApiRole)
SUBMITTERS = frozenset({ApiRole.ENGINEER})

ROUTES: Mapping[tuple[str, str], frozenset[ApiRole]] = {
    ("POST", "/v1/jobs"): SUBMITTERS,
    ("GET", "/v1/jobs"): READERS,
    ("GET", "/v1/jobs/{job_id}"): READERS,
    ("GET", "/v1/jobs/{job_id}/events"): READERS,
    ("GET", "/v1/jobs/{job_id}/results"): READERS,
    ("POST", "/v1/queries"): SUBMITTERS,
    ("POST", "/v1/queries/explain"): READERS,
    ("GET", "/v1/queries"): READERS,
    ("GET", "/v1/queries/{job_id}"): READERS,
    ("GET", "/v1/models"): READERS,
    ("GET", "/v1/models/{digest}"): READERS,
    ("GET", "/v1/models/{digest}/content"): READERS,
    ("GET", "/v1/health"): ANYONE,
}
"""Who may call what."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Credential(Wire):
    """What is known of a person's token: its SHA-256 and what it allows."""

    sha256: _Sha256
    role: ApiRole


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    person: PersonId
    role: ApiRole


_PEOPLE: TypeAdapter[dict[PersonId, Credential]] = TypeAdapter(dict[PersonId, Credential])


def token_hash(token: str) -> str:
    """Return what the tokens' file holds of `token`."""
    return hashlib.sha256(token.encode()).hexdigest()


def people_file(people: Mapping[PersonId, Credential]) -> bytes:
    """Return the tokens' file as TOML: a table for each person."""
    tables = (f'["{person}"]\nsha256 = "{c.sha256}"\nrole = "{c.role}"\n' for person, c in sorted(people.items()))
    return "\n".join(tables).encode()


def read_people(path: Path, officers: frozenset[PersonId] = frozenset()) -> dict[PersonId, Credential]:
    """Read the tokens' file.

    Raises:
        Fault: `CONFIGURATION`: it is missing, readable by others, malformed, or lets an officer submit jobs.
    """
    try:
        people = _PEOPLE.validate_python(_typed(tomllib.loads(read_secret(path).decode())))
    except (ValidationError, ValueError):
        raise Fault(
            Code.CONFIGURATION,
            f"The tokens' file {path} cannot be understood.",
            remedy='Each person has a table: ["name"] with sha256 = "..." and role = "engineer" or "viewer".',
        ) from None
    if two_hats := sorted(p for p, c in people.items() if c.role is ApiRole.ENGINEER and p in officers):
        raise Fault(
            Code.CONFIGURATION,
            f"The tokens' file {path} lets an officer submit jobs: {', '.join(two_hats)}.",
            why="Who approves releases never asks for them.",
            remedy="Make them a viewer.",
        )
    return people


def caller_of(token: str, people: Mapping[PersonId, Credential]) -> Caller:
    """Return who holds `token`. Every hash is compared, so that time says nothing.

    Raises:
        Refusal: `UNAUTHENTICATED`.
    """
    presented, found = token_hash(token), None
    for person, credential in people.items():
        if hmac.compare_digest(presented, credential.sha256):
            found = Caller(person, credential.role)
    if found is None or not token:
        raise Refusal(
            Code.UNAUTHENTICATED,
            "The request carries no token that is known here.",
            remedy="Send `Authorization: Bearer <token>` with your own token.",
        )
    return found


def admit(method: str, path: str, token: str, people: Mapping[PersonId, Credential]) -> Caller | None:
    """Return who calls a route, None where nobody is asked.

    Raises:
        Refusal: `UNAUTHENTICATED`; `FORBIDDEN` for a route that the caller's role does not have, or that no role has.
    """
    allowed = ROUTES.get((method, path))
    if allowed is ANYONE:
        return None
    caller = caller_of(token, people)
    if allowed is None or caller.role not in allowed:
        raise Refusal(
            Code.FORBIDDEN,
            "Your role does not allow this.",
            why=f"You are a {caller.role}.",
            remedy="An engineer's token is needed to submit jobs and to ask.",
        )
    return caller


def _typed(table: Mapping[str, object]) -> dict[Identifier, object]:
    """Give names and roles their types, which strict reading asks for."""
    return {PersonId(person): _with_role(entry) for person, entry in table.items()}


def _with_role(entry: object) -> object:
    return {**entry, "role": ApiRole(str(entry.get("role")))} if isinstance(entry, dict) else entry

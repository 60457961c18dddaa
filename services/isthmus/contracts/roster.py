"""Roster and genesis: who may do what, fixed in the first ledger entry of each border."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum, unique
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.contracts.identifiers import Digest, Name, OrganisationId, PersonId, SiteId
from isthmus.contracts.keys import HpkeKey, HybridKey
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.queries import PrivacyBudget
from isthmus.contracts.wire import Positive, SortedUnique, UnixSeconds, Wire


@unique
class PersonRole(StrEnum):
    """What a person does."""

    ENGINEER = "engineer"
    OFFICER = "officer"
    OPERATOR = "operator"
    AUDITOR = "auditor"


class Person(Wire):
    """A person, their organisation, roles and, for an officer, key."""

    id: PersonId
    organisation: OrganisationId
    roles: Annotated[tuple[PersonRole, ...], Field(min_length=1, max_length=4), SortedUnique]
    key: HybridKey | None

    @model_validator(mode="after")
    def _four_eyes(self) -> Self:
        officer = PersonRole.OFFICER in self.roles
        if officer and PersonRole.ENGINEER in self.roles:
            raise ValueError("an officer never submits jobs")
        if officer and self.key is None:
            raise ValueError("an officer signs, so needs a key")
        return self


class Site(Wire):
    """A site's pinned identity: keys, and the SHA-256 of the certificate its border shows."""

    id: SiteId
    jurisdiction: Name
    part: Literal["zone", "coordinator"]
    signing: HybridKey
    sealing: HpkeKey
    certificate: Digest


class Roster(Wire):
    """The sites and persons a border knows."""

    sites: Annotated[tuple[Site, ...], Field(min_length=2, max_length=16)]
    persons: Annotated[tuple[Person, ...], Field(max_length=256)]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        """One id, one holder; one key, one holder: a second name for the same key is a second vote."""
        ids: list[str] = [s.id for s in self.sites] + [f"person:{p.id}" for p in self.persons]
        keys: list[str] = [p.key.ed25519 for p in self.persons if p.key] + [s.signing.ed25519 for s in self.sites]
        keys += [p.key.mldsa65 for p in self.persons if p.key] + [s.signing.mldsa65 for s in self.sites]
        keys += [s.certificate for s in self.sites] + [s.sealing.mlkem768_x25519 for s in self.sites]
        if repeated := [v for v, n in (Counter(ids) + Counter(keys)).items() if n > 1]:
            raise ValueError(f"the roster names {len(repeated)} ids or keys twice")
        return self

    def site(self, site: SiteId) -> Site | None:
        """Return the site of this id, None where the roster has none."""
        return next((s for s in self.sites if s.id == site), None)

    def person(self, person: PersonId) -> Person | None:
        """Return the person of this id, None where the roster has none."""
        return next((p for p in self.persons if p.id == person), None)


class Quotas(Wire):
    """How much one peer may ask for."""

    open_orders_per_peer: Positive
    orders_per_peer: Positive
    information_bits_per_order: Positive
    information_bits_per_peer: Positive


class Genesis(Wire):
    """The first entry of a border's internal ledger: what everything after it is judged by.

    Attributes:
        version: of this type.
        site: whose genesis it is.
        roster: the sites and persons it knows.
        policy: digest of its rules and schema.
        algorithms: what an order may name.
        quotas: how much one peer may ask for.
        privacy: what all answers about its vehicles may cost together; None where it answers none.
        minimum_slot_s: the shortest slot of a question that it takes in, seconds; where not said, the longest there is.
        accelerators: classes of chips to which an order's keys may go; where not said, none.
        created_at: when it was made, Unix seconds.
    """

    version: Literal[1]
    site: SiteId
    roster: Roster
    policy: Digest
    algorithms: Annotated[tuple[Algorithm, ...], Field(max_length=64)]
    quotas: Quotas
    privacy: PrivacyBudget | None = None
    minimum_slot_s: Annotated[int, Field(strict=True, ge=1, le=3_600)] = 3_600
    accelerators: Annotated[tuple[Name, ...], Field(max_length=64), SortedUnique] = ()
    created_at: UnixSeconds


class RootSite(Wire):
    """One site as a verifier trusts it."""

    id: SiteId
    signing: HybridKey
    genesis: Digest


class Roots(Wire):
    """All that a verifier trusts: obtained from each site by another way than the bundle."""

    version: Literal[1]
    sites: Annotated[tuple[RootSite, ...], Field(min_length=1, max_length=16)]

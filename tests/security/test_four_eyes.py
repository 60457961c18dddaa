"""Four eyes for every roster: whoever holds which roles, a release needs two officers of two organisations."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isthmus.border.keeper import approvals
from isthmus.border.keeper.policy import Hold, Policy, Refuse, Release
from isthmus.contracts.approvals import APPROVAL_TYPE, Approval
from isthmus.contracts.crossings import Check, Kind, Manifest, SealedPayload
from isthmus.contracts.errors import Refusal
from isthmus.contracts.facts import Action, Facts
from isthmus.contracts.identifiers import CrossingId, Digest, Name, OrderId, OrganisationId, PersonId, SiteId
from isthmus.contracts.roster import Person, PersonRole, Roster, Site
from isthmus.proof import canonical
from isthmus.proof.sealing import SealingKey
from isthmus.proof.signing import SigningKey
from security.scene import CN, HQ, JOB, NOW, PURPOSE, order_for

KEYS = [SigningKey.generate() for _ in range(4)]
SITE_KEYS = [(SigningKey.generate().verify_key, SealingKey.generate().public) for _ in range(2)]
SITES = tuple(
    Site(
        id=SiteId(name),
        jurisdiction=Name("cn"),
        part="zone" if name == CN else "coordinator",
        signing=signing,
        sealing=sealing,
        certificate=Digest.of(name.encode()),
    )
    for name, (signing, sealing) in zip((HQ, CN), SITE_KEYS, strict=True)
)
PACKS = files("isthmus.border") / "packs"
POLICY = Policy(
    "\n".join(p.read_text("utf-8") for p in PACKS.iterdir() if p.name.endswith(".cedar")),
    "\n".join(p.read_text("utf-8") for p in PACKS.iterdir() if p.name.endswith(".cedarschema")),
)
CROSSING = CrossingId.of(b"crossing")
MANIFEST = Manifest(
    version=1,
    crossing=CROSSING,
    kind=Kind.MODEL_UPDATE,
    sender=CN,
    recipient=HQ,
    sequence=1,
    job=JOB,
    order=OrderId.of(b"order"),
    slot=0,
    purpose=PURPOSE,
    lineage=(CN,),
    recipients=(CN, HQ),
    payload=SealedPayload(digest=Digest.of(b"sealed"), size=100, wrapped_key="QUJD"),
    plaintext=None,
    inputs=(),
    contributors=None,
    commitments=(),
    policy=POLICY.digest,
    checks=(),
    privacy=(),
    approvals=(),
    information_bits=800,
    issued_at=NOW,
    expires_at=NOW + 1000,
)
APPROVAL = canonical.dump(approvals.single_for(MANIFEST))
SIGNED = [key.sign(APPROVAL_TYPE, APPROVAL) for key in KEYS]
FACTS = Facts(
    action=Action.RELEASE,
    kind=Kind.MODEL_UPDATE,
    sender=CN,
    recipient=HQ,
    purpose=PURPOSE,
    order_purpose=PURPOSE,
    lineage=frozenset({CN}),
    recipients=frozenset({CN, HQ}),
    named=frozenset({CN, HQ}),
    order_known=True,
    checks=frozenset(Check),
    vehicles=20,
    minimum_vehicles=10,
    bits=800,
    bits_left=800,
)

roles = st.sets(st.sampled_from(PersonRole), min_size=1, max_size=4).map(lambda found: tuple(sorted(found)))
persons = st.lists(st.tuples(roles, st.sampled_from(["maker", "partner", "auditors"])), min_size=1, max_size=4)


def roster_of(people: list[tuple[tuple[PersonRole, ...], str]]) -> Roster:
    return Roster(
        sites=SITES,
        persons=tuple(
            Person(
                id=PersonId(f"person.{number}"),
                organisation=OrganisationId(organisation),
                roles=held,
                key=KEYS[number].verify_key,
            )
            for number, (held, organisation) in enumerate(people)
        ),
    )


def given_by(envelope: bytes, roster: Roster) -> approvals.Given | None:
    """Take an approval as the border does; None where it is refused."""
    try:
        person, payload_type, payload = approvals.signer(envelope, roster)
    except Refusal:
        return None
    body = approvals.statement(payload_type, payload)
    assert isinstance(body, Approval)
    return approvals.Given(canonical.digest(body), person.id, person.organisation, body)


@settings(deadline=None, max_examples=150)
@given(people=persons, signers=st.sets(st.integers(0, 3), max_size=4))
def test_a_release_passes_exactly_when_two_organisations_officers_signed(
    people: list[tuple[tuple[PersonRole, ...], str]], signers: set[int]
) -> None:
    both = any({PersonRole.OFFICER, PersonRole.ENGINEER} <= set(held) for held, _ in people)
    if both:
        with pytest.raises(ValidationError):
            roster_of(people)
        return
    roster = roster_of(people)
    taken = [found for number in signers if (found := given_by(SIGNED[number], roster))]
    covering = approvals.covering(taken, roster, MANIFEST, order_for(CN), 0, NOW)
    counted = {g.organisation for g in covering}
    officers = {(n, org) for n, (held, org) in enumerate(people) if n in signers and PersonRole.OFFICER in held}
    assert counted == {org for _, org in officers}
    decision = POLICY.decide(dataclasses.replace(FACTS, approving_organisations=len(counted)), CROSSING)
    two = any(a[1] != b[1] for a, b in combinations(officers, 2))
    assert isinstance(decision, Release if two else Hold)


@settings(deadline=None, max_examples=60)
@given(people=persons, signers=st.sets(st.integers(0, 3), min_size=1, max_size=4), gone=st.integers(0, 3))
def test_an_approval_ends_with_its_officers_office(
    people: list[tuple[tuple[PersonRole, ...], str]], signers: set[int], gone: int
) -> None:
    """Given while in office and judged when no longer so, or when working for somebody else: it does not count."""
    people = [(tuple(r for r in held if r is not PersonRole.ENGINEER) or held, house) for held, house in people]
    gone %= len(people)
    before = roster_of(people)
    taken = [found for number in signers if (found := given_by(SIGNED[number], before))]
    for changed in ((PersonRole.AUDITOR,), people[gone][1]), (people[gone][0], "elsewhere"):
        after = roster_of([*people[:gone], changed, *people[gone + 1 :]])
        covering = approvals.covering(taken, after, MANIFEST, order_for(CN), 0, NOW)
        assert PersonId(f"person.{gone}") not in {g.person for g in covering}


def test_one_key_under_two_names_is_no_roster() -> None:
    """A second name for a key would be a second vote."""
    officer = (PersonRole.OFFICER,)
    one = Person(id=PersonId("a.one"), organisation=OrganisationId("maker"), roles=officer, key=KEYS[0].verify_key)
    for other in ({"id": PersonId("b.two")}, {"organisation": OrganisationId("partner")}, {"key": KEYS[1].verify_key}):
        twin = one.model_copy(update={"organisation": OrganisationId("partner"), **other})
        with pytest.raises(ValidationError):
            Roster(sites=SITES, persons=(one, twin))
    site_key = one.model_copy(update={"key": SITES[1].signing})
    with pytest.raises(ValidationError):
        Roster(sites=SITES, persons=(site_key,))


@pytest.mark.parametrize("organisations", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", [Kind.MODEL_UPDATE, Kind.AGGREGATE, Kind.EXTRACT])
def test_no_release_passes_with_fewer_than_two(kind: Kind, organisations: int) -> None:
    decision = POLICY.decide(dataclasses.replace(FACTS, kind=kind, approving_organisations=organisations), CROSSING)
    if kind is Kind.EXTRACT:
        assert isinstance(decision, Refuse)
    else:
        assert isinstance(decision, Release if organisations >= 2 else Hold)

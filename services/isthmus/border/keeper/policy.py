"""Policy: facts in, one decision out. Cedar decides; nothing is permitted by default.

A decision is an outcome, every rule that mattered, and what would change it. A permit whose `@needs` is all that is
missing makes a `Hold`; a forbid's `@code` is the code of the refusal. An error while deciding refuses.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cedarpy

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from isthmus.contracts.facts import Facts
    from isthmus.contracts.identifiers import CrossingId

APPROVAL_NEED = "approval:two-organisations"

NEEDS: Mapping[str, dict[str, Any]] = {APPROVAL_NEED: {"approving_organisations": 2}}
"""What a rule can say it needs, and the fact that would be true if it were there."""


@dataclass(frozen=True, slots=True)
class Release:
    """It may pass."""

    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """It may pass once what it needs is there."""

    rules: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """It may not pass."""

    rules: tuple[str, ...]
    code: Code


Decision = Release | Hold | Refuse


class Policy:
    """A set of rules with a schema, parsed once.

    Raises:
        Fault: a text does not parse, a rule does not fit the schema, or a rule lacks an annotation.
    """

    def __init__(self, rules: str, schema: str) -> None:
        self.digest = Digest.of(schema.encode() + b"\x00" + rules.encode())
        try:
            checked = cedarpy.validate_policies(rules, schema)
            parsed = cedarpy.policies_to_pst(rules).static_policies
            self._rules = cedarpy.PolicySet.from_str(rules)
            self._schema = cedarpy.Schema.from_str(schema)
        except ValueError as error:
            raise _unusable("its text does not parse") from error
        if not checked.validation_passed:
            raise _unusable("; ".join(str(problem.error) for problem in checked.errors))
        self._annotations: dict[str, dict[str, str]] = {key: dict(policy.annotations) for key, policy in parsed.items()}
        for noted in self._annotations.values():
            if not {"id", "cite", "status"} <= noted.keys():
                raise _unusable("a rule lacks @id, @cite or @status")
            if (need := noted.get("needs")) is not None and need not in NEEDS:
                raise _unusable(f"a rule needs {need}, which nothing can bring")
            if "code" in noted and noted["code"] not in set(Code):
                raise _unusable(f"a rule refuses with {noted['code']}, which is no code")

    @classmethod
    def load(cls, directory: Path) -> Policy:
        """Read the packs of a directory.

        Raises:
            Fault: there is none, or it cannot be used.
        """
        try:
            rules = "\n".join(path.read_text("utf-8") for path in sorted(directory.glob("*.cedar")))
            schema = "\n".join(path.read_text("utf-8") for path in sorted(directory.glob("*.cedarschema")))
        except OSError as error:
            raise _unusable(error.strerror or "") from error
        if not rules.strip():
            raise _unusable(f"{directory} holds no rules")
        return cls(rules, schema)

    def decide(self, facts: Facts, crossing: CrossingId) -> Decision:
        """Return what policy says of `crossing`, given `facts`; of rules that forbid, the first by id says why."""
        allowed, rules = self._ask(facts, crossing)
        if allowed:
            return Release(tuple(self._named(rules)))
        if any(self._annotations[rule].get("code") for rule in rules):
            code = next(Code(c) for rule in rules if (c := self._annotations[rule].get("code")))
            return Refuse(tuple(self._named(rules)), code)
        for need, facts_with_it in NEEDS.items():
            would, rules_then = self._ask(dataclasses.replace(facts, **facts_with_it), crossing)
            if would:
                return Hold(tuple(self._named(rules_then)), (need,))
        return Refuse(tuple(self._named(rules)), Code.POLICY_DENIED)

    def _ask(self, facts: Facts, crossing: CrossingId) -> tuple[bool, list[str]]:
        context = {f.name: _plain(getattr(facts, f.name)) for f in dataclasses.fields(facts) if f.name != "action"}
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Isthmus::Site", "id": str(facts.sender)},
                "action": {"type": "Isthmus::Action", "id": facts.action.value},
                "resource": {"type": "Isthmus::Crossing", "id": str(crossing)},
                "context": context,
            },
            self._rules,
            [],
            self._schema,
        )
        if result.diagnostics.errors:
            raise Fault(Code.POLICY_UNAVAILABLE, "Policy could not decide.", why=str(result.diagnostics.errors[0]))
        return result.allowed, sorted(result.diagnostics.reasons, key=lambda rule: self._annotations[rule]["id"])

    def _named(self, rules: list[str]) -> list[str]:
        return [self._annotations[rule]["id"] for rule in rules]


def _plain(value: Any) -> Any:
    """Return a fact as Cedar's JSON."""
    if isinstance(value, frozenset):
        return sorted(str(item) for item in value)
    if isinstance(value, bool | int):
        return value
    return str(value)


def _unusable(why: str) -> Fault:
    return Fault(Code.POLICY_UNAVAILABLE, "The policy cannot be used.", why=why, remedy="Nothing passes until it can.")

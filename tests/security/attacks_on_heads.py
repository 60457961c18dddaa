"""An attack on every rule about checkpoints, cosigned heads and witnesses, by someone who holds every key."""

from __future__ import annotations

from typing import Any

from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.ledger import Log
from isthmus.proof import canonical, checkpoint
from security.attacks_on_ledgers import OUTSIDER
from world.forge import Forge, note, root
from world.pair import CN, HQ, US

F = FindingCode


def with_view(forge: Forge, site: SiteId, log: Log, **update: object) -> dict[str, bytes]:
    one = forge.evidence()[site]
    views = tuple(v.model_copy(update=update) if v.log is log else v for v in one.logs)
    return forge.build() | {f"{site}.json": canonical.dump(one.model_copy(update={"logs": views}))}


def checkpoint_of_an_outsider(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.CROSSINGS, forge.leaves(CN, Log.CROSSINGS), OUTSIDER)
    return with_view(forge, CN, Log.CROSSINGS, checkpoint=signed)


def checkpoint_of_another_log(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.CROSSINGS), forge.keys[CN])
    return with_view(forge, CN, Log.CROSSINGS, checkpoint=signed)


def stated_root_of_another_log(forge: Forge) -> dict[str, bytes]:
    return with_view(forge, CN, Log.INTERNAL, root=root(forge.leaves(CN, Log.CROSSINGS)))


def cosigned_by_an_outsider(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    forged = checkpoint.cosign(signed, f"isthmus/{HQ}/internal", OUTSIDER, 1_800_000_100)
    return with_view(forge, CN, Log.INTERNAL, cosigned=(forged,))


def cosigned_by_itself(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    return with_view(forge, CN, Log.INTERNAL, cosigned=(forge.cosign(signed, CN, Log.INTERNAL),))


def forked(forge: Forge) -> dict[str, bytes]:
    leaves = forge.leaves(CN, Log.INTERNAL)
    other = note(CN, Log.INTERNAL, [*leaves[:-1], leaves[1]], forge.keys[CN])
    return with_view(forge, CN, Log.INTERNAL, cosigned=(forge.cosign(other, HQ, Log.INTERNAL),))


def rolled_back(forge: Forge) -> dict[str, bytes]:
    newest = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    forge.drop(CN, -1)
    return with_view(forge, CN, Log.INTERNAL, cosigned=(forge.cosign(newest, HQ, Log.INTERNAL),))


def with_witnessed(forge: Forge, site: SiteId, *notes: str) -> dict[str, bytes]:
    one = forge.evidence()[site].model_copy(update={"witnessed": notes})
    return forge.build() | {f"{site}.json": canonical.dump(one)}


def witnessed_forked(forge: Forge) -> dict[str, bytes]:
    """The site shows no note of its own, so that its peer's alone gives it away."""
    leaves = forge.leaves(CN, Log.INTERNAL)
    other = note(CN, Log.INTERNAL, [*leaves[:-1], leaves[1]], forge.keys[CN])
    forge.uncosigned.add((CN, Log.INTERNAL))
    return with_witnessed(forge, HQ, forge.cosign(other, HQ, Log.INTERNAL))


def witnessed_rolled_back(forge: Forge) -> dict[str, bytes]:
    newest = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    forge.drop(CN, -1)
    forge.uncosigned.add((CN, Log.INTERNAL))
    return with_witnessed(forge, HQ, forge.cosign(newest, HQ, Log.INTERNAL))


def coordinator_forked_before_a_zone(forge: Forge) -> dict[str, bytes]:
    leaves = forge.leaves(HQ, Log.CROSSINGS)
    other = note(HQ, Log.CROSSINGS, [*leaves[:-1], leaves[0]], forge.keys[HQ])
    return with_witnessed(forge, US, forge.cosign(other, US, Log.CROSSINGS))


def witnessed_by_an_outsider(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    return with_witnessed(forge, HQ, checkpoint.cosign(signed, f"isthmus/{HQ}/internal", OUTSIDER, 1_800_000_100))


def witnessed_of_an_outsiders_log(forge: Forge) -> dict[str, bytes]:
    signed = note(SiteId("eu-berlin"), Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), OUTSIDER)
    return with_witnessed(forge, HQ, forge.cosign(signed, HQ, Log.INTERNAL))


def witnessed_of_itself(forge: Forge) -> dict[str, bytes]:
    signed = note(HQ, Log.INTERNAL, forge.leaves(HQ, Log.INTERNAL), forge.keys[HQ])
    return with_witnessed(forge, HQ, forge.cosign(signed, HQ, Log.INTERNAL))


def witness_is_silent(forge: Forge) -> None:
    forge.unwitnessed.add((CN, Log.INTERNAL))


def witness_shows_an_older_head(forge: Forge) -> dict[str, bytes]:
    older = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN], 3)
    return with_witnessed(forge, HQ, forge.cosign(older, HQ, Log.INTERNAL))


def never_cosigned(forge: Forge) -> None:
    forge.uncosigned.add((CN, Log.INTERNAL))


def coordinator_never_cosigned(forge: Forge) -> None:
    forge.uncosigned.add((HQ, Log.INTERNAL))


RULES: list[tuple[FindingCode, Any]] = [
    (F.CHECKPOINT_INVALID, checkpoint_of_an_outsider),
    (F.CHECKPOINT_INVALID, checkpoint_of_another_log),
    (F.LOG_ALTERED, stated_root_of_another_log),
    (F.COSIGNATURE_INVALID, cosigned_by_an_outsider),
    (F.COSIGNATURE_INVALID, cosigned_by_itself),
    (F.LOG_FORKED, forked),
    (F.LOG_ROLLED_BACK, rolled_back),
    (F.COSIGNATURE_INVALID, witnessed_by_an_outsider),
    (F.COSIGNATURE_INVALID, witnessed_of_an_outsiders_log),
    (F.COSIGNATURE_INVALID, witnessed_of_itself),
    (F.LOG_FORKED, witnessed_forked),
    (F.LOG_FORKED, coordinator_forked_before_a_zone),
    (F.LOG_ROLLED_BACK, witnessed_rolled_back),
    (F.WITNESS_MISSING, witness_is_silent),
    (F.WITNESS_MISSING, witness_shows_an_older_head),
    (F.NEVER_COSIGNED, never_cosigned),
    (F.NEVER_COSIGNED, coordinator_never_cosigned),
]

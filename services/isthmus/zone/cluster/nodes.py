"""Which nodes of a cluster may work: those whose accelerator class the zone allows. Pure.

Chips that are allowed in one jurisdiction are not in another, so a node says what it is by a label that whoever starts
it sets (`accelerator-class`). A node without the label is of no allowed class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

ACCELERATOR_LABEL = "accelerator-class"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive.

    Attributes:
        id: Ray's id of it.
        accelerator: its class, None where it does not say.
        cpus: how many processors it offers; none on a head that only coordinates.
    """

    id: str
    accelerator: str | None
    cpus: int


def classes_of(nodes: Iterable[Node]) -> tuple[Name, ...]:
    """Return the accelerator classes of permitted nodes, sorted, each once: what the border is told.

    >>> classes_of([Node("b", "h20", 1), Node("a", "cpu", 1), Node("c", "h20", 1)])
    ('cpu', 'h20')
    """
    return tuple(sorted({Name(node.accelerator) for node in nodes if node.accelerator is not None}))


def nodes_of(listing: Iterable[Mapping[str, Any]]) -> tuple[Node, ...]:
    """Return the nodes that are alive, by id, from what `ray.nodes()` tells."""
    alive = (entry for entry in listing if entry.get("Alive"))
    found = (
        Node(
            id=str(entry["NodeID"]),
            accelerator=(entry.get("Labels") or {}).get(ACCELERATOR_LABEL),
            cpus=int((entry.get("Resources") or {}).get("CPU", 0)),
        )
        for entry in alive
    )
    return tuple(sorted(found, key=lambda node: node.id))


def permitted(nodes: Iterable[Node], allowed: Collection[str]) -> tuple[Node, ...]:
    """Return the nodes that have processors and are of a class in `allowed`.

    Raises:
        Refusal: `POLICY_DENIED` when there are nodes with processors, and none is of an allowed class. Which classes
            were seen stands in `why`; an empty result means that no node has a processor yet.
    """
    working = [node for node in nodes if node.cpus > 0]
    fit = tuple(node for node in working if node.accelerator in allowed)
    if working and not fit:
        seen = ", ".join(sorted({node.accelerator or "no class" for node in working}))
        raise Refusal(
            Code.POLICY_DENIED,
            "No node of the cluster is of an accelerator class that this zone allows.",
            why=f"Allowed: {', '.join(sorted(allowed)) or 'none'}. Seen: {seen}.",
            remedy="Start a worker of an allowed class, or have the setting allowed_accelerators changed.",
        )
    return fit

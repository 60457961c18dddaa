"""From exact sums to an answer under differential privacy.

Rules:
1. Noise first: everything after it looks at noised numbers and public bounds alone.
2. A cell is suppressed unless its noised size (vehicles where they are asked for, else rows) is above `SMALLEST` by
   more than noise explains. This is for the reader, who would get noise; privacy does not lean on it, and since it is
   decided on a noised number that the answer pays for anyway, it tells nothing more.
3. Nothing here raises on data: only sums of another shape than the question's are refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import Answer, CellAnswer, primitives
from isthmus.privacy import noise
from isthmus.privacy.estimates import Estimated, estimate, exact
from isthmus.privacy.mechanism import noise_of

if TYPE_CHECKING:
    from isthmus.contracts.queries import Partials, QueryPlan, QuerySpec
    from isthmus.privacy.blocks import Measured
    from isthmus.privacy.mechanism import NoisePlan

SMALLEST = 10
"""Fewest vehicles, or rows, of a cell that is told."""
DOUBT = 1.645
"""Standard deviations: a cell of `SMALLEST` is told one time in twenty."""
LIMIT = 1 << 60
"""Numbers are cut here before noise: beyond anything that canonical bytes hold, so that no sum overflows."""


def release(plan: QueryPlan, partials: Partials) -> Answer:
    """Return a noised answer; it costs what `mechanism.curve_of` says.

    Args:
        plan: how the question is answered, under `dp`.
        partials: its exact sums, bounded per vehicle as the question says.

    Raises:
        Refusal: SCHEMA_MISMATCH, when the sums have not the question's cells and primitives.
    """
    spec = plan.spec
    require_shape(spec, partials)
    made = noise_of(plan)
    columns = [_noised(made, one, spec, partials) for one in made.measured]
    cells = []
    for index in range(len(partials.cells)):
        found = estimate(
            spec,
            made.measured,
            [
                n[index * m.block.width : (index + 1) * m.block.width]
                for m, n in zip(made.measured, columns, strict=True)
            ],
        )
        small = _small(found, made)
        cells.append(CellAnswer(suppressed=small, values=() if small else found.values))
    return Answer(
        version=1,
        question=partials.question,
        mode=plan.mode,
        noise=made.told,
        cells=tuple(cells),
        repeated=False,
        epsilon_micro=plan.epsilon_micro,
        delta_exponent=plan.delta_exponent,
    )


def require_shape(spec: QuerySpec, partials: Partials) -> None:
    """Hold sums to a question's cells and primitives.

    Raises:
        Refusal: SCHEMA_MISMATCH.
    """
    widths = [p.width for p in primitives(spec)]
    cells = partials.cells
    if len(cells) != spec.domain_size() or any([len(v) for v in c.values] != widths for c in cells):
        raise Refusal(Code.SCHEMA_MISMATCH, "The sums are not those of the question's cells and primitives.")


def _noised(made: NoisePlan, one: Measured, spec: QuerySpec, partials: Partials) -> list[int]:
    """Return a block's numbers in all cells, noised in one draw."""
    numbers = [n for cell in partials.cells for n in exact(one.block, spec, cell)]
    return noise.add([max(-LIMIT, min(LIMIT, n)) for n in numbers], made.mechanism, one.scale_micro)


def _small(found: Estimated, made: NoisePlan) -> bool:
    deviation = math.sqrt(found.size_power * (2 if made.mechanism == "discrete_laplace" else 1))
    return found.size < SMALLEST + DOUBT * deviation

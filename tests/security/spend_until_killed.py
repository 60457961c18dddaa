"""A border that is given fifty orders at once, in a process of its own, to be killed in the middle.

Every seventh is for a private training, the others ask questions.

It prints one line for each thing it has done. Run it as `spend_until_killed.py <home>`.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.inside import CloseOrder
from isthmus.kit.clock import ManualClock
from isthmus.proof.ids import order_id
from security import asking
from security import private_training as training
from security.scene import CN, HQ, NOW, Scene

ASKED = 50
EPSILON_MICRO = 300_000
TRAINING_MICRO = 200_000
ROUNDS = 4


def order(number: int) -> asking.Order:
    """Return the `number`th order: its question is its own, so that nothing is a repeat."""
    if number % 7 == 0:
        return training.private_order(number, rounds=ROUNDS, epsilon_micro=TRAINING_MICRO, expires_at=NOW + 3600)
    return asking.asking(
        number, asking.plan(asking.spec(asking.VEHICLES), epsilon_micro=EPSILON_MICRO + number), expires_at=NOW + 3600
    )


def spend(scene: Scene, number: int) -> None:
    """Hand sums in for one order that was accepted, close every third one after and every fifth before that, and let
    what is due out."""
    asked = order(number)
    keeper = scene.keeper(CN)
    try:
        if number % 5 == 0:  # no data was touched: it comes back
            keeper.close_order(CloseOrder(order=order_id(asked), code=Code.COMPUTE_FAILED))
        if asked.query is None:
            training.take_keys(scene, asked)
            for slot in range(number % ROUNDS + 1):
                training.hand_in(scene, asked, slot)
                print("round", slot, flush=True)
        else:
            asking.hand_in(scene, asked)
        if number % 3 == 0:
            keeper.close_order(CloseOrder(order=order_id(asked), code=Code.COMPUTE_FAILED))
        keeper.statistics.release_due()
    except Refusal as refusal:
        if refusal.code not in {Code.ORDER_UNKNOWN, Code.ORDER_CLOSED, Code.EXPIRED}:
            raise
    print("spent", number, flush=True)


def main(home: Path) -> None:
    """Ask all, carry, and spend from as many threads."""
    clock = ManualClock(NOW)
    scene = Scene(home, clock)
    for site in (HQ, CN):
        scene.border(site)  # before there are threads: two would each make one
    for number in range(1, ASKED + 1):
        scene.give(order(number))
    while (crossing := scene.keeper(HQ).next_for(CN)) is not None:
        pieces = list(scene.keeper(HQ).blob(CN, crossing.payload)[1])
        receipt = scene.keeper(CN).inbound.receive(HQ, crossing.envelope, pieces)
        scene.keeper(HQ).receipted(CN, receipt)
        print("carried", crossing.sequence, flush=True)
    clock.advance(asking.SLOT_S)
    with ThreadPoolExecutor(ASKED) as pool:
        list(pool.map(lambda number: spend(scene, number), range(1, ASKED + 1)))
    clock.advance(asking.SLOT_S)
    scene.keeper(CN).statistics.release_due()
    scene.carry()
    scene.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

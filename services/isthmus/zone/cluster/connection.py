"""The way from the zone's process to its cluster: Ray's client protocol, with the cluster's token.

Rules:
1. The token is in a file that only its owner reads; Ray is told the path. Without a token nothing is asked.
2. Whatever goes wrong on the way is `RunLost`. The head's end never ends the zone's process, as it ends one that has
   joined the cluster: therefore the client protocol, and not a node beside the zone.
3. Nothing of the cluster's logs is brought here, and nothing is told to Ray's makers.

A process has one connection. Every call blocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from isthmus.kit.tokens import read_token
from isthmus.zone.cluster.nodes import nodes_of, permitted
from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from isthmus.zone.cluster.nodes import Node

Started = TypeVar("Started")

PAUSE_S = 0.5
QUIET = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "5",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
"""Ray's environment, set before Ray is loaded. Its client tries three times, with these pauses; who waits longer for a
head is `Connection`. gRPC's fork handlers end a head that starts a process for a client."""

_ONE_AT_A_TIME = threading.RLock()


class Connection:
    """The cluster at one address, connected when it is first needed, and again after it was away."""

    def __init__(self, address: str, token: Path, within_s: float) -> None:
        """Take the address of the head's client port, `host:port`.

        Args:
            address: where the head takes clients.
            token: the cluster's token file.
            within_s: how long to wait for a head that is away.
        """
        self._address = address
        self._token = token
        self._within_s = within_s

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that are alive, connecting where that is needed.

        Raises:
            Fault: `CONFIGURATION`: there is no token.
            RunLost: the head does not answer in time, or does not take the token.
        """
        read_token(self._token)
        deadline = time.monotonic() + self._within_s
        with _ONE_AT_A_TIME:
            while True:
                self._await_port(deadline)
                try:
                    return nodes_of(self._ray().nodes())
                except Exception as error:  # noqa: BLE001 - Ray's client raises of many types; each means the same
                    self.close()
                    if time.monotonic() > deadline:
                        raise self._unusable(type(error).__name__) from None
                time.sleep(PAUSE_S)

    def working(self, allowed: Iterable[str]) -> tuple[Node, ...]:
        """Return the permitted nodes that offer a processor, waiting for the first: a worker may just be started again.

        Raises:
            Fault, Refusal: as `nodes` and `permitted`.
            RunLost: there is none in time.
        """
        classes = tuple(allowed)
        deadline = time.monotonic() + self._within_s
        while not (found := permitted(self.nodes(), classes)):
            if time.monotonic() > deadline:
                remedy = "Start a worker: `isthmus ray worker`."
                raise RunLost("The cluster has no node with a processor.", remedy=remedy)
            time.sleep(PAUSE_S)
        return found

    def placed(self, allowed: Iterable[str], start: Callable[[Sequence[Node]], Started]) -> Started:
        """Return what `start` makes on the permitted nodes; on those of a moment later where one of them was gone.

        For some seconds a head takes a node that has ended to be alive. What is only started has been given nothing
        yet, so nothing is lost with it, and no run has begun.

        Raises:
            Fault, Refusal, RunLost: as `working`, or as `start` when the time is over.
        """
        classes = tuple(allowed)
        deadline = time.monotonic() + self._within_s
        while True:
            nodes = self.working(classes)
            try:
                return start(nodes)
            except RunLost:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_S)

    def start(self, of: type, node: Node, argument: str, gpus: float) -> Any:
        """Start an actor on a node and return its handle. It is not started again where it dies."""
        with self.reaching():
            ray = self._ray()
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 - as in `_ray`

            placed = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
            actor = ray.remote(of).options(
                num_cpus=0, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy=placed
            )
            return actor.remote(argument)

    def answers(self, references: Iterable[Any], within_s: float | None = None) -> list[Any]:
        """Return what was asked for, waiting for as long as it takes where `within_s` is None.

        Raises:
            RunLost: an actor or the head is gone, or the time is over.
        """
        with self.reaching():
            return list(self._ray().get(list(references), timeout=within_s))

    def end(self, actors: Iterable[Any]) -> None:
        """End actors' processes, and their memory with them. One that cannot be reached ends with the connection."""
        with contextlib.suppress(Exception):
            for actor in actors:
                self._ray().kill(actor, no_restart=True)

    def close(self) -> None:
        """Hang up: the head then ends all actors that were started over this connection."""
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._loaded().shutdown()

    @contextlib.contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn whatever goes wrong on the way to the cluster into `RunLost`."""
        try:
            yield
        except RunLost:
            raise
        except Exception as error:
            raise RunLost("The run is gone from the cluster.", why=type(error).__name__) from error

    def _ray(self) -> Any:
        """Return ray, connected."""
        ray = self._loaded()
        if not ray.is_initialized():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(f"ray://{self._address}", log_to_driver=False, logging_level="CRITICAL")
        return ray

    def _loaded(self) -> Any:
        """Return ray, loaded with its environment."""
        os.environ.update(QUIET, RAY_AUTH_TOKEN_PATH=str(self._token))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray  # noqa: PLC0415 - a zone without a cluster does not have it
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what goes wrong is told once, by `RunLost`
        return ray

    def _await_port(self, deadline: float) -> None:
        host, _, port = self._address.rpartition(":")
        while True:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self._unusable(error.strerror or type(error).__name__) from None
            else:
                return
            time.sleep(PAUSE_S)

    def _unusable(self, why: str) -> RunLost:
        remedy = "Start its head with `isthmus ray head`, and see that both have the same token."
        return RunLost(f"The cluster at {self._address} does not answer, or not to this token.", why=why, remedy=remedy)

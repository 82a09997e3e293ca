"""A Ray cluster on this machine, each node with one processor."""

import os
from types import TracebackType
from typing import Any, Self

import psutil

NICENESS = "RAY_worker_niceness"


class RayNodes:
    """Two nodes at first. In a `with` block."""

    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}
        self.address = ""
        """As HEARTH_RAY_ADDRESS takes it."""

    def __enter__(self) -> Self:
        from ray.cluster_utils import Cluster

        self._niceness = os.environ.get(NICENESS)
        os.environ[NICENESS] = "0"  # the nodes share this machine with the tests
        self._cluster = Cluster()
        for _ in range(2):
            self.add()
        self.address = str(self._cluster.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()
        os.environ.pop(NICENESS)
        if self._niceness is not None:
            os.environ[NICENESS] = self._niceness

    def add(self) -> str:
        """Add a node. Returns its id."""
        node = self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def ids(self) -> list[str]:
        """The ids of all nodes."""
        return list(self._nodes)

    def of(self, pid: int) -> str:
        """The id of the node that a process runs on: below its raylet."""
        above = {one.pid for one in psutil.Process(pid).parents()}
        return next(name for name, node in self._nodes.items() if _raylet(node) in above)

    def kill(self, node: str) -> None:
        """Kill a node's processes."""
        self._cluster.remove_node(self._nodes.pop(node), allow_graceful=False)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)

"""A Ray cluster on loopback: real node processes of Ray, all on this machine."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.pipeline.executor.ray_cluster import load_ray

ROOT = Path(__file__).parents[2]
_WAIT_S = 60.0


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that is there. nodes: Those that make parts; the head has no core, so that no actor dies with it."""

    address: str
    cluster: Any
    nodes: list[Any]

    def kill(self, count: int) -> None:
        """End nodes as a power cut does."""
        for _ in range(count):
            self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@contextlib.contextmanager
def local_cluster(nodes: int, cores_each: int) -> Iterator[LocalCluster]:
    """Start nodes, and end them; this process does not connect to them."""
    load_ray()
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [cluster.add_node(num_cpus=cores_each, wait=False) for _ in range(nodes)]
        _wait(cluster, nodes + 1)
        yield LocalCluster(cluster.address, cluster, workers)
    finally:
        cluster.shutdown()


def _wait(cluster: Any, nodes: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while sum(node["Alive"] for node in cluster.global_state.node_table()) < nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{nodes} nodes of Ray did not start in {_WAIT_S:.0f} s")
        time.sleep(0.1)

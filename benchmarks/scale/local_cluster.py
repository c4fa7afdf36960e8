"""A Ray cluster on loopback: real node processes of Ray, all on this machine."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mribatch.pipeline.executor.ray_cluster import load_ray

ROOT = Path(__file__).parents[2]
_TRIES = 2
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "100"}


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
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with patch.dict(os.environ, {"PYTHONPATH": paths} | _SETTINGS):
        found = _start(nodes, cores_each)
        try:
            yield found
        finally:
            found.cluster.shutdown()


def _start(nodes: int, cores_each: int) -> LocalCluster:
    """Ray gives a node 30 s to start, which is little on a busy machine: it is tried again."""
    load_ray()
    from ray.cluster_utils import Cluster

    for left in reversed(range(_TRIES)):
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=0, include_dashboard=False)
            return LocalCluster(cluster.address, cluster, [cluster.add_node(num_cpus=cores_each) for _ in range(nodes)])
        except Exception as error:  # Ray raises Exception itself
            cluster.shutdown()
            if not left:
                raise
            print(f"the cluster is started again: {error}", file=sys.stderr)
    raise AssertionError("the last try returns or raises")

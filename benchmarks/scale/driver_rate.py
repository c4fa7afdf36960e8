"""How fast the driver hands out parts: its own code and Ray, with actors that make nothing and answer at once."""

import time
from pathlib import Path

from benchmarks.scale.local_cluster import LocalCluster
from mribatch.core.about import __version__
from mribatch.core.agreement import Agreement
from mribatch.pipeline.executor.events import Told
from mribatch.pipeline.executor.hosts import inspect_host
from mribatch.pipeline.executor.messages import PartMade, PartsOrder, Ready, Rows, message_bytes
from mribatch.pipeline.executor.ray_actors import RayActors
from mribatch.pipeline.executor.ray_cluster import RayCluster
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.output.layout import PART_ROWS, PartLayout
from mribatch.pipeline.records import Choice, RunsWith
from mribatch.pipeline.stopwatch import INFERENCE
from mribatch.pipeline.work_rates import WorkWatch

_BATCH = 64
_BACKEND, _DECODER, _PRECISION = Choice("onnxruntime", "-"), Choice("opencv", "-"), Choice("fp32", "-")
_RUNS_WITH = RunsWith(
    backend=_BACKEND, backend_version="-", precision=_PRECISION, decoder=_DECODER, decoder_version="-"
)


class InstantActor:
    """Answers as PartActor does, with as many messages, and makes nothing."""

    def __init__(self, order: bytes) -> None: ...

    def open(self) -> tuple[str, list[bytes]]:
        import ray

        ready = Ready(_RUNS_WITH, Agreement(rows=0, max_difference=0.0, flips=0, limit=1.0), inspect_host())
        return ray.get_runtime_context().get_node_id(), [message_bytes(ready)]

    def make(self, part: int, careful: bool) -> list[bytes]:
        rows = message_bytes(Rows(part, {"ok": _BATCH}, None))
        return [rows] * (PART_ROWS // _BATCH) + [message_bytes(PartMade(part, {INFERENCE: 1.0}))]


def measure_driver(cluster: LocalCluster, parts: int) -> float:
    """Return seconds per part; the actors share the cores with the driver, so alone it would be faster."""
    work = WorkOrder(
        model="-",
        bundle_sha256="-",
        backend=_BACKEND,
        decoder=_DECODER,
        precision=_PRECISION,
        batch_size=_BATCH,
        threads=1,
        max_pixels=1,
        timeout_s=1.0,
    )
    order = PartsOrder(
        work=work,
        run=str(Path.cwd()),
        roots=(),
        classes=(),
        facts={},
        run_id="-",
        tool_version=__version__,
        layout=PartLayout((parts * PART_ROWS,)),
    )
    with (
        RayCluster(cluster.address) as connection,
        RayActors(
            connection,
            order,
            _RUNS_WITH,
            threads=1,
            most=None,
            needs_gpu=False,
            mixed=False,
            actor=InstantActor,
        ) as pool,
    ):
        return _time(pool, parts)


def _time(pool: RayActors, parts: int) -> float:
    watch, begin, made = WorkWatch(), 0.0, 0
    for event in pool.make(range(parts + 1)):
        if isinstance(event, Told) and watch.take(event) is not None:
            begin = begin or time.perf_counter()  # at the first part: all that starts is behind
            made += 1
    return (time.perf_counter() - begin) / (made - 1)

"""Parts that are not made in this process: by several processes of this machine, or by a cluster of machines."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mribatch.core.about import __version__
from mribatch.core.files import FolderLock
from mribatch.pipeline.choices import ONNXRUNTIME
from mribatch.pipeline.cluster_address import parse_address
from mribatch.pipeline.executor.events import Told
from mribatch.pipeline.executor.messages import Halted, HostOrder, PartMade, PartsOrder
from mribatch.pipeline.executor.processes import PartProcesses, Seat
from mribatch.pipeline.executor.ray_actors import RayActors, no_room
from mribatch.pipeline.executor.ray_cluster import RayCluster
from mribatch.pipeline.output.folder import WORKER_LOG
from mribatch.pipeline.output.parts import PartFacts
from mribatch.pipeline.output.run_file import HostKind, RunFile
from mribatch.pipeline.plan import Plan
from mribatch.pipeline.progress import Progress
from mribatch.pipeline.run_record import RunRecord
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.storage.address import is_address
from mribatch.pipeline.tally import Tally


@dataclass(frozen=True)
class Elsewhere:
    """Where the parts of a run are made. cluster: Entered and checked; None: processes of this machine."""

    plan: Plan
    cluster: RayCluster | None = None

    def make(self, record: RunRecord, facts: PartFacts, missing: Sequence[int], tally: Tally, watch: Stopwatch) -> None:
        """Have the missing parts made.

        Raises:
            MribatchError: As the pools of processes and actors.
            Interrupted: A signal came.
        """
        lost, begin = 0, time.perf_counter()
        with self._open_pool(record, facts, missing) as pool:
            halting = False
            try:
                for event in pool.make(missing):
                    self.plan.folder.check_lock()
                    if isinstance(event, Halted):
                        lost += event.lost
                    elif event is not None:
                        if isinstance(event, Told) and isinstance(event.message, PartMade):
                            self.plan.folder.published(event.message.part)
                        tally.take(event)
                    if tally.is_stopped and not halting:
                        halting = True
                        pool.halt()
            finally:
                tally.work.settle(watch, time.perf_counter() - begin)
        if tally.is_stopped:
            raise tally.interrupt(lost)

    @property
    def _model(self) -> str:
        """Where the model is for those that make the parts: a cluster's machines fetch it from its store themselves."""
        far = self.cluster is not None and is_address(self.plan.options.model)
        return self.plan.options.model if far else self.plan.order.model

    def _open_pool(self, record: RunRecord, facts: PartFacts, missing: Sequence[int]) -> PartProcesses | RayActors:
        plan, runs_with = self.plan, self.plan.classifier.runs_with
        count = max(1, min(plan.workers.count, len(missing)))
        order = PartsOrder(
            work=replace(plan.order, threads=max(1, plan.threads // count), model=self._model, shares_cores=True),
            run=str(plan.folder.path.absolute()),
            address=None if self.cluster is None else plan.folder.address,
            roots=tuple(item.root.decode("latin-1") for item in plan.inputs),
            classes=facts.classes,
            facts=facts.facts,
            run_id=record.run_id,
            tool_version=__version__,
            layout=record.layout,
        )
        if self.cluster is None:
            return PartProcesses(order, _make_seats(plan, count), runs_with)
        return RayActors(
            self.cluster,
            order,
            runs_with,
            threads=plan.options.threads,
            most=plan.options.workers if isinstance(plan.options.workers, int) else None,
            needs_gpu=runs_with.backend.name != ONNXRUNTIME,
            mixed=plan.options.allow_mixed,
            known=_list_kinds(record.content),
        )


@contextlib.contextmanager
def open_elsewhere(plan: Plan, progress: Progress) -> Iterator[Elsewhere | None]:
    """Yield where the parts are made; None: in this process. The output folder is locked, and nothing is in it yet.

    A cluster is asked first whether all of its machines can make the parts.

    Raises:
        MribatchError: It does not answer, or one of its machines cannot.
    """
    if plan.options.on is None:
        yield Elsewhere(plan) if plan.workers.count > 1 else None
        return
    with RayCluster(parse_address(plan.options.on)) as cluster:
        nodes, threads = cluster.nodes(), plan.options.threads or 1
        if not any(node.room(threads, needs_gpu=_needs_gpu(plan)) for node in nodes):
            raise no_room(threads, needs_gpu=_needs_gpu(plan))
        gpus = sum(node.gpus for node in nodes)
        if gpus and not _needs_gpu(plan):
            progress.note(f"WARNING: {gpus} GPUs of the cluster are not used: {plan.order.backend.reason}")
        earlier = plan.folder.check_free()
        known = [] if earlier is None or plan.options.overwrite else _list_kinds(earlier)
        cluster.check(_order_inspection(plan), known, mixed=plan.options.allow_mixed)
        yield Elsewhere(plan, cluster)


def _order_inspection(plan: Plan) -> HostOrder:
    """What every machine must see: the lock that this process holds, and something in each input.

    What is in a store is not asked for: it tells when it is read.
    """
    seen = (_find_something(item.root).decode("latin-1") for item in plan.inputs if not is_address(item.root))
    return HostOrder(
        tool_version=__version__,
        run=None if plan.folder.address is not None else str((plan.folder.path / FolderLock.FILE_NAME).absolute()),
        seen=tuple(seen),
    )


def _find_something(root: bytes) -> bytes:
    """A file or folder in there: a machine on which a file system is not mounted has an empty folder in its place."""
    with os.scandir(root) as entries:
        return next((entry.path for entry in entries), root)


def _list_kinds(content: RunFile) -> list[HostKind]:
    """The kinds of machines that have made parts, the first one first."""
    return [host.kind for attempt in content.attempts for host in attempt.hosts or ()]


def _needs_gpu(plan: Plan) -> bool:
    return plan.order.backend.name != ONNXRUNTIME


def _make_seats(plan: Plan, count: int) -> list[Seat]:
    """A place for each process, on the GPUs in turn."""
    gpus = plan.workers.gpus
    return [
        Seat(
            number=number + 1,
            environment={"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
            log=plan.folder.path / WORKER_LOG,
        )
        for number in range(count)
    ]

"""A Ray cluster, as a run uses it: connected to, asked what its machines are and whether they see the same files."""

import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.pipeline.executor.hosts import check_alike
from mribatch.pipeline.executor.messages import Failed, HostFound, HostOrder, message_bytes, read_message
from mribatch.pipeline.output.run_file import HostKind

_PATIENCE_S = 10.0  # for the first answer of a cluster
_INSPECTION_S = 120.0  # for all machines: each starts a process for it
_START = "start the cluster with ray start, or give its address as ray://HOST:PORT"
# How every gRPC server is spoken to first (RFC 9113, 3.4): a fixed text and empty settings, answered by settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEAD, _TYPE, _SETTINGS = 9, 3, 4  # bytes; position and value of the type


@dataclass(frozen=True)
class ClusterNode:
    """A machine that is there. name: its address, with the beginning of its id where several have the same."""

    id: str
    name: str
    cores: int
    gpus: int

    def room(self, threads: int, *, needs_gpu: bool) -> int:
        """Return how many actors it can hold."""
        fits = self.cores // threads
        return min(fits, self.gpus) if needs_gpu else fits


class RayCluster:
    """Entering connects; leaving disconnects again.

    Args:
        address: None: the cluster that Ray finds, or a new one on this machine.

    Raises:
        MribatchError: On entering: Ray is not installed, or the cluster does not answer.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._is_ours = False

    def __enter__(self) -> Self:
        self.ray = load_ray()
        if not self.ray.is_initialized():
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self.ray.shutdown()

    def nodes(self) -> list[ClusterNode]:
        """Return the machines that are there now."""
        found = [node for node in self.ray.nodes() if node["Alive"]]
        names = [str(node["NodeName"]) for node in found]
        return [
            ClusterNode(
                id=node["NodeID"],
                name=name if names.count(name) == 1 else f"{name} ({node['NodeID'][:6]})",
                cores=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node, name in zip(found, names, strict=True)
        ]

    def check(self, order: HostOrder, known: Sequence[HostKind], *, mixed: bool) -> None:
        """Make sure that all machines see the same files, and have the same versions.

        Args:
            order: What they must see.
            known: Of machines that have made parts of the run before.
            mixed: Whether machines may differ.

        Raises:
            MribatchError: One cannot make parts of the run; says which, and why.
        """
        found = self._inspect(order)
        if not mixed:
            earlier = {f"an earlier machine {number}": kind for number, kind in enumerate(known, 1)}
            check_alike({**earlier, **found})

    def _inspect(self, order: HostOrder) -> Mapping[str, HostKind]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self.ray.remote(num_cpus=0, max_retries=0)(inspect_machine)
        asked = {}
        for node in self.nodes():
            if node.cores:
                place = NodeAffinitySchedulingStrategy(node.id, soft=False)
                asked[node.name] = remote.options(scheduling_strategy=place).remote(message_bytes(order))
        if asked:
            self.ray.wait(list(asked.values()), num_returns=len(asked), timeout=_INSPECTION_S)
        return {name: self._read_answer(name, reference) for name, reference in asked.items()}

    def _read_answer(self, name: str, reference: Any) -> HostKind:
        try:
            answer = read_message(self.ray.get(reference, timeout=0))
        except self.ray.exceptions.GetTimeoutError as error:
            problem = f"the machine {name} of the cluster says nothing for {_INSPECTION_S:.0f} s"
            raise MribatchError(problem, "see Ray's logs on it, or take it out of the cluster") from error
        except Exception as error:  # of Ray, or what came of loading our code there
            if is_out_of_memory(self.ray, error):
                problem = f"the machine {name} of the cluster has no memory left"
                raise MribatchError(problem, "free some, or take the machine out of the cluster") from error
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise MribatchError(
                f"the machine {name} of the cluster cannot run mribatch: {lines[-1]}",
                "install the same version of mribatch on every machine",
            ) from error
        if isinstance(answer, Failed):
            if answer.bug is not None:
                raise RuntimeError(f"the inspection of {name} failed:\n{answer.bug}")
            raise MribatchError(f"the machine {name} of the cluster: {answer.problem}", answer.fix)
        assert isinstance(answer, HostFound), "an answer to a HostOrder"
        return answer.kind

    def _connect(self) -> None:
        if self._address is not None:
            _check_answers(self._address)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.ray.init(
                address=self._address,
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception as error:  # ConnectionError, RuntimeError, ValueError: by the kind of address
            raise _no_answer(self._address, str(error).splitlines()[0]) from error
        finally:
            for number, handler in handlers.items():  # Ray replaces that of SIGTERM
                signal.signal(number, handler)
        self._is_ours = True


def inspect_machine(order: bytes) -> bytes:
    """Answer a HostOrder; runs on a machine of the cluster."""
    from mribatch.pipeline.executor.__main__ import telling_why
    from mribatch.pipeline.executor.service import inspect

    wanted, answers = read_message(order), list[bytes]()
    assert isinstance(wanted, HostOrder), "an order"
    with telling_why(lambda message: answers.append(message_bytes(message))):
        answers.append(message_bytes(inspect(wanted)))
    return answers[-1]


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes where nobody listens, or another server.

    Raises:
        MribatchError: There is no Ray.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S) as connection:
            connection.sendall(_GREETING)
            answer = connection.recv(_FRAME_HEAD, socket.MSG_WAITALL)
    except (OSError, ValueError, OverflowError) as error:
        raise _no_answer(address, str(error)) from error
    if len(answer) < _FRAME_HEAD or answer[_TYPE] != _SETTINGS:
        raise MribatchError(f"there is no Ray at {address}, but another server", _START)


def _no_answer(address: str | None, reason: str) -> MribatchError:
    at = f" at {address}" if address else ""
    return MribatchError(f"the Ray cluster{at} does not answer: {reason}", _START)


def is_out_of_memory(ray: Any, error: Exception) -> bool:
    """Whether Ray ended a process since its machine had too little memory."""
    return isinstance(error, ray.exceptions.OutOfMemoryError) or "out of memory" in str(error).lower().replace("-", " ")


def load_ray() -> ModuleType:
    """Import Ray.

    Raises:
        MribatchError: It is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MribatchError("Ray is not installed", install_command("ray")) from error
    module: ModuleType = ray
    return module

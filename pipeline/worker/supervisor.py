"""A FileClassifier in a process of its own, which may die: whatever happens there, every file gets an answer.

Batches are sent ahead and answered in order. When the worker dies, another is started, and only the files without an
answer are done again: in small slices, each file decoded with nothing else under way and announced before. So a file
that kills the process is known by name. It is tried again, since the reason may have lain outside (memory, a person);
the file on which the process dies alone time after time gets the status decoder_crash. Rows do not depend on
neighbours, so those of the other files are the same as if nothing had happened.

Where the GPU has too little memory, no file is to blame: the next worker gets half the batch size and prefetches half.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement
from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode.file import timed_out
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.records import ClassifiedBatch, DecodedFile, ImageFile, RunsWith, Status, Verdict
from mribatch.pipeline.stopwatch import WAITING, Stopwatch
from mribatch.pipeline.storage.content import read_content
from mribatch.pipeline.worker.messages import (
    Answer,
    Batch,
    FileBegun,
    NoMore,
    OneByOne,
    Started,
    StartupNote,
)
from mribatch.pipeline.worker.process import Death, WorkerDied, WorkerProcess

_IN_PIPE = 3  # batches that wait for the worker, beyond those that it holds back before the first answer comes out
_SLICE = 8  # files of one OneByOne: small, so that also a worker that is killed every second or two gets on
_STRIKES = 3  # deaths on a file alone that make it a decoder_crash; one or two may be somebody's kill
_HANGS = 2  # as _STRIKES, for a file over which the worker hangs
_FRUITLESS = 10  # deaths in a row without an answer and without a file to blame
_FAILED_STARTS = 3  # of them before the worker ever started
_SMALLEST = 8  # rows of a batch; where not even these fit, smaller ones would hardly help
_START_PATIENCE_S = 3600.0  # building an engine takes minutes
_SPARE_S = 30.0  # beyond what the files may take

Patience = Callable[[float, int], float]


class SupervisedClassifier:
    """Files to probabilities in a worker process.

    Args:
        order: What the worker does.
        log: Where its output goes; None: nowhere.
        note: StartupNote what takes long while it starts.
        command: That runs it, for tests; the project's own worker by default.
    """

    def __init__(
        self,
        order: WorkOrder,
        log: Path | None,
        note: Callable[[str], None],
        *,
        command: Sequence[str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.batch_size = order.batch_size
        self._order = order
        self._patience = patience or _choose_patience
        self._log = log
        self._note = note
        self._command = command
        self._worker: WorkerProcess | None = None
        self._first_start: Started | None = None
        self._last_start: Started | None = None
        self._fruitless = 0
        self.deaths = 0  # so far

    def __enter__(self) -> Self:
        """Start the worker and wait until it has loaded everything and its backend has passed the gate.

        Raises:
            MribatchError: It cannot start; gives its reason.
        """
        try:
            self._ensure_worker()
        except BaseException:
            self._end_worker()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_worker()

    @property
    def worker_pid(self) -> int | None:
        """Of the process that is there now."""
        return self._worker.pid if self._worker is not None else None

    @property
    def smallest_batch(self) -> int:
        return self._order.batch_size

    @property
    def runs_with(self) -> RunsWith:
        assert self._first_start is not None, "enter first"
        return self._first_start.runs_with

    def gate(self) -> Agreement:
        """What the first worker found when it started; every worker that replaces it passes the gate, too."""
        assert self._first_start is not None, "enter first"
        return self._first_start.agreement

    def batches(self, groups: Iterable[Sequence[ImageFile]], watch: Stopwatch) -> Iterator[ClassifiedBatch]:
        """One ClassifiedBatch per group, in order; one such iterator at a time.

        Raises:
            MribatchError: The worker dies again and again, whatever it is given.
        """
        whole = False
        try:
            yield from self._classify_ahead(iter(groups), watch)
            whole = True
        finally:
            if not whole:
                self._end_worker()  # what it still answers is not for the files that come next

    @property
    def _ahead(self) -> int:
        """Batches without an answer. The worker says what it needs, so that neither side waits for the other."""
        return (self._last_start.groups_ahead if self._last_start is not None else 0) + _IN_PIPE

    def _classify_ahead(self, remaining: Iterator[Sequence[ImageFile]], watch: Stopwatch) -> Iterator[ClassifiedBatch]:
        sent: deque[_Group] = deque()  # without an answer, oldest first
        more = True
        while more or sent:
            try:
                for group in sent:
                    self._send(group)  # again, where another worker was given them
                while more and sum(group.under_way for group in sent) < self._ahead:
                    files = next(remaining, None)
                    if files is None:
                        more = False
                    else:
                        sent.append(_Group(files))  # first, so that it is not lost with the worker
                        self._send(sent[-1])
                if not more and self._worker is not None:
                    self._worker.send(NoMore())
                while sent and (not more or sum(group.under_way for group in sent) >= self._ahead):
                    batch = self._receive_group(sent[0], watch)
                    sent.popleft()
                    yield batch
            except WorkerDied as died:
                if self._note_death(died.death):
                    for group in sent:
                        group.forget()
                    continue
                while sent:
                    with watch.measure(WAITING):
                        batch = self._classify_carefully(sent.popleft().files)
                    yield batch

    def _send(self, group: "_Group") -> None:
        """Send a group that the worker has not got, in batches of the size that it takes."""
        worker, size = self._ensure_worker(), self._order.batch_size
        while group.sent < len(group.files):
            piece = tuple(group.files[group.sent : group.sent + size])
            worker.send(Batch(piece))
            group.pieces.append(piece)

    def _receive_group(self, group: "_Group", watch: Stopwatch) -> ClassifiedBatch:
        while len(group.answers) < len(group.pieces):
            group.answers.append(self._receive_answer(group.pieces[len(group.answers)], watch))
        return _join(group.answers)

    def _receive_answer(self, files: Sequence[ImageFile], watch: Stopwatch) -> ClassifiedBatch:
        rounds = math.ceil(len(files) / self._order.threads)
        reply = self._ensure_worker().receive(self._patience(self._order.timeout_s, 1 + rounds))
        assert isinstance(reply, Answer), f"{type(reply).__name__} where an answer was due"
        self._fruitless = 0
        for stage, seconds in reply.seconds.items():
            watch.seconds[stage] += seconds
        return reply.batch.unpack(files)

    def _classify_carefully(self, files: Sequence[ImageFile]) -> ClassifiedBatch:
        """The same rows, slice by slice and file by file."""
        slices = [self._classify_slice(files[start : start + _SLICE]) for start in range(0, len(files), _SLICE)]
        return _join(slices)

    def _classify_slice(self, files: Sequence[ImageFile]) -> ClassifiedBatch:
        blame: Counter[int] = Counter()  # position -> deaths while it was decoded alone
        condemned: dict[int, DecodedFile] = {}
        while True:
            # Who is under suspicion comes first: the less else happens until then, the less else can be to blame.
            left = sorted(set(range(len(files))) - condemned.keys(), key=lambda place: (-blame[place], place))
            if not left:
                return _merge(len(files), [], None, condemned)
            begun = _Suspect()
            try:
                answer = self._classify_one_by_one([files[place] for place in left], begun)
                return _merge(len(files), left, answer, condemned)
            except WorkerDied as died:
                blames = begun.position is not None and not died.death.out_of_memory
                self._note_death(died.death, blames=blames)
                if blames:
                    assert begun.position is not None
                    place = left[begun.position]
                    blame[place] += 1
                    if blame[place] >= (_HANGS if died.death.hung else _STRIKES):
                        condemned[place] = self._condemn(files[place], died.death, blame[place])

    def _classify_one_by_one(self, files: Sequence[ImageFile], begun: "_Suspect") -> ClassifiedBatch:
        worker = self._ensure_worker()
        worker.send(OneByOne(tuple(files)))
        while True:
            reply = worker.receive(self._patience(self._order.timeout_s, 1))
            if isinstance(reply, Answer):
                self._fruitless = 0
                return reply.batch.unpack(files)
            assert isinstance(reply, FileBegun), f"{type(reply).__name__} where a file was begun"
            begun.position = reply.position

    def _condemn(self, file: ImageFile, death: Death, times: int) -> DecodedFile:
        if death.hung:  # and reading it here might hang, too
            return DecodedFile(file, timed_out(self._order.timeout_s))
        verdict = Verdict(
            Status.DECODER_CRASH, f"The decoding process died {times} times on this file alone; it was {death.how}."
        )
        try:
            content = read_content(file.file).data
        except OSError:
            return DecodedFile(file, verdict)
        return DecodedFile(file, verdict, len(content), sha256(content).hexdigest())

    def _ensure_worker(self) -> WorkerProcess:
        """The worker that is there, or a new one."""
        while self._worker is None:
            worker = self._worker = WorkerProcess(self._order, self._log, self._command)
            worker.note(f"worker {worker.pid} started")
            try:
                while isinstance(started := worker.receive(_START_PATIENCE_S), StartupNote):
                    self._note(started.text)
            except WorkerDied as died:
                if not self._note_death(died.death) and died.death.error is not None:
                    raise died.death.error from died
                continue
            assert isinstance(started, Started), f"{type(started).__name__} where the worker should have started"
            self._check_same(started)
            self._first_start, self._last_start = self._first_start or started, started
        return self._worker

    def _check_same(self, started: Started) -> None:
        """A worker that replaces another must give the same rows."""
        if self._first_start is None:
            return
        before, now = (
            (it.backend.name, it.backend_version, it.precision.name, it.decoder.name, it.decoder_version)
            for it in (self._first_start.runs_with, started.runs_with)
        )
        if before != now:
            raise MribatchError(
                f"the worker process ran with {' '.join(before)}, after it died with {' '.join(now)}",
                f"{self._advise()}, then type the same command again",
            )

    def _note_death(self, death: Death, blames: bool = False) -> bool:
        """Take note of a death; give up where nothing seems to help.

        Returns:
            Whether the next worker will need less memory of the GPU, so that the same may be tried again.

        Raises:
            MribatchError: It died too often in a row without an answer, or before it ever started; its own
                error, where it gave one.
        """
        assert self._worker is not None
        self._worker.note(f"worker {self._worker.pid} died: it was {death.how}")
        self._end_worker()
        self.deaths += 1
        if death.out_of_memory and self._halve(death):
            return True
        self._fruitless += not blames
        patient = self._first_start is not None and not death.out_of_memory
        if self._fruitless >= (_FRUITLESS if patient else _FAILED_STARTS):
            if death.error is not None:
                raise death.error
            when = "without an answer in between" if self._first_start is not None else "while it started"
            raise MribatchError(
                f"the worker process died {self._fruitless} times {when}; the last time it was {death.how}",
                f"{self._advise()}, or use --backend onnxruntime --decoder opencv",
            )
        return False

    def _halve(self, death: Death) -> bool:
        """Give the next worker half the batch size and prefetched batches; False where both are small already."""
        before = self._order
        if before.batch_size <= _SMALLEST and before.prefetch <= 1:
            return False
        size = max(min(_SMALLEST, before.batch_size), before.batch_size // 2)
        # An engine for this size alone: one for larger batches takes the memory of these.
        self._order = replace(before, batch_size=size, prefetch=max(1, before.prefetch // 2), any_batch=False)
        self._note(
            f"WARNING: the GPU has too little memory for batches of {before.batch_size}, so the run goes on with "
            f"batches of {size}: {death.how}"
        )
        return True

    def _advise(self) -> str:
        return f"see {self._log}" if self._log is not None else "classify without --dry-run, for a log"

    def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


def _choose_patience(timeout_s: float, rounds: int) -> float:
    """Seconds of silence after which a worker is taken to hang, where it may spend `timeout_s` that many times."""
    return timeout_s * rounds + _SPARE_S


@dataclass
class _Group:
    """A group of files on its way. pieces: as the worker got it; answers: to the first of them."""

    files: Sequence[ImageFile]
    pieces: list[tuple[ImageFile, ...]] = field(default_factory=list)
    answers: list[ClassifiedBatch] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many of its files the worker has got."""
        return sum(map(len, self.pieces))

    @property
    def under_way(self) -> int:
        return len(self.pieces) - len(self.answers)

    def forget(self) -> None:
        """Note that the worker is gone."""
        self.pieces.clear()
        self.answers.clear()


@dataclass
class _Suspect:
    """position: of the file that was last announced; None: no file is being decoded."""

    position: int | None = None


def _merge(
    count: int, places: Sequence[int], answer: ClassifiedBatch | None, condemned: dict[int, DecodedFile]
) -> ClassifiedBatch:
    """The answer's rows at their places, the condemned at theirs."""
    files = dict(condemned)
    scores = answer.probabilities if answer is not None else None
    probabilities: NDArray[float32] | None = None
    if scores is not None:
        probabilities = np.zeros((count, scores.shape[1]), float32)
        probabilities[list(places)] = scores[: len(places)]
    if answer is not None:
        files |= dict(zip(places, answer.files, strict=True))
    return ClassifiedBatch(tuple(files[place] for place in range(count)), probabilities)


def _join(slices: Sequence[ClassifiedBatch]) -> ClassifiedBatch:
    files = tuple(file for one in slices for file in one.files)
    known = next((one.probabilities for one in slices if one.probabilities is not None), None)
    if known is None:
        return ClassifiedBatch(files, None)
    nothing = np.zeros((max(len(one.files) for one in slices), known.shape[1]), float32)
    rows = [(nothing if one.probabilities is None else one.probabilities)[: len(one.files)] for one in slices]
    return ClassifiedBatch(files, np.concatenate(rows))

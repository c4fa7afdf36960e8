"""What a build does around the library: the proof of the types, the timings, the progress. No TensorRT runs here."""

import weakref
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from mribatch.core.errors import MribatchError
from mribatch.trt.engine.build import StepMonitor, check_types, read_timing_cache, use_timing_cache
from mribatch.trt.engine.progress import BuildProgress, BuildStep
from mribatch.trt.library import Flavor, freeing_native_objects, join_messages


class Kind(Enum):
    UINT8, HALF, FLOAT, INT64 = range(4)


TRT = SimpleNamespace(DataType=Kind, LayerType=SimpleNamespace(CAST="cast"))
IMAGES, ANSWERS = SimpleNamespace(dtype=Kind.UINT8), SimpleNamespace(dtype=Kind.FLOAT)


def layer(node: str | None, *kinds: Kind, kind: str = "other") -> Any:
    """An ILayer, as the parser makes one for a node of the graph, or for its own use (None)."""
    return SimpleNamespace(
        num_outputs=len(kinds),
        get_output=lambda slot: SimpleNamespace(dtype=kinds[slot]),
        type=kind,
        metadata="" if node is None else f"[ONNX Layer: {node}]",
    )


def checked(*layers: Any, fp32_nodes: tuple[str, ...] | None = ("head",), **changes: Any) -> tuple[int, int]:
    network = SimpleNamespace(
        num_inputs=1,
        num_outputs=1,
        get_input=lambda index: IMAGES,
        num_layers=len(layers),
        get_output=lambda index: ANSWERS,
        get_layer=lambda index: layers[index],
    )
    network.__dict__.update(changes)
    return check_types(TRT, network, Flavor.TENSORRT, fp32_nodes)


BODY, HEAD, CAST = layer("conv", Kind.HALF), layer("head", Kind.FLOAT), layer("in", Kind.FLOAT, kind="cast")


def test_layers_are_counted_by_what_they_give() -> None:
    own = layer(None, Kind.FLOAT)
    assert checked(BODY, HEAD, CAST, own, layer("shape", Kind.INT64), layer("assertion")) == (1, 3)
    assert checked(HEAD, layer("conv", Kind.FLOAT), fp32_nodes=None) == (0, 2)


@pytest.mark.parametrize(
    "layers, fp32_nodes, words",
    [
        ([BODY, layer("head", Kind.HALF)], ("head",), "it differs at head"),
        ([layer("conv", Kind.FLOAT), HEAD], ("head",), "it differs at conv"),
        ([BODY, HEAD], None, "it differs at conv"),
        ([BODY, HEAD, layer("topk", Kind.HALF, Kind.FLOAT)], ("head",), "it differs at topk"),
        ([HEAD], ("head",), "it differs at all"),
        ([layer(None, Kind.HALF), layer(None, Kind.FLOAT)], ("head",), "does not name the nodes of the layers"),
    ],
)
def test_another_type_than_the_graphs_is_refused(
    layers: list[Any], fp32_nodes: tuple[str, ...] | None, words: str
) -> None:
    with pytest.raises(MribatchError, match=words):
        checked(*layers, fp32_nodes=fp32_nodes)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inputs": 2},
        {"num_outputs": 0},
        {"get_input": lambda index: ANSWERS},
        {"get_output": lambda index: IMAGES},
    ],
)
def test_another_input_or_output_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MribatchError, match="cannot use the model"):
        checked(BODY, HEAD, **changes)


class Native:
    """An object of the library; alive until nothing refers to it."""


def test_an_error_takes_no_object_of_the_library_with_it() -> None:
    natives: list[Any] = []

    def deeper(builder: Native) -> None:
        network = Native()
        natives.extend(map(weakref.ref, (builder, network)))
        raise ValueError("no kernel")

    def deep() -> None:
        try:
            deeper(Native())
        except ValueError as error:
            builder = Native()
            natives.append(weakref.ref(builder))
            raise MribatchError("refused", "see docs") from error

    with pytest.raises(MribatchError) as caught, freeing_native_objects():
        deep()
    assert caught.value.__cause__ is not None and [one() for one in natives] == [None, None, None]


class Config:
    """An IBuilderConfig: only its timing cache. known: contents that fit."""

    def __init__(self, *known: bytes) -> None:
        self.known, self.cache = known, None

    def create_timing_cache(self, content: bytes) -> Any:
        return content if content in self.known else None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert cache is not None and not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return None if self.cache is None else SimpleNamespace(serialize=lambda: self.cache or None)


@pytest.mark.parametrize(
    "known, given, used",
    [
        ((b"old", b""), b"old", b"old"),
        ((b"old", b""), b"of another GPU", None),
        ((b"",), None, None),
        ((), None, None),  # TensorRT makes none at all: the build goes on without
    ],
)
def test_timings_are_used_where_they_fit_and_their_lack_costs_no_engine(
    known: tuple[bytes, ...], given: bytes | None, used: bytes | None
) -> None:
    config = Config(*known)
    use_timing_cache(config, given)
    assert read_timing_cache(config) == used


class Scripted(BuildProgress):
    """Keeps the steps and answers as it is told."""

    def __init__(self, *answers: bool) -> None:
        self.steps: list[BuildStep] = []
        self.answers = iter(answers)

    def step(self, step: BuildStep) -> bool:
        self.steps.append(step)
        return next(self.answers, True)


def test_progress_starts_again_with_the_next_whole() -> None:
    progress = Scripted()
    monitor, steps = StepMonitor(progress), progress.steps
    for root, count in (("parse", 6), ("build", 2)):
        monitor.start(root, count)
        monitor.start("inner", 9)
        for number in range(count):
            assert monitor.step("inner", number) and monitor.step(root, number)
        monitor.finish("inner")
        monitor.finish(root)
    assert all(step.done <= step.total for step in steps)
    assert (steps[0].done, steps[11].done, steps[12].done, steps[-1].done) == (0, 6, 0, 2)
    assert {step.phase for step in steps} == {"inner"}


def test_a_cancelled_build_stays_cancelled_whatever_another_thread_says() -> None:
    monitor = StepMonitor(Scripted(True, False, True))
    monitor.start("build", 3)
    assert [monitor.step("build", number) for number in range(3)] == [True, False, True]
    assert monitor.cancelled


def test_the_librarys_words_are_one_line_each_said_once() -> None:
    text = "In node 3: no\n kernel (In parse at /src/x.cpp:12)"
    assert join_messages([text, text, "other"]) == "In node 3: no kernel; other"
    assert len(join_messages(["x" * 1000])) == 600

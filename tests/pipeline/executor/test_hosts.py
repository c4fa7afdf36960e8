"""Machines that might make other rows than each other are told apart."""

from dataclasses import replace

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.executor.hosts import check_alike, describe_difference, inspect_host
from mribatch.pipeline.output.run_file import HostKind

KIND = HostKind(processor="one", python="3.11.7", libraries={"numpy": "2.4.6", "onnxruntime": "1.32.0"})


def test_this_machine_has_what_it_classifies_with() -> None:
    found = inspect_host()
    assert {"numpy", "onnxruntime", "opencv-python-headless"} <= found.libraries.keys()
    assert describe_difference(found, inspect_host()) is None


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(KIND, processor="two"), ("the processor one", "two")),
        (replace(KIND, gpu="H100"), ("no GPU", "H100")),
        (replace(KIND, python="3.12.1"), ("Python 3.11.7", "3.12.1")),
        (replace(KIND, libraries={"numpy": "2.4.6", "onnxruntime": "1.20.0"}), ("onnxruntime 1.32.0", "1.20.0")),
        (replace(KIND, libraries={"numpy": "2.4.6"}), ("onnxruntime 1.32.0", "none")),
    ],
)
def test_the_difference_is_named(other: HostKind, told: tuple[str, str]) -> None:
    assert describe_difference(KIND, other) == told
    with pytest.raises(MribatchError, match=f"a has {told[0]}, c has {told[1]}. Fix: .* or add --allow-mixed"):
        check_alike({"a": KIND, "b": KIND, "c": other})


def test_machines_of_one_kind_pass() -> None:
    check_alike({"a": KIND, "b": replace(KIND)})
    check_alike({})

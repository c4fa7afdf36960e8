"""What /proc/cpuinfo says of 8-bit products, as Linux writes it."""

import pytest

from mribatch.core.processor import Processor, find_processor, parse_cpuinfo

XEON = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu sse2 avx2 {}\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("flags", "saturates"), [("", True), ("avx512f", True), ("avx512_vnni", False), ("avx_vnni", False)]
)
def test_x86_saturates_without_vnni(flags: str, saturates: bool) -> None:
    assert parse_cpuinfo(XEON.format(flags), "x86_64") == Processor("Intel(R) Xeon(R) Processor", saturates)


def test_what_cannot_be_read_is_taken_for_the_worse() -> None:
    assert parse_cpuinfo("", "x86_64").saturates and parse_cpuinfo("", "AMD64").saturates
    assert not parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "aarch64").saturates


def test_this_machine_has_a_name() -> None:
    assert find_processor().name

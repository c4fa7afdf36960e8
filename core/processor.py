"""What the choice of a precision depends on: which processor this is, and whether it adds up 8-bit products exactly."""

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_EXACT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})  # names of flags in the kernel's arch/x86
_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})


@dataclass(frozen=True)
class Processor:
    """name: as the kernel gives it. saturates: whether sums of two 8-bit products may be clipped to 16 bits.

    x86 without VNNI does that (instruction VPMADDUBSW), and so is taken for x86 whose flags cannot be read.
    """

    name: str
    saturates: bool


@cache
def find_processor() -> Processor:
    """Return this machine's."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpuinfo(text, platform.machine())


def parse_cpuinfo(text: str, machine: str) -> Processor:
    """Read the first processor of /proc/cpuinfo.

    Args:
        text: Its content; empty where there is none.
        machine: As platform.machine() gives it; also the name where the text has none.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    exact = machine.lower() not in _X86 or bool(_EXACT & set(fields.get("flags", "").split()))
    return Processor(fields.get("model name") or platform.processor() or machine, saturates=not exact)

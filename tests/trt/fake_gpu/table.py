"""The table of docs/how-to/gpu.md: what runs on which GPU with which library, asked on GPUs in memory.

python -m tests.trt.fake_gpu.table    # writes it again
"""

import json
import tempfile
from pathlib import Path

from tests.trt.fake_gpu.machine import H100, L4, ROOT, RTX, RTX_4090, T4, TENSORRT, build_libcuda, make_machine

PAGE = ROOT / "docs" / "how-to" / "gpu.md"
BEGIN, END = "<!-- machines -->\n", "<!-- /machines -->\n"
HEAD = ("GPU", "installed", "`auto`", "engine", "the run says", "`--backend tensorrt`")

# installed -> GPUs that are tried with it
_TRIED: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    (TENSORRT, RTX): ((H100,), (L4,), (T4,), (RTX_4090,), (L4, L4)),
    (TENSORRT,): ((H100,), (T4,)),
    (RTX,): ((H100,), (L4,), (T4,), (RTX_4090,)),
    (): ((H100,), (RTX_4090,)),
}

_ASK = """
import json
from mribatch.core.errors import MribatchError
from mribatch.pipeline.choices import choose_backend
from mribatch.trt.engine.provider import choose_targets
from mribatch.trt.gpu import find_gpu
from mribatch.trt.library import find_installed_flavors

def problem_of(ask):
    try:
        return None, ask()
    except MribatchError as error:
        return error.problem, None

auto = choose_backend("auto")
_, engine = problem_of(lambda: choose_targets(None, find_installed_flavors(), find_gpu()))
refused, _ = problem_of(lambda: choose_backend("tensorrt"))
print(json.dumps({
    "name": auto.name, "reason": auto.reason, "warning": auto.warning, "refused": refused,
    "engine": f"{engine[0]} {','.join(engine[1])}" if engine else None,
}))
"""


def make_table() -> str:
    """Ask the code on each machine; the cells are its own words."""
    rows = [HEAD, ("---",) * len(HEAD)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        libraries = build_libcuda(folder)
        for number, (installed, tried) in enumerate(_TRIED.items()):
            machine = make_machine(folder / str(number), libraries, (), installed)
            for gpus in tried:
                answer = json.loads(machine.with_gpus(*gpus).run("-c", _ASK).stdout)
                rows.append(_format_row(gpus, installed, answer))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _format_row(gpus: tuple[str, ...], installed: tuple[str, ...], answer: dict[str, str | None]) -> tuple[str, ...]:
    name = gpus[0].partition(":")[0]
    warning = answer["warning"]
    said = answer["reason"] if warning is None else f"**WARNING:** {warning.partition(' Fix: ')[0]}"
    return (
        name if len(gpus) == 1 else f"{len(gpus)} x {name}",
        ", ".join(f"`{one}`" for one in installed) or "neither",
        f"`{answer['name']}`",
        f"`{answer['engine']}`" if answer["engine"] else "none",
        str(said),
        "runs" if answer["refused"] is None else "error, with the same reason",
    )


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + make_table() + END + rest.partition(END)[2], encoding="utf-8")

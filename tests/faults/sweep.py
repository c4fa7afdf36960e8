"""Every call of a command fails once, in every way: what became of the command, and of the same command afterwards."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.errors import ExitCode
from mribatch.report.verify import verify_run
from tests.faults.scenarios import Place, Rows, Scenario, draw_inputs
from tests.faults.server import Ended, Server
from tests.faults.shim import SHORT, Control, Fault

# How each kind of call may fail.
ERRORS = {
    "open": (errno.EIO, errno.EMFILE, errno.ENOSPC, errno.ESTALE, errno.EINTR),
    "read": (errno.EIO, errno.ESTALE, errno.EINTR, SHORT),
    "write": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, SHORT),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR),
    "rename": (errno.EIO, errno.ENOSPC, errno.ESTALE),
    "mkdir": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "mmap": (errno.EIO, errno.ENOMEM),
    "unlink": (errno.EIO, errno.ESTALE),
    "lock": (errno.EIO, errno.ENOLCK, errno.EINTR),
    "stat": (errno.EIO, errno.ESTALE),
    "list": (errno.EIO, errno.EMFILE, errno.ESTALE),
    "truncate": (errno.EIO, errno.ENOSPC),
    "close": (errno.EIO, errno.ENOSPC),
    "thread": (errno.EAGAIN,),
}
_STICKY = {
    "write": errno.ENOSPC,
    "open": errno.EMFILE,
    "read": errno.EIO,
    "stat": errno.ESTALE,
    "list": errno.EIO,
}
_FINE = (ExitCode.OK, ExitCode.ROWS_NOT_OK)


@dataclass(frozen=True)
class Outcome:
    """What became of one fault.

    end: "unnoticed" (nothing is different), "row" (a file has a row with the reason, or is told not to be listed or to
    have no picture), "error" (one line with a fix), or "bad". problem: What is wrong, where the end is bad.
    """

    scenario: str
    fault: Fault
    what: str
    end: str
    problem: str | None = None


class Sweep:
    """One scenario, with every fault that it can meet.

    Args:
        scenario: What is tried.
        root: For its folders, without a link in its path.
        server: Whose calls `control` makes fail.
        control: Of the faults.
    """

    def __init__(self, scenario: Scenario, root: Path, server: Server, control: Control) -> None:
        self._scenario = scenario
        self._place = Place(root)
        self._server = server
        self._control = control
        self._command: tuple[str, ...] = ()
        self._undisturbed: tuple[int, Rows] = (0, {})
        self.counts: dict[str, int] = {}

    def prepare(self) -> None:
        """Run the command once without faults; it says which calls there are."""
        draw_inputs(self._place)
        self._control.watch([])
        self._scenario.prepare(self._place, self._server)
        self._command = tuple(map(str, self._scenario.command(self._place)))
        self._place.restore()
        self._control.watch(self._scenario.watched(self._place))
        ended = self._server.run(self._command)
        self.counts = self._control.counts
        assert ended.code in _FINE, ended
        self._undisturbed = ended.code, self._scenario.rows(self._place)

    def faults(self) -> Iterator[Fault]:
        """Each call of each kind, with the errors of its kind in turns; every third also from then on with one."""
        for kind, count in self.counts.items():
            for number in range(1, count + 1):
                yield Fault(kind, number, ERRORS[kind][number % len(ERRORS[kind])])
                if kind in _STICKY and number % 3 == 1:
                    yield Fault(kind, number, _STICKY[kind], sticky=True)

    def inject(self, fault: Fault) -> Outcome:
        """Run the command with the fault, then again without one."""
        self._place.restore()
        self._control.watch(self._scenario.watched(self._place), fault)
        first = self._server.run(self._command)
        injected, what = self._control.injected, self._control.what
        self._control.watch([])
        end, problem = self._judge(first, injected)
        if problem is None:
            done = end == "unnoticed" and not self._left()
            again = first if done else self._server.run(self._command)
            problem = self._judge_again(again, end)
        return Outcome(self._scenario.name, fault, what, end if problem is None else "bad", problem)

    def _judge(self, ended: Ended, injected: int) -> tuple[str, str | None]:
        """What the fault has become."""
        lines = ended.stderr.splitlines()
        if "Traceback" in ended.stderr or "Traceback" in ended.stdout:
            return "bad", f"a traceback: {lines[-1]}"
        if ended.code in (ExitCode.USER_ERROR, ExitCode.REQUIREMENT_NOT_MET):
            errors = [line for line in lines if line.startswith("Error: ")]
            if len(errors) != 1 or lines[-1] != errors[0] or " Fix: " not in errors[0]:
                return "bad", f"not one line with a fix: {ended.stderr!r}"
            return "error", None
        if ended.code not in _FINE:
            return "bad", f"ended with {ended.code}: {ended.stderr!r}"
        if not injected:
            return "unnoticed", None
        differing = self._differing()
        if not differing and ended.code == self._undisturbed[0]:
            return "unnoticed", None
        if ended.code == ExitCode.ROWS_NOT_OK or _is_told(lines):
            return "row", None
        return "bad", f"silently other rows: {differing}"

    def _differing(self) -> dict[str, object]:
        expected, got = self._undisturbed[1], self._scenario.rows(self._place)
        return {name: got.get(name) for name in expected.keys() | got.keys() if got.get(name) != expected.get(name)}

    def _judge_again(self, ended: Ended, end: str) -> str | None:
        """What is wrong after the same command without a fault."""
        if ended.code not in (self._undisturbed[0], *((ExitCode.ROWS_NOT_OK,) if end == "row" else ())):
            return f"the same command again ended with {ended.code}: {ended.stderr.strip() or ended.stdout.strip()}"
        differing = self._differing()
        files = {name.rpartition(" ")[0] for name in differing}
        failed = {name.rpartition(" ")[0] for name, row in differing.items() if _is_failed(row)}
        bad = {name: row for name, row in differing.items() if name.rpartition(" ")[0] not in failed}
        bad = {} if self._is_series(differing) else bad
        if bad or (end != "row" and differing):
            return f"the same command again gives other rows: {bad or differing}"
        if len(files) > 1 and not self._is_series(differing):
            return f"several files lost their rows: {sorted(files)}"
        if left := self._left():
            return f"the same command again leaves {left}"
        if self._scenario.is_run:
            verified = verify_run(self._place.out)
            if verified.problems:
                return f"the run does not verify: {verified.findings}"
        return None

    def _left(self) -> list[str]:
        """Temporary files."""
        return [path.name for path in self._place.out.rglob(".*") if path.name != ".lock"]

    def _is_series(self, differing: Mapping[str, object]) -> bool:
        """Grey values of a series follow all of its images, so that one of them can keep the others from theirs."""
        undisturbed = {name: row for name in differing if (row := self._undisturbed[1].get(name)) is not None}
        lost = [name for name, row in undisturbed.items() if differing[name] is None and row.get("slice") is None]
        without_answer = [row for name, row in differing.items() if name not in undisturbed and _is_failed(row)]
        return all(row.get("series") for row in undisturbed.values()) and len(lost) <= len(without_answer)


def _is_told(lines: Sequence[str]) -> bool:
    return any(line.startswith("Warning: ") and " Fix: " in line for line in lines)


def _is_failed(row: object) -> bool:
    return isinstance(row, dict) and bool(row.get("error"))

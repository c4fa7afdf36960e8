"""`pytest -m gpu` where every test was skipped has tested nothing, and says so by failing."""

from collections.abc import Generator

import pytest
from _pytest.terminal import TerminalReporter

_RAN = ("passed", "failed", "error", "xfailed", "xpassed")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session of the GPU tests in which none has run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, TerminalReporter) and _skipped_all(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> Generator[None, None, None]:
    """Give the reasons, after everything else."""
    yield
    if _skipped_all(terminalreporter):
        skipped = terminalreporter.stats["skipped"]
        reasons = sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped})
        terminalreporter.write_line(
            f"Every GPU test was skipped, so nothing was tested: {'; '.join(reasons)}", red=True
        )


def _skipped_all(reporter: TerminalReporter) -> bool:
    stats = reporter.stats
    return reporter.config.option.markexpr == "gpu" and "skipped" in stats and not any(map(stats.get, _RAN))

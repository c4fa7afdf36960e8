"""docs/quickstart.ipynb runs from its first cell to its last, and what is committed holds nothing of a machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]


def kinds(path: Path) -> list[tuple[str, list[str]]]:
    return [(output["output_type"], sorted(output.get("data", ()))) for output in outputs(path)]


def test_the_notebook_runs_and_shows_what_is_committed(tmp_path: Path) -> None:
    folders = {"HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"}
    environ = os.environ | {name: str(tmp_path / name.lower()) for name in folders}
    executed = tmp_path / "executed.ipynb"
    command = [sys.executable, "docs/run_quickstart.py", "--out", str(executed)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kinds(executed) == kinds(NOTEBOOK), "what a cell shows has changed: make picture"


def test_tables_of_the_report_are_written_and_not_shown() -> None:
    """rich draws into the notebook where it finds one, whatever stream it is given."""
    shown = [output for output in outputs(NOTEBOOK) if output["output_type"] == "display_data"]
    assert [sorted(output["data"]) for output in shown] == [["image/png", "text/plain"]]


def test_the_committed_notebook_holds_no_error_and_no_path_of_a_machine() -> None:
    text = NOTEBOOK.read_text()
    assert not [output for output in outputs(NOTEBOOK) if output["output_type"] == "error"]
    assert not re.search(r"/(home|root|tmp|work|Users|usr)/", text) and "Research use only" in text
    assert set(json.loads(text)["metadata"]) == {"kernelspec", "language_info"}

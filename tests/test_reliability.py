"""docs/reliability.md says what the committed results say, and says it of every kind of result."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def test_the_table_is_what_the_results_say() -> None:
    command = [sys.executable, "-m", "docs.make_reliability", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stderr}: make docs"


RESULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "damage-real-3images.json": (
        {
            "files_as_they_are": {"ok": 2, "truncated": 1},
            "kinds": {
                "jpeg-baseline": {"made": 4, "found": 4, "whole": 1, "false_alarms": 0},
                "jpeg-progressive": {"made": 2, "found": 1, "whole": 1, "false_alarms": 0},
                "bmp": {"made": 4, "found": 1, "whole": 1, "false_alarms": 0},
            },
        },
        ["| 6 | 5 of 6 found (83.3%) |", "| bmp files of real slices", "| 3 | **2 of 3 ok; 1 called bad** |"],
    ),
    "faults-sweep-2cores-9faults.json": (
        {"scenarios": {"resume": {"faults": 9, "ends": {"row": 8, "bad": 1}}}},
        ["a call of the file system fails: resume | 9 | **8 of 9 ended"],
    ),
    "faults-kills-2cores-5kills.json": (
        {"modes": {"worker": {"kills": 5, "problems": []}}},
        ["SIGKILL at a random moment: worker | 5 | all resumed to the same table"],
    ),
    "flipped_bytes-10rows.json": (
        {"flipped_bytes": 7, "noticed": 6, "verify_rows": 10, "verify_core_seconds": 0.1, "command": "x"},
        ["| 7 | **6 of 7 noticed by `mribatch verify`; 1 not** |"],
    ),
    "fuzz-readers-2cores.json": (
        {"command": "x", "targets": {"graphs": {"executions": 12345, "findings": []}}},
        ["atheris on the reader of ONNX graphs | 12,345 | all refused or read"],
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_becomes_lines_and_what_failed_is_bold(name: str, tmp_path: Path) -> None:
    content, wanted = RESULTS[name]
    (tmp_path / name).write_text(json.dumps(content))
    code = (
        "import sys; from pathlib import Path; from docs.make_reliability import table; print(table(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for text in wanted:
        assert text in shown, shown


def test_no_result_is_no_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from docs.make_reliability import table; print(table(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(shown.splitlines()) == 2

"""2,000 real slices among 60 broken files: each with its row, and none changed by its neighbours."""

import json
import shutil
from itertools import cycle, islice
from pathlib import Path

from mribatch.core.errors import ExitCode
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from tests.broken_files import broken_files
from tests.folders import rows


def test_2000_real_files_with_60_broken_ones(data_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    real = sorted((data_folder / "brain-mri").rglob("*.jpg"))[:2000]
    for path in real:
        target = tmp_path / "data" / path.relative_to(data_folder / "brain-mri")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    options = ClassifyOptions(model=str(tiny_model))
    assert classify([tmp_path / "data"], tmp_path / "clean", options).exit_code is ExitCode.OK
    folders = sorted({path.parent for path in (tmp_path / "data").rglob("*.jpg")})
    expected = {}
    for number, (name, (content, status)) in enumerate(islice(cycle(broken_files().items()), 60)):
        path = folders[number % len(folders)] / f"broken_{number:02d}_{name}.jpg"
        path.write_bytes(content)
        expected[str(path.relative_to(tmp_path / "data"))] = status
    assert len({name.split("_", 2)[2] for name in expected}) >= 15
    summary = classify([tmp_path / "data"], tmp_path / "out", options)
    got = {row["path"]: row for row in rows(tmp_path / "out")}
    assert (summary.files, len(got), summary.exit_code) == (2060, 2060, ExitCode.ROWS_NOT_OK)
    assert {path: row["status"] for path, row in got.items() if row["status"] != "ok"} == expected
    for row in rows(tmp_path / "clean"):
        assert {**got[row["path"]], "index": 0} == {**row, "index": 0}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "complete"

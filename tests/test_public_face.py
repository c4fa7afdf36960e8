"""`import mribatch` as a person in a notebook meets it."""

import dataclasses
import inspect
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

import mribatch
from mribatch import ClassifyOptions, MribatchError, ReportOptions, Run, RunReport, classify, open_run, report
from mribatch.report.metrics_file import METRICS_JSON
from tests.folders import draw_images, rows
from tests.make_models import make_tiny

HEAVY = ("numpy", "pyarrow", "cv2", "onnxruntime", "sklearn", "tqdm", "tensorflow", "sqlite3", "pandas", "click")


def python(code: str, *arguments: object, **options: object) -> str:
    """What a new process prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve slices in class folders, and one empty file. Not to be changed."""
    folder = tmp_path_factory.mktemp("face") / "scans"
    draw_images(folder, 12)
    (folder / "empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def run(scans: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run without a report. Not to be changed."""
    return classify(scans, tmp_path_factory.mktemp("run") / "results", model=str(tiny_model))


# ------------------------------------------------------------------------------------------------- import


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, mribatch; dir(mribatch); print([name for name in {HEAVY!r} if name in sys.modules])"
    assert python(code) == "[]\n"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in mribatch.__all__:
        assert getattr(mribatch, name) is not None
        assert name in dir(mribatch)
    with pytest.raises(AttributeError, match="module 'mribatch' has no attribute 'clasify'"):
        mribatch.clasify  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "from mribatch import report",
        "import mribatch.report.metrics; from mribatch import report",
        "from mribatch import report; import mribatch.report.metrics; from mribatch import report",
        "import mribatch; report = mribatch.report; import mribatch.report.metrics as m; assert m.RESAMPLES",
    ],
)
def test_report_is_the_function_whatever_was_imported_before(code: str) -> None:
    text = python(f"{code}; import inspect; print(list(inspect.signature(report).parameters))")
    assert text == "['run', 'groups', 'group_by', 'require', 'require_low', 'protocol', 'seed', 'html']\n"


def test_the_command_line_is_also_python_m_mribatch() -> None:
    result = subprocess.run([sys.executable, "-m", "mribatch", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"mribatch, version {mribatch.__version__}\n"


# ------------------------------------------------------------------------------------------------- classify


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path], lambda path: (str(path), path / "empty.jpg")])
def test_one_input_or_several(kind: object, scans: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ClassifyOptions(model=str(tiny_model), threads=1)
    found = classify(kind(scans), tmp_path / "out", options, batch_size=4)  # type: ignore[operator]
    assert (found.counts.rows, found.facts.threads, found.facts.batch_size) == (13, 1, 4)


def test_a_run_has_counts_classes_and_rows(run: Run, scans: Path) -> None:
    assert (run.counts.rows, run.counts.labelled, run.exit_code) == (13, 12, 3)
    assert run.counts.by_status == {"empty": 1, "ok": 12}
    assert sum(run.counts.by_class.values()) == 12
    assert run.classes == ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    table = run.to_arrow()
    assert table.to_pylist() == rows(run.path)
    assert table.schema.metadata[b"mribatch.model"] == b"tiny" and b"mribatch.part" not in table.schema.metadata
    assert list(run.to_pandas()["path"]) == table["path"].to_pylist()


def test_more_than_one_part_is_one_table(tiny_model: Path, tmp_path: Path) -> None:
    (image,) = draw_images(tmp_path / "one", 1)
    (tmp_path / "many").mkdir()
    for number in range(1030):
        os.link(image, tmp_path / "many" / f"{number:04d}.jpg")
    run = classify(tmp_path / "many", tmp_path / "out", model=str(tiny_model))
    assert len(list((run.path / "predictions").iterdir())) == 2
    assert run.to_arrow()["index"].to_pylist() == list(range(1030))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"batch_size": 0}, "batch_size 0 is out of range. Fix: choose a value from 1 to 1024"),
        ({"timeout_s": 0}, "timeout_s 0 is out of range. Fix: choose a value from 0.001 to 86400"),
    ],
)
def test_errors_speak_of_parameters(options: dict[str, Any], problem: str, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(MribatchError) as caught:
        classify(scans, tmp_path / "out", **options)
    assert str(caught.value) == problem


def test_another_run_in_the_folder_is_refused_in_the_words_of_python(run: Run, scans: Path, tiny_model: Path) -> None:
    with pytest.raises(MribatchError) as caught:
        classify(scans, run.path, model=str(tiny_model), batch_size=3)
    assert "now it is 3. Fix: name another out, or replace the run with overwrite=True" in str(caught.value)


def test_an_option_that_does_not_exist_is_a_type_error(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        classify(scans, tmp_path / "out", batchsize=3)


# ------------------------------------------------------------------------------------------------- open_run


def test_a_run_is_opened_again(run: Run) -> None:
    again = open_run(str(run.path))
    assert (again.facts, again.counts, again.exit_code) == (run.facts, run.counts, run.exit_code)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is not the output folder of a run: it has no run.json"),
        ("{", "is damaged or of another version: its run.json cannot be read"),
        ('{"tool": "another"}', "is damaged or of another version: its run.json was not written by mribatch"),
        ("{}", "was not written by mribatch"),
    ],
)
def test_what_is_not_a_run_is_refused(text: str | None, problem: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(MribatchError) as caught:
        open_run(tmp_path)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"state": "interrupted"}, "is not complete: its state is 'interrupted'"),
        ({"counts": {}}, "it has no counts or classes"),
        ({"counts": {"rows": 13}}, "'counts.by_status' is missing"),
        ({"bundle": None}, "'bundle' is not an object"),
        ({"attempts": [{"pid": 3}]}, "'attempts[0].started' is missing"),
    ],
)
def test_a_damaged_or_unfinished_run_is_refused(
    change: dict[str, object], problem: str, run: Run, tmp_path: Path
) -> None:
    content = json.loads((run.path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(content | change))
    with pytest.raises(MribatchError) as caught:
        open_run(tmp_path)
    assert problem in str(caught.value)


def test_rows_that_do_not_add_up_are_refused(run: Run, tmp_path: Path) -> None:
    content = json.loads((run.path / "run.json").read_text())
    content["counts"]["rows"] = 14
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(MribatchError, match=r"holds no part-\*\.parquet"):
        open_run(tmp_path).to_arrow()
    (tmp_path / "predictions").symlink_to(run.path / "predictions")
    with pytest.raises(MribatchError, match=r"holds 13 rows, its run\.json counts 14"):
        open_run(tmp_path).to_arrow()


# ------------------------------------------------------------------------------------------------- report


def test_metrics_are_measured_when_they_are_first_wanted(run: Run) -> None:
    assert not (run.path / METRICS_JSON).exists()
    first = run.metrics
    assert (run.path / METRICS_JSON).exists()
    assert first[0].metric == "accuracy" and first[0].n == 12
    result = run.report(group_by="patient=slice_0000(.)", protocol="drawn", require="accuracy>=1.01")
    assert isinstance(result, RunReport)
    assert run.metrics == result.metrics != first  # the report in the folder, not another one
    assert {metric.protocol.split("; ")[0] for metric in result.metrics} == {"drawn"}
    assert result.to_arrow().num_rows == len(result.metrics) == len(result.to_pandas())
    assert len(result.unmet) == 1
    with pytest.raises(MribatchError, match="< 1.01"):
        result.check()
    (run.path / METRICS_JSON).write_text("{")
    with pytest.raises(
        MribatchError, match=r"metrics\.json is not a metrics\.json of this version.*Fix: measure the run again"
    ):
        run.metrics  # noqa: B018
    report(run.path).check()


def test_without_a_label_there_are_no_metrics(scans: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = classify(scans, tmp_path / "out", model=str(tiny_model), labels="none")
    assert run.metrics == ()
    assert "No metrics: the run was made with" in repr(run.report())


def test_the_parameters_of_report_are_its_options() -> None:
    assert set(inspect.signature(report).parameters) == {field.name for field in dataclasses.fields(ReportOptions)}


# ------------------------------------------------------------------------------------------------- as text and as HTML


def test_a_run_is_a_few_lines(run: Run) -> None:
    lines = repr(run).splitlines()
    assert lines[0] == f"<mribatch.Run '{run.path}': 13 files: 12 ok, 1 failed"
    assert lines[1:3] == ["  model tiny, onnxruntime + opencv", "  failed: empty 1"]
    assert len(lines) == 4
    assert 5 < len(repr(report(run)).splitlines()) < 15


def test_names_of_strangers_are_escaped(scans: Path, tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny", trained=False)
    folder = tmp_path / "<script>alert(1)</script>\n\x1b[2J"
    run = classify(scans, folder, model=str(model))
    for shown in (run._repr_html_(), run.report()._repr_html_()):
        assert "<script>" not in shown and "&lt;script&gt;" in shown and "\x1b" not in shown
        assert "is not a trained model" in shown and "Research use only" in shown
    for text in (repr(run), repr(run.report())):
        assert "\x1b" not in text and r"\x1b" in text


# ------------------------------------------------------------------------------------------------- pandas and progress


def test_without_pandas_the_fix_is_named(run: Run) -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import mribatch\n"
        "try: mribatch.open_run(sys.argv[1]).to_pandas()\n"
        "except mribatch.MribatchError as error: print(error)"
    )
    assert python(code, run.path) == "pandas is not installed. Fix: pip install pandas, or use to_arrow()\n"


CLASS_OF_PROGRESS = """
import sys
from mribatch.pipeline.progress import progress_in_python
bar = progress_in_python()
bar.start(1000, 0)
import time; time.sleep(0.6)
bar.advance(500, 1)
bar.close()
print(type(bar).__name__)
"""


def test_there_is_no_progress_where_nobody_looks() -> None:
    assert python(CLASS_OF_PROGRESS) == "SilentProgress\n"


def test_there_is_a_bar_in_a_terminal() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # of no width, nothing would be drawn
    os.set_blocking(ours, False)
    result = subprocess.run(
        [sys.executable, "-c", CLASS_OF_PROGRESS], stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    shown = os.read(ours, 65_536)
    os.close(theirs)
    os.close(ours)
    assert result.stdout == b"BarProgress\n" and b"500/1000" in shown


def test_there_is_a_bar_in_a_notebook_also_without_widgets(tmp_path: Path) -> None:
    (tmp_path / "ipykernel").mkdir()
    (tmp_path / "ipykernel" / "__init__.py").touch()
    (tmp_path / "ipykernel" / "zmqshell.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ipykernel.zmqshell\n{CLASS_OF_PROGRESS}"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "BarProgress\n" and "500/1000" in result.stderr

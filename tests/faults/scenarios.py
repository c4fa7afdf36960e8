"""The commands of the sweep: what they begin with, what they are asked, and what they must have made in the end."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.pipeline.output.parts import read_table
from tests.faults.server import Server
from tests.folders import draw_images
from tests.make_models import make_tiny
from tests.studies import write_series, write_volume

Rows = Mapping[str, Mapping[str, Any]]
CLASSES = "glioma_tumor,meningioma_tumor,no_tumor,pituitary_tumor"


@dataclass(frozen=True)
class Place:
    """The folders of a sweep."""

    root: Path

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def out(self) -> Path:
        """What the command writes, and is put back before each fault."""
        return self.root / "out"

    @property
    def before(self) -> Path:
        """What is in `out` before the command, where there is anything."""
        return self.root / "before"

    def restore(self) -> None:
        """Put `out` back."""
        shutil.rmtree(self.out, ignore_errors=True)
        if self.before.exists():
            shutil.copytree(self.before, self.out)


@dataclass(frozen=True)
class Scenario:
    """One command, tried with every fault.

    name: For people. command: What is run, and run again. prepare: Makes `before`. rows: What it has made, by row or
    file. watched: Whose calls fail.
    """

    name: str
    command: Callable[[Place], Sequence[object]]
    rows: Callable[[Place], Rows]
    prepare: Callable[[Place, Server], None] = lambda place, server: None
    watched: Callable[[Place], Sequence[Path]] = lambda place: [place.inputs, place.out]
    is_run: bool = field(default=True)  # whether `mribatch verify` has something to say in the end


def draw_inputs(place: Place) -> None:
    """Plain images, one of them empty, DICOM files without a suffix, and a NIfTI volume; and the model."""
    draw_images(place.inputs, 6)
    (place.inputs / "broken.jpg").write_bytes(b"")
    write_series(place.inputs / "study", 3)
    write_volume(place.inputs / "volume.nii", 2)
    make_tiny(place.model, trained=True)


_PSEUDONYMS = ("patient", "study", "series")


def run_rows(place: Place) -> Rows:
    """The rows of a run by path and slice.

    Their place in the listing is none of their content, nor are pseudonyms, which are of a new key in each run.
    """
    rows = read_table(place.out).to_pylist()
    return {f"{row['path']} {row['slice']}": row | _same(row) for row in rows}


def hidden_rows(place: Place) -> Rows:
    """The rows of a run that hides paths, by what they are of."""
    rows = read_table(place.out).to_pylist()
    return {f"{row['sha256']} {row['slice']}": row | _same(row) | {"path": ""} for row in rows}


def _same(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": 0} | {name: row[name] and "pseudonym" for name in _PSEUDONYMS}


def file_rows(*names: str) -> Callable[[Place], Rows]:
    """The hashes of files in `out`."""

    def read(place: Place) -> Rows:
        paths = [path for name in names for path in sorted(place.out.glob(name))]
        return {path.name: {"sha256": sha256(path.read_bytes()).hexdigest()} for path in paths}

    return read


def bundle_rows(place: Place) -> Rows:
    """What a bundle says, but the day on which it was made."""
    content = json.loads((place.out / "bundle" / "bundle.json").read_text())
    return {"bundle": {key: content[key] for key in ("name", "classes", "model", "golden") if key in content}}


def _classify(*options: object) -> Callable[[Place], Sequence[object]]:
    return lambda place: [
        *("classify", place.inputs, "--out", place.out, "--model", place.model, "--batch-size", 4, "--threads", 2),
        *("--quiet", *options),
    ]


def _interrupt(place: Place, server: Server) -> None:
    """A run that a budget of failures has stopped: its first rows are in a partial file."""
    place.restore()
    server.run([*_classify("--csv")(place), "--max-failures", 0])
    shutil.copytree(place.out, place.before)
    assert list((place.before / "predictions").glob(".part*.partial"))


def _finish(place: Place, server: Server) -> None:
    place.restore()
    server.run(_classify()(place))
    shutil.copytree(place.out, place.before)


def _grow(place: Place, server: Server) -> None:
    """A finished run whose folder has two more files."""
    _finish(place, server)
    draw_images(place.inputs / "later", 2)


def _write_onnx(place: Place, server: Server) -> None:
    from tests.training.onnx_models import classifier, saved

    place.before.mkdir()
    saved(classifier(), place.inputs / "mine.onnx")


SCENARIOS = (
    Scenario("classify", _classify("--csv"), run_rows),
    Scenario("classify, hidden", _classify("--anonymize-paths", "--labels", "none"), hidden_rows),
    Scenario("resume", _classify("--csv"), run_rows, _interrupt),
    Scenario("add-new", _classify("--add-new"), run_rows, _grow),
    Scenario(
        "report",
        lambda place: ["report", place.out, "--group-by", "patient=(slice_0000)"],
        file_rows("metrics.*", "report.md", "report.html", "patients.*"),
        _finish,
        lambda place: [place.out, place.inputs],
    ),
    Scenario("verify", lambda place: ["verify", place.out, "--inputs"], lambda place: {}, _finish),
    Scenario(
        "export",
        lambda place: [
            *("export", place.inputs / "mine.onnx", "--out", place.out / "bundle", "--classes", "a,b,c"),
            *("--scale", "1/255", "--quiet", "--overwrite"),
        ],
        bundle_rows,
        _write_onnx,
        is_run=False,
    ),
    Scenario(
        "engine cache",
        lambda place: ["engine-steps", place.out / "cache", place.model],
        file_rows("cache/*.engine"),  # timings may be missing: that costs time only
        lambda place, server: place.before.mkdir(),
        is_run=False,
    ),
    Scenario(
        "engine clean",
        lambda place: ["engine", "clean", "--cache", place.out / "cache"],
        file_rows("cache/*.engine"),
        lambda place, server: _fill_cache(place, server),
        is_run=False,
    ),
)


def _fill_cache(place: Place, server: Server) -> None:
    place.out.mkdir()
    server.run(["engine-steps", place.out / "cache", place.model])
    shutil.copytree(place.out, place.before)

"""What is fuzzed: readers of strangers' bytes, each with the inputs that it begins with.

A reader may refuse its input by a `MribatchError`, or a `ValueError` where its documentation says so. Anything else
that it raises, and an answer that contradicts itself, is a finding.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.fuzz.mutators import Mutator, mutate_image, mutate_json
from mribatch.core.bundle import GOLDEN_FILE, MODEL_FILE, SPEC_FILE, TRAINING_IMAGES_FILE, load_bundle
from mribatch.core.csv_rows import open_csv
from mribatch.core.errors import MribatchError
from mribatch.core.onnx_graph import read_graph_facts
from mribatch.core.training_images import TrainingImages
from mribatch.pipeline.listing.labels import TableLabels
from mribatch.pipeline.listing.name_list import read_names
from mribatch.pipeline.output.run_file import parse_run_file
from mribatch.report.groups import COLUMN_NAMES, find_kinds, read_groups_table
from mribatch.trt.engine.sidecar import parse_sidecar

Case = Callable[[bytes], bool]
"""Feeds one input to a reader; whether it was taken. What it raises is a finding."""


@dataclass(frozen=True)
class Target:
    """A reader to be fuzzed.

    Attributes:
        prepare: Takes a folder of its own, which may be written to, and returns the case.
        seeds: Inputs to begin with.
        longest: Bytes of an input at most.
        mutator: Makes an input of another; None: libFuzzer's own.
    """

    prepare: Callable[[Path], Case]
    seeds: Callable[[], list[bytes]]
    longest: int = 8192
    mutator: Mutator | None = None


def _images(_: Path) -> Case:
    from tests.pipeline.decode.test_fuzz import run_case

    def case(data: bytes) -> bool:
        return run_case(data)[1] == "ok"

    return case


def _image_seeds() -> list[bytes]:
    from tests.pipeline.decode.test_fuzz import corpus

    return list(dict.fromkeys(corpus()))


def _studies(folder: Path) -> Case:
    from tests.pipeline.decode.test_fuzz_studies import run_case

    def case(data: bytes) -> bool:
        return bool(data) and run_case(folder / "case", data)[1] == "ok"

    return case


def _study_seeds() -> list[bytes]:
    from tests.pipeline.decode.test_fuzz_studies import corpus

    return list(dict.fromkeys(corpus()))


# ------------------------------------------------------------------------------------------------------------- bundles

_PARTS = {b"j": SPEC_FILE, b"m": MODEL_FILE, b"g": GOLDEN_FILE, b"t": TRAINING_IMAGES_FILE}  # by an input's first byte
_DIGESTS = {MODEL_FILE: "model_sha256", GOLDEN_FILE: "golden_sha256", TRAINING_IMAGES_FILE: "training_images_sha256"}


def _bundles(folder: Path) -> Case:
    """One file of a bundle is replaced, and bundle.json has its hash."""
    from tests.make_models import make_tiny

    make_tiny(folder / "bundle", trained=True)
    whole = {path.name: path.read_bytes() for path in (folder / "bundle").iterdir()}

    def case(data: bytes) -> bool:
        name, content = _PARTS.get(data[:1], SPEC_FILE), data[1:]
        files = {**whole, name: content}
        if name != SPEC_FILE:
            spec = json.loads(whole[SPEC_FILE]) | {_DIGESTS[name]: sha256(content).hexdigest()}
            files[SPEC_FILE] = json.dumps(spec).encode()
        for one in {SPEC_FILE, name}:
            (folder / "bundle" / one).write_bytes(files[one])
        with _refusing() as refused:
            load_bundle(str(folder / "bundle"))
        if name in whole:
            (folder / "bundle" / name).write_bytes(whole[name])
        return not refused

    return case


def _bundle_seeds() -> list[bytes]:
    import tempfile

    import numpy as np

    from tests.make_models import make_tiny

    with tempfile.TemporaryDirectory() as folder:
        bundle = make_tiny(Path(folder) / "bundle", trained=True)
        seeds = [mark + (bundle / name).read_bytes() for mark, name in _PARTS.items() if (bundle / name).exists()]
    hashes = TrainingImages.of_pixels(np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1))
    return [*seeds, b"t" + hashes.to_bytes()]


def _graphs(_: Path) -> Case:
    def case(data: bytes) -> bool:
        try:
            read_graph_facts(data)
        except ValueError:
            return False
        return True

    return case


def _graph_seeds() -> list[bytes]:
    from tests.make_models import tiny_model

    return [tiny_model(2), tiny_model(4, nan_on_white=True)]


# ------------------------------------------------------------------------------------------------------ tables and JSON


def _tables(folder: Path) -> Case:
    """The first byte says which reader: labels, groups, or a list of names."""
    from tests.make_models import make_tiny

    spec = load_bundle(str(make_tiny(folder / "bundle", trained=True))).spec
    table = folder / "table.csv"

    def labels() -> None:
        TableLabels(spec, table, folder / "labels.sqlite").close()

    def groups() -> None:
        kind = find_kinds(table, name="--groups", fix="fix")[0]
        found = read_groups_table(table, {kind: COLUMN_NAMES[kind]}, name="--groups", fix="fix", path_fix="fix")
        with contextlib.suppress(MribatchError):
            found.find_ids(list(found.ids)[:50], ["/data/set"] * min(50, len(found.ids)))

    def names() -> None:
        for null in (False, True):
            with table.open("rb") as stream, contextlib.suppress(MribatchError):
                list(read_names(stream, "list", null=null))

    def rows() -> None:
        with open_csv(table, name="table", fix="fix") as found:
            list(found.rows(range(len(found.header))))

    readers = {b"l": labels, b"g": groups, b"n": names}

    def case(data: bytes) -> bool:
        table.write_bytes(data[1:])
        with _refusing() as refused:
            readers.get(data[:1], rows)()
        return not refused

    return case


def _table_seeds() -> list[bytes]:
    return [
        b'lpath,label\na/1.jpg,no_tumor\n"a/2,3.jpg",Glioma Tumor\n',
        b"l\xef\xbb\xbfpath,label\r\n.\\a\\1.jpg,no_tumor\r\n,\r\n",
        b'gpath,patient_id,series\na/1.jpg,P1,S1\na/2.jpg,P1,"S""2"\n',
        b"gpath,group_id\n./a/1.jpg, 7\n",
        b"na/1.jpg\nb 2.png\r\n\n",
        b"n\xff\xfea\0/\0001\0\n\0",
        b"na\0b\0",
        b'ra,b\n1,2,3\n4\n"x\ny",\xe9\n',
    ]


def _records(_: Path) -> Case:
    """The first byte says which: run.json, or the sidecar of an engine."""

    def case(data: bytes) -> bool:
        try:
            if data[:1] == b"s":
                parse_sidecar(data[1:], Path("x.engine.json"))
            else:
                parse_run_file(data[1:])
        except (MribatchError, ValueError):
            return False
        return True

    return case


def _record_seeds() -> list[bytes]:
    import tempfile

    from tests.finished_run import Row, write_run
    from tests.trt.engine.test_sidecar import EARLIER

    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", [Row("a.png", "no_tumor", (0.1, 0.2, 0.3, 0.4))])
        return [b"r" + (run / "run.json").read_bytes(), b"s" + json.dumps(EARLIER).encode()]


@contextlib.contextmanager
def _refusing() -> Iterator[list[MribatchError]]:
    """Collect the refusal; it must be one line with a fix."""
    refused: list[MribatchError] = []
    try:
        yield refused
    except MribatchError as error:
        if not error.problem or not error.fix or "\n" in str(error):
            raise AssertionError(f"not one line with a fix: {error!r}") from error
        refused.append(error)


TARGETS = {
    "images": Target(_images, _image_seeds, 32768, mutate_image),
    "studies": Target(_studies, _study_seeds, 20000),
    "bundles": Target(_bundles, _bundle_seeds, mutator=mutate_json),
    "graphs": Target(_graphs, _graph_seeds, 4096),
    "tables": Target(_tables, _table_seeds, 2048),
    "records": Target(_records, _record_seeds, 4096, mutate_json),
}

"""Runs on tar and zip files: the rows of the folder that they were made of, whoever reads them."""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.entry import SkipReason
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.broken_files import broken_files
from tests.folders import draw_images, rows
from tests.pipeline.storage.archives import read_folder, write_tar, write_zip

Run = Callable[..., RunSummary]
WITHOUT_PLACE = ("index", "input", "path")


@pytest.fixture
def run(tiny_model: Path) -> Run:
    def call(inputs: Path | list[Path], out: Path, **changes: Any) -> RunSummary:
        fixed: dict[str, Any] = {"model": str(tiny_model), "precision": "fp32", "batch_size": 8, "threads": 2}
        options = ClassifyOptions(**fixed | changes)
        return classify(inputs if isinstance(inputs, list) else [inputs], out, options)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound and broken images in folders that are named after classes."""
    folder = tmp_path_factory.mktemp("images") / "data"
    draw_images(folder, 40)
    for name, (content, _) in broken_files().items():
        (folder / "no_tumor" / name).write_bytes(content)
    return folder


def without_paths(run_folder: Path, prefix: str = "") -> list[dict[str, Any]]:
    """The rows; paths without what they begin with."""
    return [row | {"path": row["path"].removeprefix(prefix)} for row in rows(run_folder)]


@pytest.fixture(scope="module")
def expected(data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("expected") / "run"
    classify([data], out, ClassifyOptions(model=str(tiny_model), precision="fp32", batch_size=8, threads=2))
    return without_paths(out)


@pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"decoder": "dali"}], ids=["in process", "workers", "dali"])
@pytest.mark.parametrize(("name", "write"), [("a.tar", write_tar), ("a.zip", write_zip)])
def test_an_archive_has_the_rows_of_its_folder(
    run: Run,
    data: Path,
    expected: list[dict[str, Any]],
    tmp_path: Path,
    name: str,
    write: Callable[..., Path],
    changes: dict[str, Any],
) -> None:
    if "decoder" in changes:
        pytest.importorskip("nvidia.dali")
    write(tmp_path / name, read_folder(data))
    run(tmp_path / name, tmp_path / "run", **changes)
    found = without_paths(tmp_path / "run", f"{name}/")
    if "decoder" in changes:  # other pixels by a rounding; everything else is the same
        keep = ("path", "status", "error", "label", "width", "height", "bytes", "sha256")
        assert [[row[key] for key in keep] for row in found] == [[row[key] for key in keep] for row in expected]
    else:
        assert found == expected
    verified = verify_run(tmp_path / "run", inputs=True)
    assert (verified.problems, verified.input_files) == (0, sum(row["sha256"] is not None for row in expected))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "run"]


def test_a_folder_of_shards_has_the_rows_of_the_folder_they_were_made_of(
    run: Run, data: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    files = list(read_folder(data).items())
    (tmp_path / "shards").mkdir()
    for number in range(5):
        write_tar(tmp_path / "shards" / f"{number:03d}.tar", dict(files[number::5]))
    run(tmp_path / "shards", tmp_path / "run")
    found = [row | {"path": row["path"].partition("/")[2]} for row in rows(tmp_path / "run")]
    by_path = {row["path"]: row for row in expected}
    assert len(found) == len(expected)
    assert all(row | {"index": 0} == by_path[row["path"]] | {"index": 0} for row in found)
    assert all(row["path"].startswith(f"00{row['path'][2]}.tar/") for row in rows(tmp_path / "run"))


def test_shards_of_a_run_read_the_archive_by_themselves(run: Run, data: Path, tmp_path: Path) -> None:
    from mribatch.pipeline.merge import merge

    write_zip(tmp_path / "a.zip", read_folder(data))
    run(tmp_path / "a.zip", tmp_path / "whole")
    for number in (1, 2):
        run(tmp_path / "a.zip", tmp_path / f"shard-{number}", shard=f"{number}/2")
    merge([tmp_path / "shard-1", tmp_path / "shard-2"], tmp_path / "merged")
    assert rows(tmp_path / "merged") == rows(tmp_path / "whole")


def test_a_run_on_an_archive_is_resumed(run: Run, data: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", read_folder(data))
    run(tmp_path / "a.tar", tmp_path / "run")
    before = rows(tmp_path / "run")
    assert run(tmp_path / "a.tar", tmp_path / "run").new_rows == 0
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    with pytest.raises(MribatchError, match="holds another run: the listing differs"):
        run(tmp_path / "a.tar", tmp_path / "run")
    assert rows(tmp_path / "run") == before


def test_an_archive_that_changes_during_the_run_is_flagged(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mribatch.pipeline import run as run_module

    write_tar(tmp_path / "a.tar", read_folder(data))
    list_files = run_module._list_files

    def then_touch(*arguments: Any) -> Any:
        facts = list_files(*arguments)
        os.utime(tmp_path / "a.tar", ns=(1, 1))
        return facts

    monkeypatch.setattr(run_module, "_list_files", then_touch)
    run(tmp_path / "a.tar", tmp_path / "run")
    assert all("changed_since_listing" in row["flags"] for row in rows(tmp_path / "run") if row["status"] == "ok")


def test_an_archive_that_vanishes_during_the_run_has_a_row_for_each_image(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mribatch.pipeline import run as run_module

    write_tar(tmp_path / "a.tar", read_folder(data))
    list_files = run_module._list_files

    def then_delete(*arguments: Any) -> Any:
        facts = list_files(*arguments)
        (tmp_path / "a.tar").unlink()
        return facts

    monkeypatch.setattr(run_module, "_list_files", then_delete)
    run(tmp_path / "a.tar", tmp_path / "run", keep_going=True)
    assert {row["status"] for row in rows(tmp_path / "run")} == {"unreadable"}


def test_new_members_are_added_where_the_archive_is_otherwise_the_same(run: Run, data: Path, tmp_path: Path) -> None:
    files = list(read_folder(data).items())
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "000.tar", dict(files[:20]))
    run(folder, tmp_path / "run")
    write_tar(folder / "001.tar", dict(files[20:]))
    run(folder, tmp_path / "run", add_new=True)
    assert [row["path"].partition("/")[2] for row in rows(tmp_path / "run")] == [name for name, _ in files]


def test_hidden_paths_hide_the_names_in_an_archive(run: Run, data: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", read_folder(data))
    run(tmp_path / "a.zip", tmp_path / "run", anonymize_paths=True)
    assert sum(row["status"] == "ok" for row in rows(tmp_path / "run")) == 40
    assert b"slice_" not in (tmp_path / "run/listing.parquet").read_bytes()


def test_what_is_left_out_of_an_archive_has_its_reason(run: Run, tmp_path: Path) -> None:
    picture = draw_images(tmp_path / "data", 1)[0].read_bytes()
    names = ("a.jpg", "../b.jpg", "__MACOSX/._a.jpg", "notes.txt", "brain.hdr", "brain.img", "x/drop.jpg", "a.jpg")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, picture)
    summary = run(tmp_path / "a.zip", tmp_path / "run", exclude=("drop.jpg",))
    skipped = {row["path"]: row["reason"] for row in pq.read_table(tmp_path / "run/skipped.parquet").to_pylist()}
    assert skipped == {
        "a.zip/../b.jpg": SkipReason.ARCHIVE_MEMBER,
        "a.zip/__MACOSX/._a.jpg": SkipReason.OTHER_PROGRAM,
        "a.zip/notes.txt": SkipReason.SUFFIX,
        "a.zip/brain.hdr": SkipReason.STUDY_ELSEWHERE,
        "a.zip/brain.img": SkipReason.STUDY_ELSEWHERE,
        "a.zip/x/drop.jpg": SkipReason.EXCLUDED,
        "a.zip/a.jpg": SkipReason.DUPLICATE,
    }
    assert ([row["path"] for row in rows(tmp_path / "run")], summary.exit_code) == (["a.zip/a.jpg"], 3)


def test_a_damaged_archive_beside_sound_ones_costs_only_what_is_in_it(run: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    files = read_folder(data)
    write_tar(folder / "000.tar", files)
    whole = (folder / "000.tar").read_bytes()
    (folder / "001.tar").write_bytes(whole[:20_000])
    (folder / "002.tar").write_bytes(b"no archive at all")
    summary = run(folder, tmp_path / "run")
    skipped = {row["path"]: row["detail"] for row in pq.read_table(tmp_path / "run/skipped.parquet").to_pylist()}
    assert set(skipped) == {"001.tar/", "002.tar/"}
    assert skipped["001.tar/"] == "it ends inside a header, after 20,000 bytes"
    cut = [row for row in rows(tmp_path / "run") if row["path"].startswith("001.tar/")]
    assert cut and {row["status"] for row in cut[:-1]} >= {"ok"} and summary.exit_code == 3
    assert sum(row["path"].startswith("000.tar/") for row in rows(tmp_path / "run")) == len(files)


def test_a_zip_beside_what_was_unpacked_from_it_is_read_only_where_it_is_named(
    run: Run, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "download"
    shutil.copytree(data, folder / "unpacked")
    images = len(read_folder(data))
    write_zip(folder / "a.zip", read_folder(data))
    assert run(folder, tmp_path / "walked").images == images
    skipped = pq.read_table(tmp_path / "walked" / "skipped.parquet").to_pylist()
    assert [row["reason"] for row in skipped if row["path"] == "a.zip"] == [SkipReason.SUFFIX]
    assert run(folder / "a.zip", tmp_path / "named").images == images


def test_a_member_that_is_cut_is_truncated_as_a_cut_file_is(run: Run, tmp_path: Path) -> None:
    files = read_folder(draw_images(tmp_path / "data", 1)[0].parent)
    path = write_tar(tmp_path / "a.tar", files)
    path.write_bytes(path.read_bytes()[: 512 + 300])
    run(path, tmp_path / "run")
    assert [row["status"] for row in rows(tmp_path / "run")] == ["truncated"]


def test_only_a_damaged_archive_is_an_error_of_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive at all")
    with pytest.raises(MribatchError, match="1 archive .that cannot be read to the end.*Fix: pack the archive again"):
        run(tmp_path / "a.zip", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encrypted_archive_has_a_row_for_each_image(run: Run, data: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"secret"})
    content = bytearray(path.read_bytes())
    for place in (6, content.index(b"PK\x01\x02") + 8):
        content[place] |= 1
    path.write_bytes(content)
    run(path, tmp_path / "run", keep_going=True)
    (row,) = rows(tmp_path / "run")
    assert (row["status"], row["error"]) == ("unreadable", "The file cannot be read: it is encrypted in its archive.")


def test_a_list_names_archives(run: Run, data: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", read_folder(data))
    (tmp_path / "names").write_text(f"{tmp_path / 'a.tar'}\n")
    run([], tmp_path / "run", from_file=str(tmp_path / "names"))
    assert without_paths(tmp_path / "run", f"{tmp_path / 'a.tar'}/") == expected


def test_a_folder_with_the_name_of_an_archive_is_a_folder(run: Run, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "a.tar")
    run(tmp_path, tmp_path / "run")
    assert all(row["path"].startswith("a.tar/") for row in rows(tmp_path / "run"))


def test_a_compressed_tar_file_is_named_with_what_to_do(run: Run, data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(MribatchError, match="as an uncompressed tar or a zip"):
        run(tmp_path / "a.tar", tmp_path / "run")


def test_an_estimate_looks_into_archives(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    from mribatch.pipeline.dry_run import estimate
    from mribatch.pipeline.progress import SilentProgress

    write_zip(tmp_path / "a.zip", read_folder(data))
    options = ClassifyOptions(model=str(tiny_model), precision="fp32")
    found = partial(estimate, options=options, progress=SilentProgress())
    assert found([tmp_path / "a.zip"], None).files == found([data], None).files

"""docs/rooms.py counts rooms and arrows, and sees circles."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "docs/rooms.py"
TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mribatch.pipeline.plan import Plan\n"


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The package as a folder of links: five rooms in pipeline, and one in core."""
    write(
        tmp_path,
        {
            "mribatch/__init__.py": "",
            "mribatch/__main__.py": "from mribatch.pipeline.run import run\n",
            "core/__init__.py": "",
            "core/errors.py": "class MribatchError(Exception): ...\n",
            "pipeline/__init__.py": "from mribatch.pipeline.run import run\n",
            "pipeline/run.py": "import mribatch.pipeline.plan\nfrom mribatch.pipeline import decode, plan\nfrom mribatch.core.errors import MribatchError\n",
            "pipeline/plan.py": "def plan():\n    from mribatch.pipeline.listing.labels import read\n    return read\n",
            "pipeline/listing/__init__.py": "",
            "pipeline/listing/labels.py": "",
            "pipeline/decode/__init__.py": "from mribatch.pipeline.listing.labels import read\n",
            "pipeline/decode/probe.py": "from mribatch.pipeline.decode.formats import png\nimport json, numpy\n",
            "pipeline/decode/formats/__init__.py": "",
            "pipeline/decode/formats/png.py": "def size():\n    wide = 1\n    return wide\n",
            "pipeline/records.py": TYPES_ONLY,
        },
    )
    for name in ("core", "pipeline"):
        (tmp_path / "mribatch" / name).symlink_to(Path("..") / name)
    return tmp_path


def arrows(rooms: ModuleType, root: Path, folder: str | None) -> list[str]:
    return [str(arrow) for arrow in rooms.arrows_between(rooms.read_imports(rooms.read_modules(root)), folder)]


def folder(rooms: ModuleType, root: Path, name: str) -> object:
    modules = rooms.read_modules(root)
    return rooms.measure(modules, rooms.read_imports(modules), name)


def test_each_sub_package_and_each_module_beside_it_is_a_room(rooms: ModuleType, tree: Path) -> None:
    found = rooms.rooms_of(rooms.read_modules(tree), "pipeline")
    assert [str(room) for room in found] == ["decode/", "listing/", "plan", "records", "run"]
    assert [room.modules for room in found] == [2, 1, 1, 1, 1]


def test_arrows_are_counted_once_and_from_everywhere(rooms: ModuleType, tree: Path) -> None:
    expected = ["decode -> listing", "plan -> listing", "records -> plan", "run -> decode", "run -> plan"]
    assert arrows(rooms, tree, "pipeline") == expected
    assert arrows(rooms, tree, None) == ["mribatch -> pipeline", "pipeline -> core"]


def test_an_import_for_type_checking_only_is_an_arrow(rooms: ModuleType, tree: Path) -> None:
    assert "records -> plan" in arrows(rooms, tree, "pipeline")
    write(tree, {"pipeline/records.py": ""})
    assert "records -> plan" not in arrows(rooms, tree, "pipeline")


def test_a_relative_import_is_an_arrow(rooms: ModuleType, tree: Path) -> None:
    write(
        tree, {"pipeline/records.py": "from . import run\n", "pipeline/listing/labels.py": "from ..decode import probe"}
    )
    assert {"records -> run", "listing -> decode"} <= set(arrows(rooms, tree, "pipeline"))


def test_circles_are_found(rooms: ModuleType, tree: Path) -> None:
    assert rooms.find_circles(rooms.arrows_between(rooms.read_imports(rooms.read_modules(tree)), "pipeline")) == ()
    write(tree, {"pipeline/listing/labels.py": "from mribatch.pipeline.run import run\n"})
    measured = folder(rooms, tree, "pipeline")
    assert measured.circles == (("decode", "listing", "plan", "run"),)  # type: ignore[attr-defined]
    assert "Circle in pipeline: decode, listing, plan, run" in rooms.page(tree)


def test_two_circles_stay_apart(rooms: ModuleType) -> None:
    pairs = ["ab", "ba", "bc", "cd", "de", "ec", "ef"]
    assert rooms.find_circles([rooms.Arrow(*pair) for pair in pairs]) == (("a", "b"), ("c", "d", "e"))


def test_an_arrow_back_is_seen_between_rooms_and_between_folders(rooms: ModuleType, tree: Path) -> None:
    assert folder(rooms, tree, "pipeline").back == ()  # type: ignore[attr-defined]
    assert "arrows back 0." in rooms.page(tree)
    write(
        tree,
        {
            "pipeline/listing/labels.py": "import mribatch.pipeline.decode.probe\n",
            "core/errors.py": "from mribatch.pipeline.plan import plan\n",
        },
    )
    text = rooms.page(tree)
    assert "- Arrow back in pipeline: listing -> decode" in text and "- Arrow back: core -> pipeline" in text
    assert "- Circle: core, pipeline" in text


def test_the_tree_before_has_core_as_the_package_itself(rooms: ModuleType, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "core/__init__.py": "__version__ = '0'\n",
            "core/errors.py": "",
            "core/files.py": "from mribatch import __version__, errors\n",
            "pipeline/__init__.py": "",
            "pipeline/run.py": "from mribatch import __version__\nfrom mribatch.pipeline import probe\n",
            "pipeline/probe.py": "from mribatch.files import write\n",
            "tests/__init__.py": "from mribatch.pipeline import probe\n",
        },
    )
    assert arrows(rooms, tmp_path, "core") == ["files -> errors"]
    assert arrows(rooms, tmp_path, "pipeline") == ["run -> probe"]
    assert arrows(rooms, tmp_path, None) == ["pipeline -> core"]
    assert folder(rooms, tmp_path, "pipeline").back is None  # type: ignore[attr-defined]


def test_the_command_prints_a_table_arrows_and_a_chart(
    rooms: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rooms.main([str(tree), "--arrows"]) == 0
    out = capsys.readouterr().out
    assert "| pipeline | 6 | 5 | 5 | 0 | 0 | `decode/` (2) | `pipeline.decode.formats.png.size` (3 lines) |\n" in out
    assert "| all | 8 | 7 | 5 | 0 | 0 | | |\n" in out
    assert "\n## pipeline\n\n- decode -> listing\n" in out
    assert rooms.main([str(tree), "--mermaid", "--folder", "pipeline"]) == 0
    chart = capsys.readouterr().out.splitlines()
    assert chart[:2] == ["```mermaid", "flowchart LR"] and chart[-1] == "```"
    assert '    pipeline_decode[["decode/"]]' in chart and "    pipeline_run --> pipeline_plan" in chart


def test_a_folder_that_is_not_there_is_an_error_with_a_fix(
    rooms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rooms.main([str(tmp_path)]) == 1
    assert "Fix: " in capsys.readouterr().err


def test_this_checkout_has_no_circle_and_no_arrow_back(rooms: ModuleType) -> None:
    modules = rooms.read_modules(SCRIPT.parents[1])
    imports = rooms.read_imports(modules)
    between = rooms.arrows_between(imports)
    assert len(modules) > 100
    assert rooms.find_circles(between) == () and rooms.folder_arrows_back(between) == ()
    for one in rooms.measure_all(modules, imports):
        assert one.circles == () and not one.back, one.name

"""benchmarks.scale: its folder of images, its simulation, and the section of the page that is made from its result."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conditions import RESULTS, spread
from benchmarks.scale.__main__ import SETTINGS, _parse, earlier_trials, simulations
from benchmarks.scale.section import PAGE, TRIALS, newest, section, with_section
from benchmarks.scale.simulation import Measured, Setting, driver_limit, simulate, spread_of, storage_limit
from benchmarks.scale.trials import draw

MEASURED = Measured(
    core_rate=100.0,
    part_spread=(1.0,),
    driver_part_s=0.001,
    start_s=0.0,
    listed_per_s=1e9,
    counted_per_s=1e9,
    image_bytes=1e5,
)
SETTING = Setting(nodes=10, cores=16, images=160 * 1024 * 6, storage_bytes_s=1e12)


def test_the_page_has_the_section_of_the_newest_result() -> None:
    page = PAGE.read_text()
    assert page == with_section(page, section(newest(RESULTS))), "stale: python -m benchmarks.scale --section"


def test_images_are_many_names_of_few_files(tmp_path: Path) -> None:
    files = [path for path in draw(tmp_path / "data", 1030).rglob("*") if path.is_file()]
    assert len(files) == 1030 and len({path.stat().st_ino for path in files}) == 64
    assert {path.parent.name for path in files} == {"0000", "0001"}


def test_machines_without_limits_are_as_fast_as_their_cores() -> None:
    found = simulate(MEASURED, SETTING)
    assert found.parts == 960 and found.seconds == pytest.approx(6 * 10.24, rel=0.03)
    assert found.efficiency == pytest.approx(1.0, rel=0.03) and found.limit == "cores"
    assert found.read_bytes_s == pytest.approx(160 * 100 * 1e5, rel=0.03)


def test_a_last_round_that_is_half_empty_costs_a_whole_one() -> None:
    found = simulate(MEASURED, replace(SETTING, images=160 * 1024 + 80 * 1024))
    assert found.making_s == pytest.approx(2 * 10.24, rel=0.03) and found.efficiency == pytest.approx(0.75, rel=0.03)


def test_a_driver_that_lists_alone_limits_many_machines() -> None:
    few, many = (
        simulate(replace(MEASURED, listed_per_s=50_000.0), replace(SETTING, nodes=nodes, images=10**7))
        for nodes in (1, 100)
    )
    assert (few.limit, many.limit) == ("cores", "driver")
    assert few.efficiency > 0.95 and many.seconds > 200 > many.making_s


def test_a_driver_that_hands_out_slowly_limits_too() -> None:
    slow = replace(MEASURED, driver_part_s=1.0)
    found = simulate(slow, SETTING)
    assert found.making_s == pytest.approx(960 + 10.24, rel=0.01) and found.limit == "driver"
    assert driver_limit(slow, SETTING.images) == 1024.0


def test_storage_slows_all_machines_alike() -> None:
    wanted = 160 * 100 * 1e5
    found = simulate(MEASURED, replace(SETTING, storage_bytes_s=wanted / 4))
    assert found.making_s == pytest.approx(4 * 6 * 10.24, rel=0.03) and found.limit == "storage"
    assert found.read_bytes_s == pytest.approx(wanted / 4, rel=0.03)
    assert storage_limit(MEASURED, 1e9) == 1e4


def test_the_spread_of_parts_has_the_mean_one() -> None:
    assert spread_of([0.0, 1.0, 4.0]) == (0.5, 1.5)


def result() -> dict[str, Any]:
    """A result with invented figures, in the form of a real one."""
    options = _parse([])
    seconds = {"local": spread([10.0, 12.0]), "ray": spread([11.0, 13.0]), "overhead": spread([0.1, 0.08])}
    found: dict[str, Any] = {
        "workers": {
            "images": 8192,
            "ceiling_images_per_second": spread([500.0, 510.0]),
            "images_per_second": {"1": spread([450.0, 455.0])},
            "of_ceiling": {"1": spread([0.9, 0.89])},
        },
        "ray": {
            "whole_process_seconds": {"50000": {**seconds, "same_parts": True}},
            "figures": {
                "images_per_core_second": 230.0,
                "listed_per_second": 9e4,
                "counted_per_second": 1e6,
                "part_marks": [0.0, 2.0, 4.1, 6.0],
                "image_bytes": 3e4,
            },
        },
        "peer": {"images": 6000, "times_as_fast": spread([2.5, 2.7])},
        "nodes": {"nodes": 4, "killed": 2, "parts": 20, "parts_before_the_kill": 3, "rows": 20_000, "same_parts": True},
        "driver": {"parts": 3000, "seconds_per_part": 0.002},
    }
    found = {name: {"load_before": 0.1, "repeats": 2} | trial for name, trial in found.items()}
    conditions = {"mribatch": "1", "cores": 2, "processor": "P", "date": "2026-01-02", "python": "3", "libraries": {}}
    facts = {"conditions": conditions, "model": "cnn", "data": "synthetic512px"}
    return facts | found | {"simulation": simulations(found, options)}


def test_a_result_becomes_a_section(tmp_path: Path) -> None:
    path = tmp_path / "scale-cnn.json"
    path.write_text(json.dumps(result()))
    text = section(path)
    assert "| 1 | 452 (450 to 455) | 89.5% (89.0% to 90.0%) |" in text
    assert "| 50,000 | 11.0 (10.0 to 12.0) | 12.0 (11.0 to 13.0) | 9.0% (8.0% to 10.0%) | yes |" in text
    assert "2.6 (2.5 to 2.7) times as fast" in text
    assert "2 of 4 nodes of a cluster on loopback were killed when 3 of 20 parts were there" in text
    assert "hands out 500 parts a second" in text
    assert sum(line.startswith(("| 1,000,000", "| 10,000,000", "| 100,000,000")) for line in text.splitlines()) == 9
    older = tmp_path / "scale-older.json"
    older.write_text(json.dumps({"conditions": {"date": "2025-12-31"}}))
    assert newest(tmp_path) == path and newest(tmp_path / "nothing") is None
    page = with_section("# A\n<!-- scale -->\nold\n<!-- /scale -->\nafter\n", "new")
    assert page == "# A\n<!-- scale -->\nnew\n<!-- /scale -->\nafter\n"


def test_trials_stay_where_they_were_measured_alike(tmp_path: Path) -> None:
    path = tmp_path / "scale-cnn.json"
    assert earlier_trials(path, {}) == {}
    path.write_text(json.dumps(result()))
    facts = result()["conditions"]
    assert set(earlier_trials(path, facts | {"date": "2026-01-03"})) == set(TRIALS)
    assert earlier_trials(path, facts | {"processor": "Q"}) == {}
    assert earlier_trials(path, facts | {"libraries": {"onnxruntime": "2"}}) == {}


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert _parse([]).trials == TRIALS and len(SETTINGS) == 9
    assert _parse(["--ray-images", "10,20", "--trials", "ray"]).ray_images == (10, 20)
    with pytest.raises(SystemExit):
        _parse(["--trials", "x"])
    assert "no trial x" in capsys.readouterr().err

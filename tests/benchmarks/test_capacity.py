"""docs/capacity.md is what the results that it names say."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.capacity import PAGE, RESULTS, Inputs, Measured, Published, cpu_rate, gpu_rate, page, read_measured


def test_the_page_is_made_from_the_results_that_it_names() -> None:
    text = PAGE.read_text()
    named = list(dict.fromkeys(re.findall(r"benchmarks/results/([^)]+\.json)\)", text)))
    assert named
    assert text == page([RESULTS / name for name in named], Inputs()), "stale: python -m benchmarks.capacity"


def test_the_rate_is_the_measurement_up_to_the_measured_cores_and_less_than_linear_beyond() -> None:
    measured = Measured("m", "mribatch classify", "p", 2, 100, None, "r.json")
    inputs = Inputs(efficiency=0.5)
    assert [cpu_rate(measured, cores, inputs) for cores in (1, 2, 4)] == [50, 100, 100]


def test_a_gpu_is_no_faster_than_its_cores_decode() -> None:
    published = Published("g", 1000, "f.csv")
    assert gpu_rate(published, 1, 0.001, Inputs(host_cores=2)) == 2000
    assert gpu_rate(published, 1, 0.001, Inputs(host_cores=12)) == pytest.approx(1000 * (260 / 160) ** 2)


def test_a_race_gives_the_rates_of_ours_alone(tmp_path: Path) -> None:
    def one(runs: str, steady: float | None) -> dict[str, object]:
        rates = {"median": 10.0}
        return {
            "runs": runs,
            "network": "lite2, 160 px",
            "whole_images_per_second": rates,
            "steady_images_per_second": None if steady is None else {"median": steady},
        }

    result = tmp_path / "race-real-4images-2cores.json"
    result.write_text(
        json.dumps(
            {
                "conditions": {"processor": "p"},
                "threads": 2,
                "images": 4,
                "image_bytes": 80_000,
                "entrants": {
                    "ray": one("python -m ray", 5.0),
                    "mribatch": one("mribatch classify", 12.0),
                    "few": one("mribatch classify --model cnn", None),
                },
            }
        )
    )
    found = read_measured([result])
    assert [(one.model, one.rate, one.per_core, one.image_kb) for one in found] == [
        ("lite2", 12.0, 6.0, 20.0),
        ("lite2", 10.0, 5.0, 20.0),
    ]

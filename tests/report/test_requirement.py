"""What may be required, how it is said, and what becomes of a requirement that does not hold."""

from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.report.measure import ReportOptions, report
from mribatch.report.requirement import parse_requirement
from tests.finished_run import CLASSES, Row, scores_for, write_run
from tests.report.reports import GLIOMA, NO_TUMOR, eight_rows, made, page_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", eight_rows())


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("accuracy>=0.875", True),
        ("accuracy > 0.875", False),
        ("accuracy<=.875", True),
        ("accuracy<8.75e-1", False),
        ("accuracy@low>=0.625", True),
        ("accuracy@low>=0.7", False),
        ("accuracy@high<1", False),
        ("sensitivity[pituitary_tumor]>=0.5", True),
        ("sensitivity[ pituitary_tumor ]>=0.51", False),
        ("sensitivity[glioma_tumor]>=1", True),
        ("sensitivity[glioma_tumor]@low>=0.5", False),  # two right answers are no proof
        ("f1[macro]>=0.8", True),
        ("log_loss<=0.5", True),
        ("support>=8", True),
        ("support@low>=1", False),  # a count has no interval
    ],
)
def test_requirements(run: Path, requirement: str, met: bool) -> None:
    result = report(ReportOptions(run=run, require=("accuracy>=0.1", requirement), html=False))
    assert [verdict["met"] for verdict in result.content["requirements"]] == [True, met]
    assert len(result.unmet) == (0 if met else 1)
    if met:
        result.check()
    else:
        with pytest.raises(MribatchError, match="requirement not met"):
            result.check()
    made(run, require=(requirement,))


def test_a_requirement_that_fails_says_the_number_and_still_writes(run: Path) -> None:
    wanted = ("sensitivity[pituitary_tumor]>=0.95", "accuracy@low>=0.9", "auroc[glioma_tumor]>=0.1")
    result = report(ReportOptions(run=run, require=wanted, html=False))
    assert result.unmet[0].startswith("sensitivity[pituitary_tumor] = 0.5000 (0.0000–1.0000) < 0.95")
    assert result.unmet[1:] == ("accuracy@low = 0.6250 < 0.9",)
    assert "| `accuracy@low>=0.9` | accuracy@low = 0.6250 \\< 0.9 | **not met** |" in page_of(run)
    assert "Requirement auroc[glioma_tumor]>=0.1: met, auroc[glioma_tumor] = " in result.table


def test_a_value_that_rounds_to_the_limit_is_shown_in_full(tmp_path: Path) -> None:
    rows = [Row(f"{i}.png", GLIOMA if i else NO_TUMOR, scores_for(0, 0.9)) for i in range(30_001)]
    run = write_run(tmp_path / "run", rows, part_rows=1_024)
    assert (
        report(ReportOptions(run=run, require=("accuracy>=1",), html=False))
        .unmet[0]
        .startswith("accuracy = 0.99996666777")
    )


def test_a_requirement_on_what_is_undefined_fails(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row(f"{i}.png", GLIOMA, scores_for(0, 0.9)) for i in range(5)])
    result = report(
        ReportOptions(run=run, require=("sensitivity[no_tumor]>=0.1", "sensitivity[no_tumor]<=0.9"), html=False)
    )
    assert result.unmet == (
        "sensitivity[no_tumor] is undefined (this class never occurs), required >= 0.1",
        "sensitivity[no_tumor] is undefined (this class never occurs), required <= 0.9",
    )
    unlabelled = write_run(tmp_path / "none", [Row("a.png", None, scores_for(0, 0.9))])
    assert (
        "accuracy is undefined (no label is known"
        in report(ReportOptions(run=unlabelled, require=("accuracy>=0",), html=False)).unmet[0]
    )


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("sensitivity", "is not understood", "'accuracy>=0.9'"),
        ("accuracy>=nan", "is not understood", "accuracy"),
        ("accuracy>=95%", "is not understood", "accuracy"),
        ("accuracy=0.9", "is not understood", "accuracy"),
        ("accuracy@mid>=0.9", "is not understood", "accuracy"),
        ("acuracy>=0.9", "there is no metric 'acuracy'", "accuracy, balanced_accuracy, log_loss"),
        ("sensitivity>=0.9", "sensitivity needs a class", "sensitivity[glioma_tumor], "),
        ("sensitivity[glioma]>=0.9", "there is no sensitivity of 'glioma'", "sensitivity[weighted]"),
        ("accuracy[glioma_tumor]>=0.9", "there is no accuracy of 'glioma_tumor'", "choose one of accuracy"),
        ("support[macro]>=1", "there is no support of 'macro'", "support, support[glioma_tumor]"),
    ],
)
def test_a_requirement_that_is_not_understood(run: Path, text: str, problem: str, fix: str) -> None:
    with pytest.raises(MribatchError) as caught:
        report(ReportOptions(run=run, require=(text,), html=False))
    assert problem in caught.value.problem and fix in caught.value.fix
    assert not (run / "metrics.json").exists()


def test_a_requirement_keeps_its_parts() -> None:
    parsed = parse_requirement(" specificity[no_tumor] @high < 1e-1 ", CLASSES)
    assert (parsed.metric, parsed.class_, parsed.bound, parsed.sign, parsed.limit) == (
        "specificity",
        "no_tumor",
        "high",
        "<",
        0.1,
    )


def test_the_lower_bound_can_be_required_by_an_option_of_its_own(run: Path) -> None:
    low = report(ReportOptions(run=run, require_low=("accuracy>=0.625", "accuracy>=0.7"), html=False))
    same = report(ReportOptions(run=run, require=("accuracy@low>=0.625", "accuracy@low>=0.7"), html=False))
    assert low.content["requirements"] == same.content["requirements"]
    assert [verdict["met"] for verdict in low.content["requirements"]] == [True, False]
    with pytest.raises(MribatchError, match=r"--require-low 'speed>=1': there is no metric 'speed'"):
        report(ReportOptions(run=run, require_low=("speed>=1",)))

"""audit.html as text: its figures are those of audit.json, and nothing in it comes from outside."""

import re
import shutil
from pathlib import Path

import pytest

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.report.audit.audit import Audit, audit
from mribatch.report.audit.page import AUDIT_PAGE
from tests.report.audit.conftest import HOSTILE
from tests.report.audit.data_set import CLASSES, draw
from tests.report.html.pages import ParsedPage


def parse(out: Path) -> ParsedPage:
    page = ParsedPage()
    page.feed((out / AUDIT_PAGE).read_text(encoding="utf-8"))
    return page


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_page_says_what_the_file_says(audited: Audit) -> None:
    text = squeeze(parse(audited.out).text)
    for finding in audited.file.findings:
        assert finding in text
    for each in audited.file.shortcuts:
        if each.accuracy is not None:
            assert f"{each.accuracy:.1%}" in text and f"{each.low:.1%} to {each.high:.1%}" in text
    for one in audited.file.classes:
        assert f"{one.name}{one.images}" in text
    assert "empty: 1" in text and "truncated: 1" in text
    assert text.count(RESEARCH_NOTICE) == 2


def test_nothing_is_loaded_from_elsewhere(audited: Audit) -> None:
    page = parse(audited.out)
    addresses = [value for _, each in page.tags for name, value in each.items() if name in ("src", "href", "srcset")]
    assert addresses and all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not [tag for tag, each in page.tags if tag == "script" or "style" in each]
    assert not [each for _, each in page.tags if any(name.startswith("on") for name in each)]
    (policy,) = (each["content"] for _, each in page.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy


def test_pairs_have_pictures_and_the_page_is_small(audited: Audit) -> None:
    pictures = [each for tag, each in parse(audited.out).tags if tag == "img"]
    assert len(pictures) == 2 * (5 + 1 + 4)  # leaks, contradictions, nearly the same
    assert (audited.out / AUDIT_PAGE).stat().st_size < 1_000_000


def test_many_pairs_are_bounded(tmp_path: Path) -> None:
    draw(tmp_path / "data/glioma_tumor/one.jpg", 1, 64)
    for number in range(60):
        (tmp_path / "data/no_tumor").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "data/glioma_tumor/one.jpg", tmp_path / f"data/no_tumor/{number}.jpg")
    found = audit([tmp_path / "data"], tmp_path / "out")
    assert "24 of 60 pairs" in squeeze(parse(found.out).text)
    assert len([tag for tag, _ in parse(found.out).tags if tag == "img"]) == 48


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    for number, name in enumerate(CLASSES):
        draw(tmp_path / f"data/{name}/{HOSTILE}", number // 2, 64)
    page = parse(audit([tmp_path / "data"], tmp_path / "out").out)
    assert HOSTILE in page.text
    assert "x" not in [each.get("src") for _, each in page.tags]


@pytest.mark.parametrize("labels", ["auto", "none"])
def test_a_data_set_without_faults_says_so(tmp_path: Path, labels: str) -> None:
    from mribatch.report.audit.options import AuditOptions

    for number, name in enumerate(CLASSES):
        draw(tmp_path / f"data/{name}/{number}.jpg", number, 64)
    found = audit([tmp_path / "data"], tmp_path / "out", AuditOptions(labels=labels))
    assert found.file.findings == ()
    text = squeeze(parse(found.out).text)
    assert "Nothing was found. That is no proof" in text and "not measured" in text

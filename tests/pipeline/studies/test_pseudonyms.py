"""Pseudonyms: equal for the same identity under the same key, and for nothing else."""

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.pipeline.studies.facts import StudyIds
from mribatch.pipeline.studies.pseudonyms import Pseudonyms, keep_key, random_pseudonyms, read_pseudonyms

KEYS = st.binary(min_size=16, max_size=40)
# What a header may hold, half a surrogate pair included.
TEXTS = st.text() | st.binary().map(lambda content: content.decode("utf-8", "surrogateescape"))


@given(KEYS, TEXTS)
def test_kinds_have_nothing_in_common(key: bytes, text: str) -> None:
    pseudonyms = Pseudonyms(key)
    of = pseudonyms.of_ids(StudyIds(text, text, text))
    content = text.encode("utf-8", "surrogateescape")
    shown = [of.patient, of.study, of.series, pseudonyms.of_file(content), pseudonyms.of_path(content)]
    assert len(set(shown)) == 5 and all(re.fullmatch("[a-z2-7]{16}", str(one)) for one in shown)
    assert of == Pseudonyms(key).of_ids(StudyIds(text, text, text))


@given(TEXTS, TEXTS)
def test_other_texts_and_other_keys_give_other_pseudonyms(one: str, other: str) -> None:
    pseudonyms = Pseudonyms(b"k" * 32)
    same = pseudonyms.of_ids(StudyIds(one)) == pseudonyms.of_ids(StudyIds(other))
    assert same == (one == other)
    assert pseudonyms.of_ids(StudyIds(one)) != random_pseudonyms().of_ids(StudyIds(one))


def test_what_is_not_known_stays_unknown() -> None:
    assert random_pseudonyms().of_ids(StudyIds()) == StudyIds()


def test_a_key_is_kept_for_its_owner_only_whatever_was_left_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_pseudonyms(path) is None
    (tmp_path / ".key.tmp").write_bytes(b"left by a killed process")
    kept = random_pseudonyms()
    before = os.umask(0)
    try:
        keep_key(path, kept)
    finally:
        os.umask(before)
    assert read_pseudonyms(path) == kept and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"short\n")
    with pytest.raises(MribatchError, match="has 5 bytes; at least 16 are needed. Fix: name a file"):
        read_pseudonyms(path)
    with pytest.raises(MribatchError, match="cannot be read: Is a directory. Fix: check its permissions"):
        read_pseudonyms(tmp_path)

"""Stored values to grey: against the formulas of the standard, pixel by pixel, and laws that hold for any window."""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mribatch.core.errors import OptionError
from mribatch.pipeline.decode.values import (
    StoredSlice,
    ValueRange,
    Window,
    WindowKind,
    Words,
    is_blank,
    range_of_values,
    to_grey,
    uses_range,
    value_range,
)
from mribatch.pipeline.studies.voi import Lut, Rescale, VoiFunction, VoiWindow

FILE, AUTO = Window(), Window(WindowKind.AUTO)
ALL_WORDS = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)


def standard_grey(value: float, window: VoiWindow) -> float:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, as written there, with ymin 0 and ymax 255."""
    center, width = window.center, window.width
    if window.function is VoiFunction.LINEAR:
        if value <= center - 0.5 - (width - 1) / 2:
            return 0
        if value > center - 0.5 + (width - 1) / 2:
            return 255
        return ((value - (center - 0.5)) / (width - 1) + 0.5) * 255
    if window.function is VoiFunction.LINEAR_EXACT:
        if value <= center - width / 2:
            return 0
        if value > center + width / 2:
            return 255
        return ((value - center) / width + 0.5) * 255
    return 255 / (1 + math.exp(min(-4 * (value - center) / width, 700)))


windows = st.builds(
    VoiWindow,
    center=st.floats(-3000, 5000, width=32),
    width=st.floats(1, 9000, width=32),
    function=st.sampled_from(VoiFunction),
)
formats = st.integers(1, 16).flatmap(
    lambda bits: st.builds(
        Words,
        bits=st.just(bits),
        high_bit=st.integers(bits - 1, 15),
        signed=st.booleans(),
        modality=st.builds(Rescale, st.sampled_from([1.0, 0.25, 2.5, -1.0]), st.sampled_from([0.0, -1024.0, 0.5])),
    )
)


def stored_value(word: int, words: Words) -> int:
    """PS3.5, 8.1.1, one sample at a time."""
    value = (word >> (words.high_bit + 1 - words.bits)) & ((1 << words.bits) - 1)
    return value - (1 << words.bits) if words.signed and value >> (words.bits - 1) else value


@given(words=formats, window=windows, picked=st.lists(st.integers(0, 65535), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_every_word_becomes_what_the_standard_says(words: Words, window: VoiWindow, picked: list[int]) -> None:
    grey = to_grey(StoredSlice(np.array([picked], dtype=np.uint16), words, voi=window), FILE, None)
    assert isinstance(words.modality, Rescale)
    for word, found in zip(picked, grey[0].tolist(), strict=True):
        value = words.modality.slope * stored_value(word, words) + words.modality.intercept
        assert abs(found - standard_grey(value, window)) <= 0.5 + 1e-6


@given(window=windows, values=st.lists(st.floats(-4000, 6000, width=32), min_size=2, max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_window_is_monotone_and_monochrome1_its_inverse(window: VoiWindow, values: list[float]) -> None:
    samples = np.sort(np.array([values], dtype=np.float32))
    grey = to_grey(StoredSlice(samples, voi=window), FILE, None)
    inverse = to_grey(StoredSlice(samples, voi=window, inverted=True), FILE, None)
    assert (np.diff(grey.astype(int)) >= 0).all()
    assert (grey.astype(int) + inverse == 255).all()


def test_integers_and_the_same_numbers_as_floats_look_alike() -> None:
    words = Words(12, 11, signed=True, modality=Rescale(0.37, -12.5))
    stored = StoredSlice(ALL_WORDS, words, voi=VoiWindow(100, 333))
    difference = to_grey(stored, FILE, None).astype(int) - to_grey(
        StoredSlice(stored.values, voi=stored.voi), FILE, None
    )
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("cells", [np.uint8, np.uint16])
def test_values_are_those_of_the_modality_lut(cells: type) -> None:
    lut = Lut(first=2, bits=16, entries=np.array([10, 20, 4000], dtype=np.uint16).tobytes())
    stored = StoredSlice(np.array([[0, 1, 2, 3, 4, 9]], dtype=cells), Words(4, 3, modality=lut))
    assert stored.values.dtype == np.float32
    assert stored.values.tolist() == [[10, 10, 10, 20, 4000, 4000]]


@pytest.mark.parametrize("cells", [np.uint8, np.uint16])
def test_how_samples_lie_in_memory_does_not_matter(cells: type) -> None:
    samples: NDArray[Any] = np.arange(60).astype(cells).reshape(6, 10)
    words = Words(8, 7)
    plain = to_grey(StoredSlice(samples, words, voi=VoiWindow(30, 60)), FILE, None)
    shifted: NDArray[Any] = np.frombuffer(b"\0" + samples.tobytes(), cells, 60, offset=1).reshape(6, 10)
    for view, expected in ((samples[::-1, ::-1], plain[::-1, ::-1]), (samples.T, plain.T), (shifted, plain)):
        found = to_grey(StoredSlice(view, words, voi=VoiWindow(30, 60)), FILE, None)
        assert found.flags.c_contiguous
        assert found.tolist() == expected.tolist()


def test_a_voi_lut_takes_its_ends_beyond_them() -> None:
    lut = Lut(first=-1, bits=12, entries=np.array([0, 2048, 4095], dtype=np.uint16).tobytes())
    samples = np.array([[-9, -1, 0, 1, 50]], dtype=np.float32)
    assert to_grey(StoredSlice(samples, voi=lut), FILE, None).tolist() == [[0, 0, 128, 255, 255]]


def test_padding_is_black_also_where_the_lowest_value_is_white() -> None:
    words = Words(12, 11, padding=(4000, 4095))
    samples = np.array([[0, 100, 4000, 4095]], dtype=np.uint16)
    stored = StoredSlice(samples, words, inverted=True)
    assert value_range([stored]) == ValueRange(0, 100)
    assert to_grey(stored, AUTO, None).tolist() == [[255, 0, 0, 0]]


def test_what_is_not_valid_is_black_and_in_no_range() -> None:
    samples = np.array([[5, 900, 7]], dtype=np.float32)
    stored = StoredSlice(samples, valid=np.array([[True, False, True]]))
    assert value_range([stored]) == ValueRange(5, 7)
    assert to_grey(stored, FILE, None).tolist() == [[0, 0, 255]]


@given(
    st.lists(st.lists(st.integers(0, 4095), min_size=1, max_size=60), min_size=1, max_size=4),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_range_is_that_of_all_values_together(slices: list[list[int]], as_words: bool) -> None:
    words = Words(12, 11, modality=Rescale(0.5, -3))
    stored = [StoredSlice(np.array([values], dtype=np.uint16), words) for values in slices]
    if not as_words:
        stored = [StoredSlice(one.values) for one in stored]
    pooled = np.concatenate([one.values.reshape(-1) for one in stored])
    low, high = np.percentile(pooled, [0.5, 99.8], method="inverted_cdf")
    assert value_range(stored) == ValueRange(float(low), float(high)) == range_of_values(pooled)


def test_no_value_at_all_has_a_range() -> None:
    nothing = StoredSlice(np.zeros((2, 2), dtype=np.float32), valid=np.zeros((2, 2), dtype=bool))
    assert value_range([nothing]) == value_range([]) == range_of_values(np.empty(0)) == ValueRange(0, 0)
    assert to_grey(nothing, AUTO, None).tolist() == [[0, 0], [0, 0]]


def test_the_range_of_the_series_is_used_where_no_window_is() -> None:
    plain = StoredSlice(np.array([[0, 50, 100, 200]], dtype=np.float32))
    series = ValueRange(0, 200)
    assert uses_range(plain, FILE)
    assert to_grey(plain, FILE, series).tolist() == [[0, 64, 128, 255]]
    windowed = StoredSlice(plain.samples, voi=VoiWindow(50, 100, VoiFunction.LINEAR_EXACT))
    assert not uses_range(windowed, FILE)
    assert to_grey(windowed, FILE, series).tolist() == [[0, 128, 255, 255]]
    assert uses_range(windowed, AUTO)
    assert to_grey(windowed, AUTO, series).tolist() == [[0, 64, 128, 255]]


def test_the_window_of_the_user_goes_before_the_files() -> None:
    stored = StoredSlice(np.array([[0, 10, 99.5, 300]], dtype=np.float32), voi=VoiWindow(5, 10))
    fixed = Window.parse("100,200")
    assert not uses_range(stored, fixed)
    assert to_grey(stored, fixed, ValueRange(0, 1)).tolist() == [[0, 13, 128, 255]]


def test_the_samples_are_not_written_to() -> None:
    samples = np.array([[0, 10, 99]], dtype=np.float32)
    samples.setflags(write=False)
    to_grey(StoredSlice(samples, voi=VoiWindow(50, 100)), FILE, None)
    assert samples.tolist() == [[0, 10, 99]]


@pytest.mark.parametrize(
    ("text", "again"), [("file", "file"), ("auto", "auto"), ("600,1200", "600,1200"), ("-5, 1.5", "-5,1.5")]
)
def test_a_window_is_read_and_shown(text: str, again: str) -> None:
    assert str(Window.parse(text)) == again


@pytest.mark.parametrize("text", ["", "File", "600", "600,1200,3", "a,b", "nan,100", "600,0", "600,inf", "1e400,5"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is no window"):
        Window.parse(text)


@pytest.mark.parametrize(
    ("bright", "blank"), [(0, True), (49, True), (50, False), (10_000, True), (9_999, False)]
)  # of 10,000 pixels; all of them equal is blank, too
def test_blank_is_less_than_half_a_percent_above_a_tenth(bright: int, blank: bool) -> None:
    grey = np.full(10_000, 25, dtype=np.uint8)
    grey[:bright] = 26
    assert is_blank(grey.reshape(100, 100)) is blank


@pytest.mark.slow
def test_no_real_slice_is_blank(data_folder: Path) -> None:
    slices = [
        path for path in (data_folder / "brain-mri").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    assert len(slices) > 2000
    for path in slices:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        assert not is_blank(np.asarray(grey)), path

"""A batch is the same on the other side of the pipe, whatever became of its images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.pipeline.records import ClassifiedBatch, DecodedFile, Flag, ImageFile, Status, Verdict
from mribatch.pipeline.worker.messages import Answer, read_reply, reply_bytes
from mribatch.pipeline.worker.packed_batch import PackedBatch

_SIDES = st.none() | st.integers(0, 2**33)  # a header may promise any
_VERDICTS = st.builds(
    Verdict,
    st.sampled_from(Status),
    st.none() | st.text(),
    st.sampled_from((None, "jpeg", "png", "nifti")),
    _SIDES,
    _SIDES,
    st.lists(st.sampled_from(Flag), max_size=3).map(tuple),
    st.none() | st.integers(1, 64),
)
_CONTENTS = st.none() | st.tuples(st.integers(0, 2**40), st.binary(min_size=32, max_size=32).map(bytes.hex))


@st.composite
def _decoded(draw: st.DrawFn) -> DecodedFile:
    size, digest = draw(_CONTENTS) or (None, None)
    file = ImageFile(draw(st.integers(0, 10**6)), 0, "a name", draw(st.binary()))
    seconds, picture = draw(st.floats(0, 1e6)), draw(st.none() | st.integers(1, 2**64 - 1))
    return DecodedFile(file, draw(_VERDICTS), size, digest, seconds, picture)


@given(st.lists(_decoded(), max_size=20), st.none() | st.integers(1, 5), st.text())
def test_what_became_of_images_gets_through(files: list[DecodedFile], classes: int | None, stage: str) -> None:
    scores = None if classes is None else np.random.default_rng(0).random((len(files) + 2, classes), np.float32)
    sent = Answer(PackedBatch.of(ClassifiedBatch(tuple(files), scores)), {stage: 0.5})
    got = read_reply(reply_bytes(sent))
    assert isinstance(got, Answer) and got.seconds == {stage: 0.5}
    batch = got.batch.unpack([one.file for one in files])
    assert batch.files == tuple(files)
    if scores is None or batch.probabilities is None:
        assert scores is batch.probabilities
    else:
        assert np.array_equal(batch.probabilities, scores)


def test_images_of_one_kind_say_it_once() -> None:
    verdict = Verdict(Status.OK, None, "jpeg", 512, 512, (Flag.UNLIKE_TRAINING,), 8)
    files = [DecodedFile(ImageFile(n, 0, "", b""), verdict, 1000 + n, "ab" * 32, 0.001, n + 1) for n in range(64)]
    packed = PackedBatch.of(ClassifiedBatch(tuple(files), None))
    assert packed.kinds.count("jpeg") == 1 and len(packed.to_bytes()) < 64 * 100


def test_another_number_of_files_is_no_answer() -> None:
    file = ImageFile(0, 0, "", b"")
    packed = PackedBatch.of(ClassifiedBatch((DecodedFile(file, Verdict(Status.OK)),), None))
    with pytest.raises(ValueError, match="zip"):
        packed.unpack([file, file])

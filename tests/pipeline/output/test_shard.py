"""Which parts a shard has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.core.errors import OptionError
from mribatch.pipeline.output.shard import Shard


@given(st.integers(0, 5000), st.integers(1, 300))
def test_every_part_is_in_one_shard_and_the_shares_are_even(parts: int, count: int) -> None:
    shares = [Shard(number, count).parts(parts) for number in range(1, count + 1)]
    assert [part for share in shares for part in share] == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["1/1", "2/4", "4/4", "1000/1000"])
def test_the_text_is_read_back(text: str) -> None:
    assert str(Shard.parse(text)) == text


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "0/0"])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="shards are numbered from 1 to .* where an array job counts from 0, add 1"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["", "2", "/", "a/b", "1/2/3", "-1/2", " 1/2", "1/2\n", "1.0/2", "١/٢"])
def test_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="write it like 2/4"):
        Shard.parse(text)

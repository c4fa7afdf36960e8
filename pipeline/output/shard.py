"""A share of a run's parts, for the tasks of an array job: `--shard 2/4` is the second of four.

The parts of a shard follow each other, so that its files lie side by side in the listing, and the shards of one number
differ by one part at most.
"""

import re
from dataclasses import dataclass
from typing import Self

from mribatch.core.errors import OptionError

_TEXT = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


@dataclass(frozen=True, order=True)
class Shard:
    """One of `count` shares, numbered from 1.

    Raises:
        OptionError: The number is not between 1 and the count.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise OptionError(
                f"--shard {self} does not exist: shards are numbered from 1 to {max(self.count, 1)}",
                "give I/N with I from 1 to N; where an array job counts from 0, add 1",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/4".

        Raises:
            OptionError: It is not of that form, or there is no such shard.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise OptionError(f"--shard '{text}' is not I/N", "write it like 2/4, the second of four")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def parts(self, total: int) -> range:
        """Return the numbers of this shard's parts, of `total`; none where there are fewer parts than shards."""
        return range((self.number - 1) * total // self.count, self.number * total // self.count)

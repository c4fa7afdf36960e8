"""Changes that reach further than flipped bits: checks of image files made right again, and JSON that stays JSON."""

import json
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, int, int], bytes]
"""(input, bytes at most, seed) -> another input."""

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 1 << 31, 1 << 63, 1 << 80, 10**400, 0.5, 1e308, float("nan"), float("inf"), ""),
    *("a", "\0", "\ud800", "=1+1", "../../etc", "x" * 300, [], {}, [[]], [0, 255], ["a", "a"], {"a": 1}, "\x1b[2J"),
)


def mutate_image(data: bytes, longest: int, seed: int) -> bytes:
    """Change bytes, and mostly make the checksums and lengths of the file right again."""
    import atheris

    from tests.pipeline.decode.test_fuzz import mend_checks

    changed = bytearray(atheris.Mutate(data, longest))
    if seed % 10 < 7:
        mend_checks(changed)
    return bytes(changed[:longest])


def mutate_json(data: bytes, longest: int, seed: int) -> bytes:
    """Half of the time, replace, drop or double a value of the JSON behind the first byte; else change bytes."""
    import atheris

    dice = random.Random(seed)
    if dice.random() < 0.5:
        try:
            content = json.loads(data[1:])
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            _change(content, dice)
            changed = data[:1] + json.dumps(content).encode("utf-8", "surrogatepass")
            if len(changed) <= longest:
                return changed
    return bytes(atheris.Mutate(data, longest))


def _change(content: dict[str, Any], dice: random.Random) -> None:
    node: Any = content
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and dice.random() < 0.7:
            node = node[key]
            continue
        action = dice.random()
        if action < 0.7:
            node[key] = dice.choice(_VALUES)
        elif action < 0.85:
            del node[key]
        elif isinstance(node, list):
            node.append(node[key])
        else:
            node[str(dice.choice(("x", "", "\0", key)))] = node[key]
        return

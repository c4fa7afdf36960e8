"""What --json prints against docs/reference/json-output.md."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json-output.md"


def check_documented(command: str, content: Mapping[str, Any]) -> None:
    """Compare the keys with the section of `command`, e.g. "engine list"; some keys there are not always printed."""
    sections = re.split(r"^## mribatch ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"{command}\n")]
    named = {
        name for cell in re.findall(r"^\|([^|]+)\|", section, re.MULTILINE) for name in re.findall("`(.+?)`", cell)
    }
    assert content["schema_version"] == 1
    assert content.keys() <= named, content.keys() - named

"""mribatch doctor on the command line."""

import json

from tests.cli.documented_json import check_documented
from tests.folders import mribatch


def test_doctor_prints_one_screen_or_one_line_of_json() -> None:
    text = mribatch("doctor")
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("mribatch ") and len(text.stdout.splitlines()) <= 24
    assert text.stdout.endswith("Research use only, not a medical device.\n")
    content = json.loads(mribatch("doctor", "--json").stdout)
    assert content["backend"]["name"] == "onnxruntime" and content["problems"] == []
    check_documented("doctor", content)

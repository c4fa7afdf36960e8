"""mribatch: classify whole folders of brain MRI slices, one row per file, at the speed of the hardware.

Research use only. Not a medical device.
"""

__version__ = "0.1.0"

RESEARCH_NOTICE = "Research use only, not a medical device."

JSON_SCHEMA_VERSION = 1  # of what --json prints, see docs/reference/json-output.md

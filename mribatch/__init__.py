"""mribatch: classify whole folders of brain MRI slices, one row per file, at the speed of the hardware.

Research use only. Not a medical device.
"""

from mribatch.core.about import RESEARCH_NOTICE, __version__

__all__ = ["RESEARCH_NOTICE", "__version__"]

"""mribatch: classify whole folders of brain MRI slices, one row per image, at the speed of the hardware.

    import mribatch

    run = mribatch.classify("scans/", "results/")
    run.to_pandas()
    mribatch.report(run).metrics

Everything in `__all__` is loaded when it is first used, so `import mribatch` itself loads no heavy library. These names
are the public face that semantic versioning covers; docs/reference/python.md describes them.

Research use only. Not a medical device.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mribatch.core.about import RESEARCH_NOTICE, __version__

if TYPE_CHECKING:
    from mribatch.api import classify, classify_images, merge, open_run, report
    from mribatch.core.errors import MribatchError
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.report.measure import ReportOptions
    from mribatch.results import ImageResults, Run, RunReport

__all__ = [
    "RESEARCH_NOTICE",
    "ClassifyOptions",
    "ImageResults",
    "MribatchError",
    "ReportOptions",
    "Run",
    "RunReport",
    "__version__",
    "classify",
    "classify_images",
    "merge",
    "open_run",
    "report",
]

_HOMES = {
    "classify": "mribatch.api",
    "classify_images": "mribatch.api",
    "merge": "mribatch.api",
    "open_run": "mribatch.api",
    "ClassifyOptions": "mribatch.pipeline.options",
    "MribatchError": "mribatch.core.errors",
    "ReportOptions": "mribatch.report.measure",
    "ImageResults": "mribatch.results",
    "Run": "mribatch.results",
    "RunReport": "mribatch.results",
}


class _ReportPackage(ModuleType):
    """The package `mribatch.report`, which can also be called: `report` is both a stage of the pipeline and a function.

    Python binds a package's name in its parent once anything in it is imported, so `from mribatch import report` gives
    the package, whatever was imported before. Being callable, it serves as the function, too.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("mribatch.api").report(*arguments, **options)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(import_module("mribatch.api").report)


class _Face(ModuleType):
    """This module, which makes `mribatch.report` callable at the moment it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "report" and isinstance(value, ModuleType):
            value.__class__ = _ReportPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face

if not TYPE_CHECKING:  # a type checker would take it for any name at all

    def __getattr__(name: str) -> Any:
        if name == "report":
            return import_module("mribatch.report")
        if name not in _HOMES:
            raise AttributeError(f"module 'mribatch' has no attribute '{name}'")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

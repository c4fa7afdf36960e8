"""The options of `audit`, for the command line and for Python."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from mribatch.core.bundle import DEFAULT_MODEL, load_bundle
from mribatch.core.errors import BundleError, OptionError
from mribatch.core.model_spec import ModelSpec
from mribatch.pipeline.listing.labels import add_aliases
from mribatch.pipeline.options import AUTO, DEFAULT_TIMEOUT_S, ClassifyOptions


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Options of `audit`. Immutable; checked on construction.

    Raises:
        MribatchError: A value is outside its range.
    """

    labels: str = AUTO  # "auto": from folder names; "none"; or a CSV file with the columns path,label
    classes: tuple[str, ...] = ()  # names of the classes; empty: those of the default model
    alias: tuple[str, ...] = ()  # "FOLDER=CLASS" each: more names for the classes, in folders and labels
    exclude: tuple[str, ...] = ()  # patterns of files and folders to leave out, as in .gitignore
    require: tuple[str, ...] = ()  # e.g. "leak_rate<=0.01"
    threads: int | None = None  # cores to use; None: all that this process may use
    timeout_s: float = DEFAULT_TIMEOUT_S  # seconds allowed for reading and decoding one file
    anonymize_paths: bool = False  # show pseudonyms in place of paths
    html: bool = True  # also write audit.html
    seed: int = 0  # of the forests and of the bootstrap

    def __post_init__(self) -> None:
        for name in ("classes", "alias", "exclude", "require"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        _ = self.listing, self.label_spec  # which check what they are given

    @property
    def listing(self) -> ClassifyOptions:
        """How `classify` would list and decode the same images."""
        return ClassifyOptions(
            labels=self.labels,
            alias=self.alias,
            exclude=self.exclude,
            threads=self.threads,
            timeout_s=self.timeout_s,
            anonymize_paths=self.anonymize_paths,
        )

    @cached_property
    def label_spec(self) -> ModelSpec:
        """What knows the classes and their other names."""
        spec = load_bundle(DEFAULT_MODEL).spec
        if self.classes:
            try:
                spec = dataclasses.replace(spec, classes=self.classes, aliases={})
            except BundleError as error:
                problem = f"--classes {','.join(self.classes)} are not two or more different names"
                raise OptionError(problem, "name each class once, in letters, digits, '_', '-' and '.'") from error
        return add_aliases(spec, self.alias)

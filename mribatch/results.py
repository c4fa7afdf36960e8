"""What the public face returns: a finished run, its report, and an audit, as objects for a notebook."""

import contextlib
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.errors import ExitCode, MribatchError
from mribatch.core.local_paths import arrow_path
from mribatch.core.system_errors import naming_system_errors
from mribatch.core.text import html_text, one_line

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mribatch.pipeline.output.mirror import Place
    from mribatch.pipeline.output.run_file import RunCounts, RunFile
    from mribatch.report.audit.audit_file import AuditFile
    from mribatch.report.metrics import Metric
    from mribatch.report.metrics_file import MetricsFile

_SWITCHES = (
    "overwrite",
    "add-new",
    "keep-going",
    "csv",
    "xlsx",
    "null",
    "strict",
    "any-modality",
    "dicom-anywhere",
    "anonymize-paths",
)
_OTHER_NAMES = {"timeout": "timeout_s"}
_STATUS_LIMIT = 6  # statuses that a repr names
_ROWS_SHOWN = 20
_METRICS_SHOWN = ("accuracy", "balanced_accuracy", "f1", "sensitivity", "auroc", "log_loss", "ece")


class Run:
    """A finished run: its counts, its rows and its metrics. Returned by `classify` and `open_run`.

    Attributes:
        path: The run folder; of one in a store, a local copy that is removed with this object.
        place: The run folder, or its address in a store.
        facts: The content of run.json, typed: inputs, model, backend, versions, attempts.
        counts: Rows by status and by predicted class, labelled rows, and those of them that were predicted correctly.
        classes: Class names in the order of the probability columns `p_NAME`.
        exit_code: 0 if every row is ok or blank and every folder could be listed, else 3.
        metrics: The metrics of the report in the run folder, for images and, where asked for, for patients. Without a
            report, `report()` is called first, with its defaults; without a single label there are none.
    """

    path: Path
    place: "Place"
    facts: "RunFile"
    counts: "RunCounts"

    def __init__(self, place: "Place") -> None:
        from mribatch.pipeline.output.mirror import run_copy
        from mribatch.pipeline.output.run_file import read_finished_run

        self.place = place
        self._copy = contextlib.ExitStack()  # of a folder in a store; removed with this object
        self.path = path = self._copy.enter_context(run_copy(place))
        weakref.finalize(self, self._copy.close)
        self.facts = read_finished_run(path)
        assert self.facts.counts is not None, "read_finished_run has checked it"
        self.counts = self.facts.counts

    @property
    def classes(self) -> tuple[str, ...]:
        return self.facts.bundle.classes

    @property
    def exit_code(self) -> ExitCode:
        from mribatch.pipeline.output.summary import exit_code_of

        return exit_code_of(self._failed, self.facts.listing.skipped_by_reason)

    @property
    def metrics(self) -> "tuple[Metric, ...]":
        from mribatch.report.metrics_file import METRICS_JSON, read_metrics

        path = self.path / METRICS_JSON
        return read_metrics(path, fix="measure the run again").metrics if path.is_file() else self.report().metrics

    def to_arrow(self) -> "pa.Table":
        """Read all rows into a pyarrow Table, one per image, in the order of the listing.

        `status` is "ok" or the reason why there is no prediction. The probabilities `p_NAME`, `confidence`, `margin`
        and `entropy` are float32 and null where the status is not ok. The page on the Parquet files has all columns.

        Raises:
            MribatchError: A part file is damaged or missing.
        """
        from mribatch.pipeline.output.parts import read_table

        table = read_table(self.path)
        if table.num_rows != self.counts.rows:
            raise MribatchError(
                f"{self.path} holds {table.num_rows:,} rows, its run.json counts {self.counts.rows:,}",
                "restore the folder, or classify the images again",
            )
        return table

    def to_pandas(self) -> "pd.DataFrame":
        """Read all rows into a pandas DataFrame.

        Raises:
            MribatchError: pandas is not installed, or a part file is damaged or missing.
        """
        require_pandas()
        return self.to_arrow().to_pandas()

    def report(self, **options: Any) -> "RunReport":
        """Measure this run against its labels; the options are those of `mribatch.report`."""
        return measure_run(self.place, **options)

    @property
    def _failed(self) -> int:
        return self.counts.rows - self.counts.by_status.get("ok", 0) - self._blank

    @property
    def _blank(self) -> int:
        return self.counts.by_status.get("blank", 0)

    def _headline(self) -> str:
        from mribatch.pipeline.output.summary import describe_counts

        return describe_counts(self.facts.listing.files, self.counts.rows, self._failed, self._blank)

    def _made_with(self) -> str:
        return f"model {self.facts.model_name}, {self.facts.backend} + {self.facts.decoder}"

    def __repr__(self) -> str:
        lines = [f"<mribatch.Run {str(self.place)!r}: {self._headline()}", f"  {self._made_with()}"]
        failed = {status: count for status, count in self.counts.by_status.items() if status not in ("ok", "blank")}
        lines += [f"  failed: {_list_counts(failed)}"] if failed else []
        lines += [f"  predicted: {_list_counts(self.counts.by_class)}"]
        lines += [f"  NOTE: {self.facts.notice}"] if self.facts.notice else []
        return "\n".join(map(one_line, lines)) + ">"

    def _repr_html_(self) -> str:
        parts = [
            f"<p><b>{html_text(self.place)}</b>: {html_text(self._headline())}<br>{html_text(self._made_with())}</p>"
        ]
        parts += [f"<p><b>{html_text(self.facts.notice)}</b></p>"] if self.facts.notice else []
        classes = [(name, f"{self.counts.by_class.get(name, 0):,}") for name in self.classes]
        statuses = [(name, f"{count:,}") for name, count in sorted(self.counts.by_status.items())]
        parts += [_html_table(("predicted", "files"), classes), _html_table(("status", "files"), statuses)]
        return "".join([*parts, f"<p>{html_text(RESEARCH_NOTICE)}</p>"])


class ImageResults:
    """One row per image, in order. Returned by `classify_images`; a sequence of dictionaries, shown as a table.

    Each row has `status` and `error`, `predicted`, `confidence`, `margin`, `entropy` and the probabilities `p_NAME`,
    which are None where the status is not "ok", and the other columns of a run.
    """

    def __init__(self, table: "pa.Table") -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        position = range(len(self))[index]
        row: dict[str, Any] = self._table.slice(position, 1).to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._table.to_pylist())

    def to_arrow(self) -> "pa.Table":
        """Return all rows as a pyarrow Table with the columns of a part file."""
        return self._table

    def to_pandas(self) -> "pd.DataFrame":
        """Return all rows as a pandas DataFrame.

        Raises:
            MribatchError: pandas is not installed.
        """
        require_pandas()
        return self._table.to_pandas()

    def _cells(self) -> list[tuple[str, str, str, str]]:
        return [
            (
                row["path"],
                row["status"],
                row["predicted"] or "",
                "" if row["confidence"] is None else f"{row['confidence']:.4f}",
            )
            for row in self._table.slice(0, _ROWS_SHOWN).to_pylist()
        ]

    def __repr__(self) -> str:
        lines = [f"<mribatch.ImageResults of {len(self):,}", *("  " + "  ".join(cells) for cells in self._cells())]
        lines += ["  …"] if len(self) > _ROWS_SHOWN else []
        return "\n".join(map(one_line, lines)) + ">"

    def _repr_html_(self) -> str:
        more = f"<p>… of {len(self):,}</p>" if len(self) > _ROWS_SHOWN else ""
        table = _html_table(("image", "status", "predicted", "confidence"), self._cells())
        return f"{table}{more}<p>{html_text(RESEARCH_NOTICE)}</p>"


class RunReport:
    """The report of a run. Returned by `report` and `Run.report`; printed, it shows the headline metrics.

    Attributes:
        path: The run folder, which holds metrics.parquet, metrics.json and report.md, with `group_by` also patients.csv
            and patients.parquet.
        facts: The content of metrics.json, typed: the run, files, levels with their confusion matrices, requirements.
        metrics: Every metric with its 95 % interval, `n` and protocol; empty if no label is known.
        unmet: One sentence for each requirement that is not met.
    """

    path: "Place"
    facts: "MetricsFile"

    def __init__(self, path: "Place", facts: "MetricsFile") -> None:
        self.path = path
        self.facts = facts

    @property
    def metrics(self) -> "tuple[Metric, ...]":
        return self.facts.metrics

    @property
    def unmet(self) -> tuple[str, ...]:
        return tuple(result.found for result in self.facts.requirements if not result.met)

    def to_arrow(self) -> "pa.Table":
        """Read metrics.parquet into a pyarrow Table: metric, class, value, low, high, n, protocol."""
        from mribatch.report.files import METRICS_PARQUET

        return self._read(METRICS_PARQUET)

    def to_pandas(self) -> "pd.DataFrame":
        """Read metrics.parquet into a pandas DataFrame.

        Raises:
            MribatchError: pandas is not installed.
        """
        require_pandas()
        return self.to_arrow().to_pandas()

    def patients_to_arrow(self) -> "pa.Table":
        """Read patients.parquet into a pyarrow Table: one row per patient, with labels or without.

        Raises:
            MribatchError: The report was made without `group_by`.
        """
        from mribatch.report.files import PATIENTS_PARQUET

        if self.facts.patients is None:
            raise MribatchError("the report has no patients", "name them with group_by, e.g. 'patient=(P[0-9]+)_'")
        return self._read(PATIENTS_PARQUET)

    def _read(self, name: str) -> "pa.Table":
        import pyarrow.parquet as pq

        from mribatch.pipeline.output.mirror import run_copy

        with run_copy(self.path) as folder:
            return pq.read_table(arrow_path(folder / name))

    def check(self) -> None:
        """Do nothing if every requirement is met.

        Raises:
            MribatchError: One is not; gives its figure.
        """
        if self.unmet:
            raise MribatchError("; ".join(self.unmet), "use another model, or change the requirement")

    def _headlines(self) -> list[tuple[str, str, str, str]]:
        """(metric, value, 95 % interval, n) of the first level, of the metrics that sum the classes up."""
        rows = self.facts.levels[0].metrics if self.facts.levels else ()
        return [
            (
                row.metric if row.class_ is None else f"{row.metric}, {row.class_}",
                "undefined" if row.value is None else f"{row.value:.4f}",
                "" if row.low is None else f"{row.low:.4f} to {row.high:.4f}",
                f"{row.n:,}",
            )
            for row in rows
            if row.metric in _METRICS_SHOWN and row.class_ in (None, "macro")
        ]

    def _remarks(self) -> list[str]:
        lacking = [f"No metrics: {self.facts.no_metrics}."] if self.facts.no_metrics else []
        return [*self.facts.notices, *lacking, *(f"Not met: {text}." for text in self.unmet), RESEARCH_NOTICE]

    def __repr__(self) -> str:
        lines = [f"<mribatch.RunReport {str(self.path)!r}"]
        lines += [f"  {name:<22}{value:>10}  {interval}" for name, value, interval, _ in self._headlines()]
        return "\n".join(map(one_line, [*lines, *(f"  {text}" for text in self._remarks())])) + ">"

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html_text(self.path)}</b></p>"]
        parts += [_html_table(("metric", "value", "95 % interval", "n"), self._headlines())]
        return "".join([*parts, *(f"<p>{html_text(text)}</p>" for text in self._remarks())])


class AuditResult:
    """What an audit found. Returned by `audit`; printed, it shows the findings.

    Attributes:
        path: The folder, which holds audit.parquet, pairs.parquet, groups.csv, audit.json and audit.html.
        facts: The content of audit.json, typed: files, duplicates, leaks, contradictions, shortcuts, figures.
        unmet: One sentence for each requirement that is not met.
    """

    path: Path
    facts: "AuditFile"

    def __init__(self, path: Path, facts: "AuditFile") -> None:
        self.path = path
        self.facts = facts

    @property
    def unmet(self) -> tuple[str, ...]:
        return self.facts.unmet

    def to_arrow(self) -> "pa.Table":
        """Read audit.parquet into a pyarrow Table: one row per image, with its group, series and part."""
        return self._read("audit.parquet")

    def pairs_to_arrow(self) -> "pa.Table":
        """Read pairs.parquet into a pyarrow Table: one row per pair of images that show the same picture."""
        return self._read("pairs.parquet")

    def to_pandas(self) -> "pd.DataFrame":
        """Read audit.parquet into a pandas DataFrame.

        Raises:
            MribatchError: pandas is not installed.
        """
        require_pandas()
        return self.to_arrow().to_pandas()

    def check(self) -> None:
        """Do nothing if every requirement is met.

        Raises:
            MribatchError: One is not; gives its figure.
        """
        if self.unmet:
            raise MribatchError("; ".join(self.unmet), "correct the data set, or change the requirement")

    def _read(self, name: str) -> "pa.Table":
        import pyarrow.parquet as pq

        return pq.read_table(arrow_path(self.path / name))

    def _lines(self) -> list[str]:
        found = self.facts.findings or ("Nothing was found.",)
        return [*found, *(f"Not met: {text}." for text in self.unmet), RESEARCH_NOTICE]

    def __repr__(self) -> str:
        lines = [f"<mribatch.AuditResult {str(self.path)!r}", *(f"  {text}" for text in self._lines())]
        return "\n".join(map(one_line, lines)) + ">"

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html_text(self.path)}</b></p>", *(f"<p>{html_text(text)}</p>" for text in self._lines())]
        return "".join(parts)


def measure_run(
    run: "Place", *, require: str | Iterable[str] = (), require_low: str | Iterable[str] = (), **options: Any
) -> RunReport:
    """Measure a run; the options are the fields of ReportOptions."""
    from mribatch.pipeline.output.mirror import run_copy
    from mribatch.report.measure import ReportOptions, report

    required, required_low = ((one,) if isinstance(one, str) else tuple(one) for one in (require, require_low))
    with in_python_terms(), run_copy(run, writes=True) as folder:
        result = report(ReportOptions(run=folder, require=required, require_low=required_low, **options))
    return RunReport(run, result.file)


def require_pandas() -> None:
    """Import pandas, which mribatch itself does not need.

    Raises:
        MribatchError: It is not installed.
    """
    try:
        import_module("pandas")
    except ImportError as error:
        raise MribatchError("pandas is not installed", "pip install pandas, or use to_arrow()") from error


@contextlib.contextmanager
def in_python_terms() -> Iterator[None]:
    """Let errors name options as Python does: `batch_size` instead of `--batch-size`."""
    try:
        with naming_system_errors():
            yield
    except MribatchError as error:
        error.problem, error.fix = _python_words(error.problem), _python_words(error.fix)
        raise


def _python_words(text: str) -> str:
    def rename(match: "re.Match[str]") -> str:
        name = match.group(1)
        return f"{name.replace('-', '_')}=True" if name in _SWITCHES else _OTHER_NAMES.get(name, name.replace("-", "_"))

    renamed = re.sub(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)", rename, text)
    return renamed.replace("type the same command again", "make the same call again")


def _list_counts(counts: Mapping[str, int]) -> str:
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} {count:,}" for name, count in named[:_STATUS_LIMIT])
    return (shown + (", …" if len(named) > _STATUS_LIMIT else "")) or "nothing"


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{html_text(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{''.join(f'<th>{html_text(cell)}</th>' for cell in head)}</tr></thead>{body}</table>"

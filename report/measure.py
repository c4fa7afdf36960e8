"""A finished run folder to metrics.parquet, metrics.json, report.md, a table of patients and one for the console.

read_facts, load_rows -> find_groups, find_patients -> measure_level -> MetricsFile -> write_files
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.errors import RequirementNotMetError
from mribatch.pipeline.progress import Track, track_silently
from mribatch.report.counts import (
    count_files,
    count_predictions,
    count_training_images,
    count_unlike_images,
    explain_no_metrics,
)
from mribatch.report.files import write_files
from mribatch.report.html.page import write_page
from mribatch.report.levels import measure_level, select_images, select_patients
from mribatch.report.metrics import Metric
from mribatch.report.metrics_file import SCHEMA_VERSION, Level, MeasuredRun, MetricsFile
from mribatch.report.patient_table import PatientTable, tabulate_patients
from mribatch.report.patients import Patients, aggregate_slices
from mribatch.report.requirement import Requirement, parse_requirement
from mribatch.report.row_groups import (
    RowGroups,
    find_groups,
    find_known_patients,
    find_patients,
    find_predictions_column,
)
from mribatch.report.rows import RunRows, load_rows
from mribatch.report.run_facts import RunFacts, read_facts
from mribatch.report.text.console import format_table


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `mribatch report`; the texts are as the user types them."""

    run: Path
    groups: str | None = None  # FILE.csv, FILE.csv:COLUMN, or a column of the predictions
    group_by: str | None = None  # patient=REGEX or patient=FILE.csv
    require: tuple[str, ...] = ()
    require_low: tuple[str, ...] = ()  # likewise, of the lower bound of the interval
    protocol: str | None = None
    seed: int = 0  # of the bootstrap
    html: bool = True  # also write report.html


@dataclass(frozen=True)
class Report:
    """What was written."""

    file: MetricsFile
    table: str  # for the console
    patients: PatientTable | None = None  # of --group-by
    missing_pictures: str | None = None  # what to tell of images that have none on report.html

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """The content of metrics.json, as JSON values."""
        return self.file.to_json()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The rows of metrics.parquet."""
        return self.file.metrics

    @property
    def unmet(self) -> tuple[str, ...]:
        """One text per requirement that is not met, with its number."""
        return tuple(verdict.found for verdict in self.file.requirements if not verdict.met)

    def check(self) -> None:
        """Raises RequirementNotMetError where a requirement is not met."""
        if self.unmet:
            raise RequirementNotMetError(
                f"requirement not met: {'; '.join(self.unmet)}",
                "use another model, or lower the requirement if the figure is good enough",
            )


def report(options: ReportOptions, track: Track = track_silently) -> Report:
    """Measure a complete run; write metrics.parquet, metrics.json, report.md and report.html into its folder.

    With `group_by` patients.parquet and patients.csv, too, with or without labels. Without a single label the other
    files say so and hold no metric. Nothing is written when an option is wrong; everything
    is written, and `Report.unmet` filled, when a requirement fails.

    Args:
        options: See ReportOptions.
        track: Shows how far the pictures are.

    Raises:
        MribatchError: Not a complete run, a damaged one, or an option that does not fit it.
    """
    facts = read_facts(options.run)
    requirements = [parse_requirement(text, facts.classes) for text in options.require]
    requirements += [
        parse_requirement(text, facts.classes, option="--require-low", bound="low") for text in options.require_low
    ]
    rows = load_rows(options.run, facts, find_predictions_column(options.groups, options.run))
    patients = _find_patients(options, facts, rows)
    levels, aggregated = _measure(options, facts, rows, patients)
    content = _assemble(
        options=options, facts=facts, rows=rows, levels=levels, patients=aggregated, requirements=requirements
    )
    table = None if patients is None else tabulate_patients(rows, patients, facts.classes)
    write_files(options.run, content, table)
    missing = write_page(options.run, content, rows, track) if options.html else None
    return Report(content, format_table(content, patients=table), table, missing)


def _find_patients(options: ReportOptions, facts: RunFacts, rows: RunRows) -> RowGroups | None:
    """Those that the user names; else, where no groups are named either, those that the rows know."""
    if options.group_by is not None:
        return find_patients(options.group_by, rows, facts.roots)
    return find_known_patients(rows) if options.groups is None else None


def _measure(
    options: ReportOptions, facts: RunFacts, rows: RunRows, patients: RowGroups | None
) -> tuple[tuple[Level, ...], Patients | None]:
    groups = patients if options.groups is None else find_groups(options.groups, rows, facts.roots)
    chosen, aggregated = select_images(rows, groups), None
    if patients is not None:
        aggregated = aggregate_slices(rows, patients, facts.classes)
        chosen += select_patients(aggregated)
    levels = tuple(measure_level(each, facts.classes, options.protocol, options.seed) for each in chosen)
    return levels, aggregated


def _assemble(
    *,
    options: ReportOptions,
    facts: RunFacts,
    rows: RunRows,
    levels: tuple[Level, ...],
    patients: Patients | None,
    requirements: Sequence[Requirement],
) -> MetricsFile:
    no_metrics = None if levels else explain_no_metrics(facts, rows)
    content = MetricsFile(
        schema_version=SCHEMA_VERSION,
        tool_version=__version__,
        research_notice=RESEARCH_NOTICE,
        notices=_list_notices(facts),
        run=_describe_run(options.run, facts),
        protocol=options.protocol,
        files=count_files(rows),
        predicted=count_predictions(rows, facts.classes),
        no_metrics=no_metrics,
        levels=levels,
        patients=None if patients is None else patients.counts,
        requirements=(),
        seen_in_training=count_training_images(facts, rows),
        unlike_training=count_unlike_images(facts, rows),
    )
    image = content.image_level
    return replace(content, requirements=tuple(each.judge(image, no_metrics) for each in requirements))


def _list_notices(facts: RunFacts) -> tuple[str, ...]:
    if facts.notice:
        return (facts.notice,)
    return () if facts.trained else (f"'{facts.model}' is not a trained model: its predictions mean nothing",)


def _describe_run(run: Path, facts: RunFacts) -> MeasuredRun:
    return MeasuredRun(
        name=run.resolve().name,
        model=facts.model,
        trained=facts.trained,
        classes=facts.classes,
        inputs=facts.inputs,
        backend=facts.backend,
        decoder=facts.decoder,
        precision=facts.precision,
        tool_version=facts.tool_version,
    )

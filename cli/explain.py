"""mribatch explain: where the model looked."""

import sys
from pathlib import Path

import click

from mribatch.core.errors import ExitCode


@click.command(short_help="Draw where the model looked in images.")
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE…", type=click.Path(path_type=str))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the pictures.")
@click.option("--model", help="Name of a shipped model, or folder of a bundle.  [default: efficientnet-lite2-framed]")
@click.option("--class", "class_name", metavar="NAME", help="Class that the map speaks for.  [default: the answer]")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of images with a picture."
)
@click.option("--json", "as_json", is_flag=True, help="Print each image as one line of JSON.")
def explain(
    *, inputs: tuple[str, ...], out: Path, model: str | None, class_name: str | None, limit: int, as_json: bool
) -> ExitCode:
    """Draw where the model looked in each IMAGE: a file, folder or pattern, DICOM and NIfTI as well.

    Each picture shows the image and, beside it, in colour what speaks for the answer. explained.jsonl has a line per
    image with the numbers of its map. A map says what the model used, not what is ill. Research use only, not a medical
    device.

    \b
    Example:
        mribatch explain scan.jpg --out maps
    """
    import json
    from dataclasses import asdict

    from mribatch.core.about import RESEARCH_NOTICE
    from mribatch.core.text import one_line
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.pipeline.progress import progress_for, track_on_terminal, track_silently
    from mribatch.report.explain import ExplainOptions
    from mribatch.report.explain import explain as explain_images

    chosen = ClassifyOptions(model=model, labels="none") if model else ClassifyOptions(labels="none")
    failed = 0
    options = ExplainOptions(classify=chosen, class_name=class_name, limit=limit)
    progress = progress_for(quiet=not sys.stderr.isatty())
    # Lines that scroll by on a terminal show how far it is; where they go elsewhere, a bar does.
    track = track_silently if sys.stdout.isatty() else track_on_terminal
    for image in explain_images(inputs, out, options, progress=progress, track=track):
        failed += image.status not in ("ok", "blank")
        if as_json:
            click.echo(json.dumps(asdict(image) | {"research_notice": RESEARCH_NOTICE}, allow_nan=False))
        elif image.picture is not None:
            answer = f"{image.predicted} ({image.explained} {image.probability:.4f}, {image.method})"
            click.echo(one_line(f"{image.path}: {answer}: {out / image.picture}"))
        else:
            click.echo(one_line(f"{image.path}: {image.status}{f', {image.error}' if image.error else ''}"))
    if not as_json:
        click.echo(RESEARCH_NOTICE)
    return ExitCode.ROWS_NOT_OK if failed else ExitCode.OK

"""report.html, in the folder of the run."""

from pathlib import Path

from mribatch.core.files import publishing
from mribatch.pipeline.progress import Track, track_silently
from mribatch.report.html.content import assemble_page
from mribatch.report.html.render import render_page
from mribatch.report.metrics_file import MetricsFile
from mribatch.report.rows import RunRows

HTML_PAGE = "report.html"


def write_page(run: Path, content: MetricsFile, rows: RunRows, track: Track = track_silently) -> str | None:
    """Write the page: one file without scripts, fonts or images from anywhere else.

    Args:
        run: The folder of a complete run; images that are no longer where it found them have no picture.
        content: The content of metrics.json.
        rows: Of the run.
        track: Shows how far the pictures are.

    Returns:
        What to tell of images whose files cannot be read any longer; None where all pictures are there.

    Raises:
        MribatchError: The folder of the run cannot be written to.
    """
    page = assemble_page(run, content, rows, track)
    text = render_page(page)
    with publishing(run / HTML_PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page.missing_pictures

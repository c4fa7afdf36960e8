"""Write docs/pictures/demo.svg, the README's picture: python docs/make_readme_picture.py (make picture)

Some files that `mribatch demo` draws, each with its row, above a terminal with the commands. They run in a temporary
folder, and what they print is shown as it is.
"""

import base64
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

PICTURE = Path(__file__).with_name("pictures") / "demo.svg"
COMMANDS = (
    "mribatch demo slices",
    "mribatch classify slices --out results",
    "mribatch table results --status failed --top 3",
)
FILES = (
    "glioma_tumor/slice-00000.jpg",
    "meningioma_tumor/slice-00001.jpg",
    "no_tumor/slice-00002.jpg",
    "glioma_tumor/broken-empty.jpg",
    "pituitary_tumor/slice-00003.jpg",
    "meningioma_tumor/broken-half.png",
    "no_tumor/slice-00006.png",
    "pituitary_tumor/broken-huge.png",
)
"""Shown above the terminal."""

_COLUMNS = 100
_WIDTH, _MARGIN = 1140, 10  # pixels
_TILE, _STEP, _STRIP = 128, 141, 196  # side of a tile, from one to the next, height of all with their texts
_OK, _FAILED, _FAINT = "#1a7f5a", "#c0392b", "#616e7c"
_BACKGROUND, _FOREGROUND = (22, 27, 34), (220, 226, 232)
_COLOURS = [  # of a terminal, from black to white
    (48, 54, 61),
    (255, 123, 114),
    (86, 211, 150),
    (227, 179, 65),
    (121, 192, 255),
    (210, 168, 255),
    (86, 212, 221),
    _FOREGROUND,
]


@dataclass(frozen=True)
class Tile:
    """One file and its row.

    row: as `mribatch table --json` prints it. png: the picture, scaled to a tile; None where nothing can be decoded.
    """

    row: dict[str, Any]
    png: bytes | None


@dataclass(frozen=True)
class Session:
    """What the commands printed, escape sequences included, and what became of some files."""

    commands: list[tuple[str, str]]
    tiles: list[Tile]


def session() -> Session:
    """Run the commands in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        commands = [(command, _output(command, folder)) for command in COMMANDS]
        lines = _output("mribatch table results --top 0 --json", folder).splitlines()
        rows = {row["path"]: row for row in map(json.loads, lines)}
        return Session(commands, [Tile(rows[name], _thumbnail(Path(folder, "slices", name))) for name in FILES])


def _thumbnail(path: Path) -> bytes | None:
    if path.name.startswith("broken-"):
        return None
    import cv2

    grey = cv2.imread(os.fspath(path), cv2.IMREAD_GRAYSCALE)
    return cv2.imencode(".png", cv2.resize(grey, (_TILE, _TILE), interpolation=cv2.INTER_AREA))[1].tobytes()


def _output(command: str, folder: str) -> str:
    """What a command writes to standard output when that is a terminal; progress on standard error is left out."""
    words = [sys.executable, "-m", *shlex.split(command)]
    environ = os.environ | {"COLUMNS": str(_COLUMNS), "TERM": "xterm-256color"}
    environ.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(words, cwd=folder, env=environ, stdout=theirs, stderr=subprocess.DEVNULL)
        os.close(theirs)
        written = bytearray()
        while chunk := _read(terminal.fileno()):
            written += chunk
    if process.wait() not in (0, 3):  # some of the demo's files are broken
        raise RuntimeError(f"{command}: exit code {process.returncode}")
    return written.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def picture(shown: Session) -> str:
    """The whole picture as an SVG."""
    terminal = _terminal(shown.commands)
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', terminal)[0])
    inner = _WIDTH - 2 * _MARGIN
    below = inner * height / width
    placed = f'<svg x="{_MARGIN}" y="{_STRIP}" width="{inner}" height="{below:.0f}" '
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_STRIP + below + _MARGIN:.0f}" role="img">',
        "<title>mribatch classifies a folder of synthetic slices and broken files: one row per file</title>",
        f'<rect width="100%" height="100%" rx="{_MARGIN}" fill="#ffffff"/>',
        *(_tile(tile, _MARGIN + 3 + _STEP * number) for number, tile in enumerate(shown.tiles)),
        terminal.replace("<svg ", placed, 1).rstrip(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _tile(tile: Tile, x: int) -> str:
    """One file: the picture, or a cross where there is none, and its row below."""
    row, top = tile.row, _MARGIN
    fine = row["status"] == "ok"
    if tile.png is None:
        picture = (
            f'<rect x="{x}" y="{top}" width="{_TILE}" height="{_TILE}" fill="#e4e7eb"/>'
            f'<path d="M{x + 44} {top + 44}l40 40m0 -40l-40 40" stroke="{_FAILED}" stroke-width="6"/>'
        )
    else:
        data = base64.b64encode(tile.png).decode()
        picture = f'<image x="{x}" y="{top}" width="{_TILE}" height="{_TILE}" href="data:image/png;base64,{data}"/>'
    answer = f"{row['predicted']} {row['confidence']:.2f}" if fine else row["status"]
    text = f'<text x="{x + _TILE // 2}" text-anchor="middle" font-family="system-ui, sans-serif"'
    return (
        f"{picture}"
        f'{text} y="{top + _TILE + 17}" font-size="11" fill="{_FAINT}">{escape(row["path"].split("/")[1])}</text>'
        f'{text} y="{top + _TILE + 34}" font-size="12" font-weight="600" fill="{_OK if fine else _FAILED}">'
        f"{escape(answer)}</text>"
    )


def _terminal(commands: list[tuple[str, str]]) -> str:
    """The commands and their output as an SVG. Its fonts are the reader's: a picture in a page may load nothing."""
    from rich.console import Console
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text

    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, (command, output) in enumerate(commands):
        console.print(Text("\n$ " if number else "$ ", "green") + Text(command, "bold white"))
        console.print(Text.from_ansi(output.rstrip()))
    theme = TerminalTheme(_BACKGROUND, _FOREGROUND, _COLOURS)
    drawn = console.export_svg(title="mribatch", theme=theme, unique_id="mribatch", font_aspect_ratio=0.61)
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.S).replace("Fira Code", "DejaVu Sans Mono")


def main() -> None:
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(session()), encoding="utf-8")
    print(f"written: {PICTURE}")


if __name__ == "__main__":
    main()

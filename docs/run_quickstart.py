"""Run docs/quickstart.ipynb again, in a temporary folder: python docs/run_quickstart.py [--out FILE] (make picture)

Keeps what the cells show, and nothing that tells a machine or a moment.
"""

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
_KEPT = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run every cell; the notebook then holds what they show.

    Raises:
        CellExecutionError: A cell raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    notebook.metadata = nbformat.from_dict(_KEPT)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=NOTEBOOK, help="the notebook itself")
    out = parser.parse_args().out
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    execute(notebook)
    nbformat.write(notebook, out)
    print(f"written: {out}")


if __name__ == "__main__":
    main()

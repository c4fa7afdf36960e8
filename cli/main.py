"""`mribatch`: finds the command, turns errors into one line and an exit code; imports a command when it is used."""

import contextlib
import os
import sys
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError

from mribatch.cli.elements import SuggestingGroup
from mribatch.cli.standard_streams import prepare_streams
from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.errors import ExitCode, MribatchError, end_sentence
from mribatch.core.text import one_line

# command -> (module, one line of help); a table, so that `mribatch --help` imports no command
COMMANDS = {
    "classify": ("mribatch.cli.classify", "Classify every image of a folder into Parquet, one row per file."),
    "table": ("mribatch.cli.table", "Print rows of a run: the least certain, of one class, those that failed."),
    "compare": ("mribatch.cli.compare", "Compare two runs over the same images: flips, differences, agreement."),
    "merge": ("mribatch.cli.merge", "Put the shards of an array job together to one run."),
    "verify": ("mribatch.cli.verify", "Check every file and every row of a finished run."),
    "report": ("mribatch.cli.report", "Measure a finished run against its labels."),
    "explain": ("mribatch.cli.explain", "Draw where the model looked in images."),
    "train": ("mribatch.cli.train", "Train a model and export it as a bundle."),
    "export": ("mribatch.cli.export", "Turn your own Keras classifier into a model bundle."),
    "quantize": (
        "mribatch.cli.quantize",
        "Add an INT8 graph to a model bundle, for faster classification on the CPU.",
    ),
    "features": ("mribatch.cli.features", "Draw what every convolutional layer of a Keras model makes of one image."),
    "engine": ("mribatch.cli.engine", "Build, check and manage TensorRT engines."),
    "doctor": ("mribatch.cli.doctor", "Show what this machine has, what auto picks, and what is missing."),
    "demo": ("mribatch.cli.demo", "Draw a small folder of synthetic slices to try mribatch on."),
}
_EXIT_CODES = """\b
Exit codes of all commands:
  0    done
  1    an error, which stderr explains in one line with its fix
  2    usage: a command, an option, or a value that it cannot take
  3    classify or explain finished, and some files failed
  4    report --require or compare --max-flips does not hold
  130  interrupted (Ctrl-C), 143 terminated; the same command resumes

"""


class LazyGroup(SuggestingGroup):
    """A group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[name][0]), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"{_EXIT_CODES}{RESEARCH_NOTICE}",
)
@click.version_option(__version__, "-V", "--version", prog_name="mribatch")
def cli() -> None:
    """Classify whole folders of brain MRI slices at the speed of the hardware."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script. Exits with an ExitCode; a bug keeps its traceback."""
    prepare_streams()
    try:
        code = cli.main(args=arguments, prog_name="mribatch", standalone_mode=False)
        sys.stdout.flush()
    except MribatchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "mribatch"
        click.echo(f"Error: {one_line(end_sentence(error.format_message()))} Fix: see {path} --help", err=True)
        sys.exit(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Error: interrupted. Fix: type the same command again; a run is resumed where it stopped", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of stdout went away, e.g. `| head`
        _discard_stdout()
        sys.exit(ExitCode.USER_ERROR)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

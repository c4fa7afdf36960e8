"""Write docs/reference/cli.md from the commands' own --help: python docs/make_cli_reference.py (make docs)"""

from pathlib import Path

import click

from mribatch.cli.main import COMMANDS, cli

PAGE = Path(__file__).with_name("reference") / "cli.md"
_WIDTH = 110


def reference() -> str:
    """The page's text."""
    parts = [
        "# Command line reference",
        "Generated from `--help` by `make docs`; a test fails if it is out of date.",
        _section("mribatch", cli, None),
    ]
    top = click.Context(cli, info_name="mribatch")
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        parts += _sections(f"mribatch {name}", command, top)
    return "\n\n".join([*parts, "Research use only, not a medical device.\n"])


def _sections(title: str, command: click.Command, parent: click.Context) -> list[str]:
    """The command's own section, and one for each of its subcommands."""
    sections = [_section(title, command, parent)]
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=title.rsplit(" ", 1)[-1], parent=parent)
        for name, child in command.commands.items():
            sections += _sections(f"{title} {name}", child, context)
    return sections


def _section(title: str, command: click.Command, parent: click.Context | None) -> str:
    name = title.rsplit(" ", 1)[-1]
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )
    return f"## {title}\n\n```text\n{command.get_help(context)}\n```"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"written: {PAGE}")

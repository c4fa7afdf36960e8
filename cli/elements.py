"""What several commands are made of: groups that suggest a command, and paths that must be local."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from mribatch.core.local_paths import check_local, utf8_path


class SuggestingGroup(click.Group):
    """A group that answers a misspelt command with the names that are close."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            close = get_close_matches(name, self.list_commands(ctx))
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise click.UsageError(f"No such command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


class LocalPath(click.Path):
    """A path as pathlib's; an address such as s3://bucket/x is refused in one line.

    holds_parquet: Refuse a name that is not UTF-8, before anything is written.
    """

    def __init__(self, *, holds_parquet: bool = False) -> None:
        super().__init__(path_type=Path)
        self._holds_parquet = holds_parquet

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        what = param.opts[0] if param is not None else "the path"
        check_local(value, what)
        if self._holds_parquet:
            utf8_path(os.fspath(value), what)
        return super().convert(value, param, ctx)


class RunPath(click.Path):
    """A run folder as a path, or as an Address where it is in a store."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from mribatch.pipeline.output.mirror import place_of

        return place_of(value)

"""mribatch engine: build, verify, inspect, list, clean"""

import contextlib
import copy
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribatch.cli.elements import LocalPath, SuggestingGroup
from mribatch.core.errors import ExitCode, Interrupted, MribatchError, OptionError
from mribatch.core.tables import count
from mribatch.core.text import one_line

if TYPE_CHECKING:
    from mribatch.trt.engine.progress import BuildProgress
    from mribatch.trt.engine.table import EngineRow
    from mribatch.trt.library import Flavor
    from mribatch.trt.request import BatchProfile, EngineRequest

_FLAVORS = ("auto", "tensorrt", "tensorrt-rtx")


class RenamedOption(click.Option):
    """An option whose first name is the one to use; its other names keep working and are not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return click.Option.get_help_record(self._under_first_name(), ctx)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return click.Option.get_error_hint(self._under_first_name(), ctx)

    def _under_first_name(self) -> "RenamedOption":
        shown = copy.copy(self)
        shown.opts = self.opts[:1]
        return shown


_cache_option = click.option(
    "--cache",
    "folder",
    type=LocalPath(),
    help="Engine cache folder.  [default: MRIBATCH_CACHE, else mribatch/ in the user's cache]",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Result as one line of JSON.")
_batch_size_option = click.option(
    "--batch-size",
    "--batch",
    "batch_size",
    cls=RenamedOption,
    metavar="MAX|OPT,MAX",
    default="64",
    show_default=True,
    help="Largest batch size, optionally preceded by the one to optimize for.",
)


@click.group(cls=SuggestingGroup, short_help="Build, check and manage TensorRT engines.")
def engine() -> None:
    """Build, check and manage TensorRT engines: a model bundle, compiled for one kind of GPU.

    Engines are kept in a cache, where `classify --backend tensorrt` finds them.
    """


@engine.command(short_help="Build engines, or find them in the cache.")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]…")
@click.option(
    "--flavor",
    "--flavour",
    "flavor",
    cls=RenamedOption,
    type=click.Choice(_FLAVORS),
    default="auto",
    show_default=True,
    help="Library that builds the engines.",
)
@click.option(
    "--target",
    metavar="smNN,smNN…",
    help="GPUs to build for, with tensorrt-rtx.  [default: this machine's GPU, else sm75,sm80,sm86,sm89,sm120]",
)
@click.option(
    "--precision",
    type=click.Choice(("fp16", "fp32")),
    default="fp16",
    show_default=True,
    help="Precision of the engines.",
)
@_batch_size_option
@click.option("--ratio", is_flag=True, help="FP32 engines as well, to compare the sizes of those that are built.")
@_cache_option
@_json_option
@click.option("--quiet", is_flag=True, help="No output except errors.")
def build(
    bundles: tuple[str, ...],
    flavor: str,
    target: str | None,
    precision: str,
    batch_size: str,
    ratio: bool,
    folder: Path | None,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Build the engines of every BUNDLE (a name or a folder; default: every bundle that ships with mribatch).

    TensorRT builds on the GPU that the engine is for. TensorRT for RTX also builds without a GPU, for each --target.
    An engine in the cache that fits is not built again. Ctrl-C cancels.

    \b
    Example:
      mribatch engine build cnn --flavor tensorrt-rtx --target sm86,sm89
    """
    from mribatch.core.bundle import shipped_models
    from mribatch.trt.request import EngineRequest

    chosen, targets = _parse_targets(flavor, target)
    profile = _parse_batch_size(batch_size)
    requests = [EngineRequest(flavor=chosen, target=one, precision=precision, batch=profile) for one in targets]
    names = bundles or tuple(shipped_models())
    rows, failures = _find_or_build(names, requests, folder, measure_ratio=ratio, quiet=quiet)
    if failures and not rows:
        raise failures[0]
    _print_built(rows, folder, as_json=as_json, quiet=quiet)
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    return ExitCode.USER_ERROR if failures else ExitCode.OK


@engine.command(short_help="Find the fastest settings for this machine's GPU, and keep them.")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]…")
@click.option(
    "--data",
    type=LocalPath(),
    help="Folder of JPEG and PNG files like those that will be classified.  [default: drawn slices]",
)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="Duration of each trial."
)
@_json_option
@click.option("--quiet", is_flag=True, help="No output except errors.")
def tune(bundles: tuple[str, ...], data: Path | None, seconds: float, as_json: bool, quiet: bool) -> ExitCode:
    """Find the fastest settings for every BUNDLE (default: the default model) on this machine's GPU, and keep them.

    Tried are the number of processes that share the GPU, batches of 64 to 512 images, the GPU's own JPEG engine, and
    threads. `classify` takes what was the fastest, and says so, where nothing else is asked for. A tuning is for one
    GPU, model and set of library versions.

    \b
    Example:
      mribatch engine tune --data scans/
    """
    from mribatch.core.bundle import DEFAULT_MODEL
    from mribatch.pipeline.tune import tune_bundle

    def note(text: str) -> None:
        if not quiet and not as_json:
            click.echo(text, err=True)

    reports = [tune_bundle(name, data, seconds=seconds, note=note) for name in bundles or (DEFAULT_MODEL,)]
    if as_json:
        _print_json("tunings", [report.to_json() for report in reports])
    elif not quiet:
        click.echo("\n".join(report.to_text() for report in reports))
    return ExitCode.OK


@engine.command(short_help="Compare FP16 with FP32: golden answers, or your own images.")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]…")
@click.option("--data", type=click.Path(path_type=str), help="Folder of images whose classes are compared as well.")
@click.option("--limit", type=click.IntRange(1), help="Maximum number of images to compare.")
@_batch_size_option
@_cache_option
@_json_option
def verify(
    bundles: tuple[str, ...], data: str | None, limit: int | None, batch_size: str, folder: Path | None, as_json: bool
) -> ExitCode:
    """Check that the FP16 engine of every BUNDLE gives the answers of its model.

    With a GPU, the engine runs there. Without one, the FP16 graph runs in ONNX Runtime with every FP16 tensor rounded
    ("cpu-emulated"): this shows the effect of FP16 on the answers, not that of a GPU.

    \b
    Exit codes: 0 the answers agree; 1 they do not.
    """
    from mribatch.cli.engine_images import open_user_images
    from mribatch.core.bundle import load_bundle, shipped_models
    from mribatch.core.native_stderr import without_native_stderr
    from mribatch.trt import verify as verification
    from mribatch.trt.engine.cache import EngineCache

    results = []
    with without_native_stderr(), show_progress(quiet=as_json) as progress:
        for name in bundles or tuple(shipped_models()):
            bundle = load_bundle(name)
            images = open_user_images(data, bundle, limit) if data else None
            profile = _parse_batch_size(batch_size)
            results.append(verification.verify(bundle, profile, EngineCache(folder), images=images, progress=progress))
    if as_json:
        _print_json("bundles", [result.to_json() for result in results])
    else:
        click.echo("\n".join(result.to_text() for result in results))
    return ExitCode.OK if all(result.holds for result in results) else ExitCode.USER_ERROR


@engine.command(short_help="Show what an engine is, and its layers if this machine has its GPU.")
@click.argument("file", metavar="FILE.engine", type=LocalPath())
@_cache_option
@click.option(
    "--trust-engine",
    is_flag=True,
    help="Permission to load an engine from outside the cache, which runs native code of whoever built it.",
)
def inspect(file: Path, folder: Path | None, trust_engine: bool) -> ExitCode:
    """Show the sidecar of an engine, after its hash has been checked, and its layers if this machine has its GPU."""
    from mribatch.trt.engine.cache import EngineCache, read_engine
    from mribatch.trt.engine.inspect import describe_layers

    found = read_engine(file, trusted=trust_engine)
    text = json.dumps(found.sidecar.to_json(), indent=2, ensure_ascii=False)
    click.echo("\n".join(map(one_line, text.split("\n"))))  # it may be another's: nothing in it may steer the terminal
    click.echo(describe_layers(found, EngineCache(folder).folder, trusted=trust_engine))
    return ExitCode.OK


@engine.command("list", short_help="List the engines in the cache.")
@_cache_option
@_json_option
def list_engines(folder: Path | None, as_json: bool) -> ExitCode:
    """List the engines in the cache, with the contents of their sidecars."""
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.engine.table import EngineRow, format_table

    cache = EngineCache(folder)
    rows = [EngineRow(path, sidecar, True) for path, sidecar in cache.read_sidecars().items()]
    if as_json:
        _print_json("engines", [row.to_json() for row in rows])
    else:
        click.echo(format_table(rows) if rows else f"There is no engine in {cache.folder}.")
    return ExitCode.OK


@engine.command(short_help="Delete engines from the cache.")
@click.option(
    "--stale", is_flag=True, help="Only engines of library versions that are not installed, and unusable ones."
)
@_cache_option
def clean(stale: bool, folder: Path | None) -> ExitCode:
    """Delete the engines in the cache. Files that mribatch did not write there are kept."""
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.library import Flavor, find_installed_version

    versions = {flavor: find_installed_version(flavor) for flavor in Flavor}
    cache = EngineCache(folder)
    with show_progress(quiet=False) as progress, cache.locked(progress):
        engines, size = cache.clean(lambda sidecar: stale and versions.get(sidecar.trt_flavor) == sidecar.trt_version)
    click.echo(f"{count(engines, 'engine')} deleted from {cache.folder}, {size / 1e6:.1f} MB freed")
    return ExitCode.OK


def _print_json(key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from mribatch.core.about import JSON_SCHEMA_VERSION

    click.echo(json.dumps({"schema_version": JSON_SCHEMA_VERSION, key: rows}, allow_nan=False))


def _print_built(rows: "Sequence[EngineRow]", folder: Path | None, *, as_json: bool, quiet: bool) -> None:
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.engine.table import format_table

    if as_json:
        _print_json("engines", [row.to_json() for row in rows])
    elif not quiet:
        click.echo(format_table(rows))
        click.echo(f"{count(len(rows), 'engine')} in {EngineCache(folder).folder}")


def _find_or_build(
    bundles: Sequence[str],
    requests: "Sequence[EngineRequest]",
    folder: Path | None,
    *,
    measure_ratio: bool,
    quiet: bool,
) -> "tuple[list[EngineRow], list[MribatchError]]":
    """The engines that were found or built, and why the others were not."""
    from mribatch.core.bundle import load_bundle
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.engine.provider import EngineProvider
    from mribatch.trt.engine.table import EngineRow

    rows: list[EngineRow] = []
    failures: list[MribatchError] = []
    with show_progress(quiet) as progress:
        for name in bundles:
            provider = EngineProvider(load_bundle(name), EngineCache(folder), progress, measure_ratio=measure_ratio)
            for request in requests:
                try:
                    found = provider.find_or_build(request)
                except Interrupted:
                    raise
                except MribatchError as error:  # the other bundles and targets may well succeed
                    failures.append(error)
                    continue
                rows.append(EngineRow(found.file.path, found.file.sidecar, found.from_cache))
    return rows, failures


def _parse_targets(flavor: str, target: str | None) -> "tuple[Flavor, tuple[str, ...]]":
    from mribatch.trt.engine.provider import choose_targets
    from mribatch.trt.gpu import find_gpu
    from mribatch.trt.library import Flavor, find_installed_flavors, require_version

    asked = None if flavor == "auto" else Flavor(flavor)
    if asked:
        require_version(asked)
    if target is None:
        return choose_targets(asked, find_installed_flavors(), find_gpu())
    targets = tuple(dict.fromkeys(name.strip().lower() for name in target.split(",") if name.strip()))
    if not targets or not all(re.fullmatch("sm[0-9]{2,4}", name) for name in targets):
        raise OptionError(f"--target '{target}' does not name a GPU", "give --target sm86 or --target sm86,sm89")
    return asked or Flavor.RTX, targets


def _parse_batch_size(text: str) -> "BatchProfile":
    from mribatch.trt.request import BatchProfile

    sizes = text.split(",")
    if len(sizes) > 2 or not all(re.fullmatch(r" *[0-9]{1,9} *", size) for size in sizes):
        raise OptionError(
            f"--batch-size '{text}' is not a batch size",
            "give --batch-size MAX or --batch-size OPT,MAX, for example 64",
        )
    return BatchProfile(int(sizes[0]), int(sizes[-1]))


@contextlib.contextmanager
def show_progress(quiet: bool) -> "Iterator[BuildProgress]":
    """A bar on a terminal's stderr, and notes; the first SIGINT or SIGTERM makes `step` return False.

    Raises:
        Interrupted: As the body did, with the exit code of the signal that came.
    """
    from tqdm import tqdm

    from mribatch.pipeline.stop_signals import StopSignals
    from mribatch.trt.engine.progress import BuildProgress, BuildStep

    bar = tqdm(total=1, unit="step", leave=False, disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True)

    class TerminalProgress(BuildProgress):
        def note(self, text: str) -> None:
            if not quiet:
                tqdm.write(text, file=sys.stderr)

        def step(self, step: BuildStep) -> bool:
            bar.total, bar.n = step.total, min(step.done, step.total)
            bar.set_description(step.phase[:70], refresh=False)
            bar.update(0)
            return stop.exit_code is None and not came()

    with StopSignals() as stop, _watch_signals() as came, contextlib.closing(bar):
        try:
            yield TerminalProgress()
        except Interrupted as error:
            raise Interrupted(stop.exit_code or error.exit_code, error.problem, error.fix) from error


@contextlib.contextmanager
def _watch_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that is true once a signal with a handler has come.

    Python runs handlers in the main thread only, which may be inside the library while another thread reports.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def came() -> bool:
            try:
                return bool(reader.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                return False

        try:
            yield came
        finally:
            signal.set_wakeup_fd(before)

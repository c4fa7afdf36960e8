"""mribatch engine: build, verify, inspect, list, clean"""

import contextlib
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribatch.core.errors import ExitCode, Interrupted, MribatchError, one_line

if TYPE_CHECKING:
    from mribatch.trt.engine.build import BatchProfile, OnStep
    from mribatch.trt.engine.sidecar import EngineRequest
    from mribatch.trt.engine.table import EngineRow

_FLAVOURS = ("auto", "tensorrt", "tensorrt-rtx")

_cache_option = click.option(
    "--cache",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of engines.  [default: MRIBATCH_CACHE, else mribatch/ in the user's cache]",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
_trust_option = click.option(
    "--trust-engine", is_flag=True, help="Load an engine from outside the cache: it is native code of whoever built it."
)


@click.group(short_help="Build, check and manage TensorRT engines.")
def engine() -> None:
    """Build, check and manage TensorRT engines: a model bundle, compiled for one kind of GPU.

    Engines are kept in a cache and found again by `classify --backend tensorrt`.
    """


@engine.command(short_help="Build engines, or find them in the cache.")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]…")
@click.option(
    "--flavour", type=click.Choice(_FLAVOURS), default="auto", show_default=True, help="Which library builds."
)
@click.option(
    "--target",
    metavar="smNN,smNN…",
    help="GPUs to build for, with tensorrt-rtx.  [default: the GPU that is here, else sm75,sm80,sm86,sm89,sm120]",
)
@click.option("--precision", type=click.Choice(("fp16", "fp32")), default="fp16", show_default=True)
@click.option("--batch", metavar="MAX|OPT,MAX", default="64", show_default=True, help="Largest, and fastest, batch.")
@_cache_option
@_json_option
@click.option("--quiet", is_flag=True, help="Print errors only.")
def build(
    bundles: tuple[str, ...],
    flavour: str,
    target: str | None,
    precision: str,
    batch: str,
    folder: Path | None,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Build the engines of every BUNDLE (a name or a folder; default: every bundle that ships with mribatch).

    TensorRT builds on the GPU that the engine is for. TensorRT for RTX also builds with no GPU, for each --target.
    What lies in the cache and fits is not built again. Ctrl-C cancels.

    \b
    Example:
      mribatch engine build cnn --flavour tensorrt-rtx --target sm86,sm89
    """
    from mribatch.core.bundle import shipped_models
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.engine.sidecar import EngineRequest
    from mribatch.trt.engine.table import as_table

    chosen, targets = _wanted(flavour, target)
    profile = _profile(batch)
    requests = [EngineRequest(flavour=chosen, target=one, precision=precision, batch=profile) for one in targets]
    rows, failures = _obtained(bundles or tuple(shipped_models()), requests, folder, quiet)
    if failures and not rows:
        raise failures[0]
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], allow_nan=False))
    elif not quiet:
        click.echo(as_table(rows))
        click.echo(f"{len(rows)} engines in {EngineCache(folder).folder}")
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    return ExitCode.USER_ERROR if failures else ExitCode.OK


@engine.command(short_help="Compare FP16 with FP32: golden answers, or your own images.")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]…")
@click.option("--data", type=click.Path(path_type=str), help="A folder of images: compare the classes of each.")
@click.option("--limit", type=click.IntRange(1), help="Compare the first so many images only.")
@click.option("--batch", metavar="MAX|OPT,MAX", default="64", show_default=True, help="Largest, and fastest, batch.")
@_cache_option
@_json_option
def verify(
    bundles: tuple[str, ...], data: str | None, limit: int | None, batch: str, folder: Path | None, as_json: bool
) -> ExitCode:
    """Prove that the FP16 engine of every BUNDLE answers as the model does.

    With a GPU its engine runs there. Without one, the FP16 graph runs in ONNX Runtime with every FP16 tensor rounded
    ("cpu-emulated"): that shows what FP16 does to the answers, not what a GPU does.

    \b
    Exit codes: 0 it does; 1 it does not.
    """
    from mribatch.cli.engine_images import user_images
    from mribatch.cli.native_stderr import without_native_stderr
    from mribatch.core.bundle import load_bundle, shipped_models
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.verify import verify as verified

    results = []
    with without_native_stderr(), _progress(quiet=as_json) as (note, on_step):
        for name in bundles or tuple(shipped_models()):
            bundle = load_bundle(name)
            images = user_images(data, bundle, limit) if data else None
            results.append(verified(bundle, _profile(batch), EngineCache(folder), images, note, on_step))
    if as_json:
        click.echo(json.dumps([result.to_json() for result in results], allow_nan=False))
    else:
        click.echo("\n".join(result.to_text() for result in results))
    return ExitCode.OK if all(result.holds for result in results) else ExitCode.USER_ERROR


@engine.command(short_help="Show what an engine is, and its layers where its GPU is here.")
@click.argument("file", metavar="FILE.engine", type=click.Path(path_type=Path))
@_cache_option
@_trust_option
def inspect(file: Path, folder: Path | None, trust_engine: bool) -> ExitCode:
    """Show the sidecar of an engine, after its hash has been checked, and its layers where its GPU is here."""
    from mribatch.trt.engine.cache import EngineCache, read_engine
    from mribatch.trt.engine.inspect import text_of

    found = read_engine(file, trusted=trust_engine)
    text = json.dumps(found.sidecar, indent=2, ensure_ascii=False)
    click.echo("\n".join(map(one_line, text.split("\n"))))  # it may be another's: nothing in it may steer the terminal
    click.echo(text_of(found, trusted=trust_engine, folder=EngineCache(folder).folder))
    return ExitCode.OK


@engine.command("list", short_help="List the engines in the cache.")
@_cache_option
@_json_option
def list_engines(folder: Path | None, as_json: bool) -> ExitCode:
    """List the engines in the cache, with what their sidecars say."""
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.engine.table import EngineRow, as_table

    cache = EngineCache(folder)
    rows = [EngineRow(path, sidecar, True) for path, sidecar in cache.sidecars().items()]
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], allow_nan=False))
    else:
        click.echo(as_table(rows) if rows else f"There is no engine in {cache.folder}.")
    return ExitCode.OK


@engine.command(short_help="Delete engines from the cache.")
@click.option("--stale", is_flag=True, help="Only those of library versions that are not installed, and refused ones.")
@_cache_option
def clean(stale: bool, folder: Path | None) -> ExitCode:
    """Delete the engines in the cache. Files that mribatch did not put there stay."""
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.library import Flavour, installed_version

    versions = {str(flavour): installed_version(flavour) for flavour in Flavour}
    cache = EngineCache(folder)
    with cache.locked(lambda text: click.echo(text, err=True)):
        engines, size = cache.clean(
            lambda sidecar: stale and versions.get(sidecar["trt_flavor"]) == sidecar["trt_version"]
        )
    click.echo(f"{engines} engines deleted from {cache.folder}, {size / 1e6:.1f} MB freed")
    return ExitCode.OK


def _obtained(
    bundles: Sequence[str], requests: "Sequence[EngineRequest]", folder: Path | None, quiet: bool
) -> "tuple[list[EngineRow], list[MribatchError]]":
    """Every engine that can be had, and why the others cannot."""
    from mribatch.core.bundle import load_bundle
    from mribatch.trt.engine.cache import EngineCache
    from mribatch.trt.engine.maker import EngineMaker
    from mribatch.trt.engine.table import EngineRow

    rows: list[EngineRow] = []
    failures: list[MribatchError] = []
    with _progress(quiet) as (note, on_step):
        for name in bundles:
            maker = EngineMaker(load_bundle(name), EngineCache(folder), note, on_step)
            for request in requests:
                try:
                    obtained = maker.obtain(request)
                except Interrupted:
                    raise
                except MribatchError as error:  # the other bundles and targets may well succeed
                    failures.append(error)
                    continue
                rows.append(EngineRow(obtained.engine.path, obtained.engine.sidecar, obtained.from_cache))
    return rows, failures


def _wanted(flavour: str, target: str | None) -> tuple[Any, tuple[str, ...]]:
    from mribatch.trt.engine.maker import here_or_all
    from mribatch.trt.gpu import find_gpu
    from mribatch.trt.library import Flavour, installed_flavours, required_version

    asked = None if flavour == "auto" else Flavour(flavour)
    if asked:
        required_version(asked)
    if target is None:
        return here_or_all(asked, installed_flavours(), find_gpu())
    targets = tuple(dict.fromkeys(name.strip().lower() for name in target.split(",") if name.strip()))
    if not targets or not all(re.fullmatch("sm[0-9]{2,4}", name) for name in targets):
        raise MribatchError(f"--target '{target}' names no GPU", "give --target sm86 or --target sm86,sm89")
    return asked or Flavour.RTX, targets


def _profile(text: str) -> "BatchProfile":
    from mribatch.trt.engine.build import BatchProfile

    sizes = text.split(",")
    if len(sizes) > 2 or not all(re.fullmatch(r" *[0-9]{1,9} *", size) for size in sizes):
        raise MribatchError(f"--batch '{text}' is no batch size", "give --batch MAX or --batch OPT,MAX, for example 64")
    return BatchProfile(int(sizes[0]), int(sizes[-1]))


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[tuple[Any, "OnStep"]]:
    """(note, on_step): a bar on a terminal's stderr; the first SIGINT or SIGTERM makes on_step return False.

    Raises:
        Interrupted: As the body did, with the exit code of the signal that came.
    """
    from tqdm import tqdm

    from mribatch.pipeline.stop_signals import StopSignals

    bar = tqdm(total=1, unit="step", leave=False, disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True)

    def on_step(step: Any) -> bool:
        bar.total, bar.n = step.total, min(step.done, step.total)
        bar.set_description(step.phase[:70], refresh=False)
        bar.update(0)
        return stop.exit_code is None and not came()

    def note(text: str) -> None:
        if not quiet:
            tqdm.write(text, file=sys.stderr)

    with StopSignals() as stop, _signals_at_once() as came, contextlib.closing(bar):
        try:
            yield note, on_step
        except Interrupted as error:
            raise Interrupted(stop.exit_code or error.exit_code, error.problem, error.fix) from error


@contextlib.contextmanager
def _signals_at_once() -> Iterator[Callable[[], bool]]:
    """A function that is true once a signal with a handler has come.

    Python runs handlers in the main thread only, which may stand in the library while it reports from another thread.
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

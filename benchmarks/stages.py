"""How fast each stage is, alone and with all others: python -m benchmarks.stages [--data FOLDER] [--model MODEL]

    read    files to bytes and the probe's verdict
    decode  D: files to pixels, with each decoder that is there
    bare    DALI's graph alone, fed from memory without a copy: what its decoding could be at most
    infer   I: pixels to probabilities, with each backend that is there: one resident batch again and again,
            once alone and once beside a decoder that works flat out
    write   probabilities to rows to Parquet
    all     E: files to Parquet in this process, for every pair of backend and decoder
    worker  the same in a supervised worker process, as a run has it with DALI

All in one process after an uncounted round, in turns, so that every ratio is one of the same minute. On a GPU the
stages overlap, and E is compared with the slower of D and I, and with the slower of `bare` and I beside a decoder,
which no care for damaged files makes slower. On a CPU they share the cores, and E is compared with the ceiling of
`benchmarks.cpu_ceiling`: cores / (core-seconds of OpenCV's decoding + of inference), and for DALI also with DALI's own
core-seconds in their place. Engines are built before; starts are not counted.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine, spread
from benchmarks.cpu_ceiling import SIDE, core_seconds, draw_folder, image_paths, sample_files
from benchmarks.stage_rates import (
    Pair,
    Work,
    decode_bare_rate,
    decode_rate,
    decoder,
    has_gpu,
    infer_rate,
    read_rate,
    whole_rate,
    worker_rate,
    write_rate,
)
from mribatch.core.bundle import DEFAULT_MODEL, Bundle, load_bundle
from mribatch.core.classifier import Classifier
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.core.files import write_json
from mribatch.pipeline.choices import DALI, ONNXRUNTIME, OPENCV, TENSORRT, choose_backend, choose_decoder
from mribatch.pipeline.decode.dali_graph import HW_DECODER_LOADS
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.pipeline.output.layout import PART_ROWS
from mribatch.pipeline.records import Choice
from mribatch.trt.request import DEFAULT_BATCH

MOST_DRAWN = 6000  # files; more images are the same files again
ON_CPU, ON_GPU = 3000, 60_000  # images that a stage is timed on: seconds of work, not moments

Figures = dict[str, float]


@dataclass(frozen=True)
class Parts:
    """What can be measured here. left_out: name -> why it cannot."""

    backends: Mapping[str, tuple[Choice, Classifier]]
    decoders: Mapping[str, Choice]
    left_out: Mapping[str, str]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        chosen = [choice for choice, _ in self.backends.values()]
        return tuple(Pair(backend, decoder) for backend in chosen for decoder in self.decoders.values())

    def classifier(self, pair: Pair) -> Classifier:
        return self.backends[pair.backend.name][1]

    @property
    def worker(self) -> Pair | None:
        """The pair whose worker process is measured: DALI with the best backend."""
        return next((pair for pair in reversed(self.pairs) if pair.decoder.name == DALI), None)


def find_parts(bundle: Bundle, batch_size: int, threads: int) -> Parts:
    """The backends and decoders that are there; builds an engine, or loads it, where there is a GPU for it."""
    backends: dict[str, tuple[Choice, Classifier]] = {
        ONNXRUNTIME: (choose_backend(ONNXRUNTIME), OnnxRuntimeClassifier(bundle, threads))
    }
    decoders, left_out = {OPENCV: choose_decoder(OPENCV)}, {}
    try:
        choice = choose_backend(TENSORRT)
        from mribatch.trt.backend import open_backend

        with open_backend(bundle, batch_size) as engine:  # each measurement enters the classifier again
            backends[TENSORRT] = (Choice(choice.name, engine.reason), engine.classifier)
    except MribatchError as error:
        left_out[TENSORRT] = error.problem
    try:
        decoders[DALI] = choose_decoder(DALI)
    except MribatchError as error:
        left_out[DALI] = error.problem
    return Parts(backends, decoders, left_out)


def measure(work: Work, parts: Parts, repeats: int, gpu: bool) -> dict[str, Any]:
    """Every stage in turns, `repeats` times after a round that is not counted."""
    steps, figures = _steps(work, parts, gpu), dict[str, list[float]]()
    for repeat in range(repeats + 1):
        once: Figures = {}
        for step in steps:
            once |= step()
        once |= ratios(once, parts.pairs, work.threads, gpu)
        if repeat:
            for key, value in once.items():
                figures.setdefault(key, []).append(value)
    return {key: spread(values) for key, values in figures.items()}


def _steps(work: Work, parts: Parts, gpu: bool) -> list[Callable[[], Figures]]:
    """What one round does, in order."""
    steps = [_rate("read", partial(read_rate, work))]
    steps += [partial(_decode, work, name) for name in dict.fromkeys(pair.decodes for pair in parts.pairs)]
    if DALI in parts.decoders:
        steps.append(_rate("decode_bare", partial(decode_bare_rate, work)))
    for pair in {pair.infers: pair for pair in parts.pairs}.values():
        rate = partial(infer_rate, work, parts.classifier(pair), pair.resident)
        steps.append(_rate(f"infer_{pair.infers}", rate))
    for pair in parts.pairs:
        rate = partial(infer_rate, work, parts.classifier(pair), pair.resident, pair.decodes)
        steps.append(_rate(f"infer_{pair.infers}_beside_{pair.decodes}", rate))
    steps.append(_rate("write", partial(write_rate, work)))
    steps += [_rate(f"all_{pair.name}", partial(whole_rate, work, pair)) for pair in parts.pairs]
    if parts.worker is not None:
        steps.append(_rate(f"worker_{parts.worker.name}", partial(worker_rate, work, parts.worker)))
    return steps if gpu else [*steps, partial(_core_seconds, work)]


def _rate(name: str, measured: Callable[[], float]) -> Callable[[], Figures]:
    return lambda: {f"{name}_images_per_second": measured()}


def _decode(work: Work, name: str) -> Figures:
    rate, core = decode_rate(work, name)
    return {f"decode_{name}_images_per_second": rate, f"decode_{name}_process_core_seconds": core}


def _core_seconds(work: Work) -> Figures:
    decode, infer = core_seconds(sample_files(work.paths), work.bundle, work.threads, work.batch_size)
    return {"decode_core_seconds": decode, "inference_core_seconds": infer}


def ratios(once: Figures, pairs: Sequence[Pair], cores: int, gpu: bool) -> Figures:
    """What one round's rates say of each other.

    Args:
        once: The rates (images per second) and core-seconds of `_steps`.
        pairs: Those measured.
        cores: Of the ceiling.
        gpu: Whether stages overlap on a GPU (E / min(D, I)) or share the cores (E / ceiling).
    """
    rate = {key.removesuffix("_images_per_second"): value for key, value in once.items()}
    found: Figures = {}
    if not gpu:
        found["ceiling"] = cores / (once["decode_core_seconds"] + once["inference_core_seconds"])
    for pair in pairs:
        whole, decode = rate[f"all_{pair.name}"], rate[f"decode_{pair.decodes}"]
        if gpu:
            beside = rate[f"infer_{pair.infers}_beside_{pair.decodes}"]
            found[f"all_{pair.name}_to_min_decode_infer"] = whole / min(decode, rate[f"infer_{pair.infers}"])
            found[f"all_{pair.name}_to_min_decode_infer_beside"] = whole / min(decode, beside)
            if pair.decoder.name == DALI:
                found[f"all_{pair.name}_to_min_decode_bare_infer_beside"] = whole / min(rate["decode_bare"], beside)
        else:
            found[f"all_{pair.name}_to_ceiling"] = whole / found["ceiling"]
        if pair.decoder.name == DALI:
            found[f"decode_{pair.decodes}_to_opencv"] = decode / rate[f"decode_{OPENCV}"]
            found[f"all_{pair.name}_to_opencv"] = whole / rate[f"all_{pair.backend.name}_{OPENCV}"]
        if pair.decoder.name == DALI and not gpu:
            own = once[f"decode_{pair.decodes}_process_core_seconds"] + once["inference_core_seconds"]
            found[f"all_{pair.name}_to_own_ceiling"] = whole * own / cores
        if f"worker_{pair.name}" in rate:
            found[f"worker_{pair.name}_to_all"] = rate[f"worker_{pair.name}"] / whole
    return found


def describe(work: Work, parts: Parts, gpu: bool) -> dict[str, Any]:
    """The conditions that are this benchmark's own."""
    return {
        "model": work.bundle.spec.name,
        "model_sha256": work.bundle.spec.model_sha256,
        "files": len(work.paths),
        "images_timed": work.timed,
        "batch_size": work.batch_size,
        "threads": work.threads,
        "page_cache": "warm: the uncounted first round read every file that is measured",
        "hw_decoder_load": HW_DECODER_LOADS[0] if gpu and DALI in parts.decoders else None,
        "backends": {
            name: {"version": classify.library_version, "precision": classify.precision, "reason": choice.reason}
            for name, (choice, classify) in parts.backends.items()
        },
        "decoders": {
            name: {"version": decoder(work, name).library_version, "reason": choice.reason}
            for name, choice in parts.decoders.items()
        },
        "left_out": dict(parts.left_out),
    }


def print_table(result: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Rates and ratios with their spread, and what is not there."""
    for key, figure in figures.items():
        if key.endswith("core_seconds"):
            continue
        digits = 1 if key.endswith("_images_per_second") or key == "ceiling" else 3
        low, high = (f"{figure[end]:.{digits}f}" for end in ("low", "high"))
        print(f"{key:<58}{figure['median']:10.{digits}f}  ({low} to {high})")
    for name, reason in result["left_out"].items():
        print(f"not measured: {name}: {reason}")


def main() -> None:
    options = _arguments()
    facts, bundle = conditions(), load_bundle(options.model)
    gpu, threads = has_gpu(), usable_cores()
    timed = options.count or (ON_GPU if gpu else ON_CPU)
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as scratch:
        data = options.data or Path(scratch) / "data"
        if options.data is None:
            draw_folder(data, min(timed, MOST_DRAWN))
        paths = image_paths(data)
        if not paths:
            sys.exit(f"Error: {data} holds no JPEG or PNG file. Fix: name another folder with --data")
        work = Work(
            bundle=bundle,
            paths=tuple(paths),
            batch_size=options.batch,
            batches=-(-timed // options.batch),
            threads=threads,
        )
        parts = find_parts(bundle, options.batch, threads)
        result = describe(work, parts, gpu)
        figures = measure(work, parts, options.repeats, gpu)
    kind = "real" if options.data else f"synthetic{SIDE}px"
    name = f"stages-{bundle.spec.name}-{kind}-{machine(facts)}-batch{options.batch}.json"
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / name, {"conditions": facts, "data": kind} | result | figures)
    print_table(result, figures)
    print(f"written: {options.results / name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real images; synthetic ones are drawn without it")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--count",
        type=int,
        help=f"images that each stage is timed on; the files are taken again and "
        f"again (default: {ON_CPU}, on a GPU {ON_GPU})",
    )
    parser.add_argument("--batch", type=int, default=DEFAULT_BATCH.maximum, help="images in a batch of every stage")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.repeats < 1 or options.batch < 1 or PART_ROWS % options.batch or (options.count or 1) < 1:
        parser.error(f"--repeats and --count are 1 or more, --batch divides {PART_ROWS}")
    return options


if __name__ == "__main__":
    main()

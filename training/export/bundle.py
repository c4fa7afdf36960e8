"""A converted model -> a bundle that is gated against its reference before it gets its name."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement, compare
from mribatch.core.bundle import (
    CARD_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    SPEC_FILE,
    TRAINING_IMAGES_FILE,
    TRAINING_LOOK_FILE,
    Bundle,
    Golden,
    load_bundle,
)
from mribatch.core.errors import MribatchError
from mribatch.core.files import remove_folder, write_json
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from mribatch.core.synthetic import golden_slices
from mribatch.core.training_images import TrainingImages
from mribatch.core.training_look import TrainingLook
from mribatch.report.metrics import MACRO, WEIGHTED
from mribatch.training.data.classes import ClassList
from mribatch.training.export.onnx_conversion import make_convertible


class Source(Protocol):
    """A graph for a bundle, and what it is compared with."""

    @property
    def height(self) -> int: ...  # pixels
    @property
    def width(self) -> int: ...
    @property
    def reference(self) -> str: ...  # what gives the answers, for people
    @property
    def answers(
        self,
    ) -> Callable[[NDArray[uint8]], NDArray[float32]]: ...  # uint8 (n, height, width, 1) -> (n, classes)

    def to_onnx(self) -> bytes:
        """Return the bundle's model.onnx."""


@dataclass(frozen=True, kw_only=True)
class BundleFacts:
    """The content of bundle.json beyond shape and hashes; see ModelSpec for the fields."""

    name: str
    classes: ClassList
    trained: bool = True
    temperature: float = 1.0
    activation: str = "softmax"  # what makes probabilities of the graph's last numbers, for people
    description: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    licences: Mapping[str, str] = field(default_factory=dict)
    training_images: TrainingImages | None = None  # None: they are not known
    training_look: TrainingLook | None = None  # None: they are not known, or too few


def write_bundle(network: Any, facts: BundleFacts, card: str, out: Path) -> Agreement:
    """Convert a network, gate the graph, and only then give the folder its name.

    Args:
        network: keras.Model as `networks.build` makes it.
        facts: For bundle.json.
        card: MODEL_CARD.md.
        out: The bundle's folder. A bundle there is replaced as a whole; see `check_replaceable`.

    Returns:
        The agreement of ONNX Runtime with Keras on the golden slices.

    Raises:
        MribatchError: They do not agree; `out` is unchanged.
    """
    return publish_bundle(make_convertible(network, facts.temperature), facts, card, out)


def publish_bundle(
    source: Source, facts: BundleFacts, card: str, out: Path, golden_answers: Golden | None = None
) -> Agreement:
    """Do as `write_bundle`, for any graph; `facts.temperature` only records what the graph does.

    Without `golden_answers`, the source answers the usual golden slices.
    """
    check_replaceable(out)
    if golden_answers is None:
        images = golden_slices(height=source.height, width=source.width)
        golden_answers = Golden(images, source.answers(images))
    with publishing_bundle(out) as folder:
        model = source.to_onnx()
        golden = _pack_golden(golden_answers)
        (folder / MODEL_FILE).write_bytes(model)
        (folder / GOLDEN_FILE).write_bytes(golden)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        extras = _pack_extras(facts)
        for name, packed in extras.items():
            (folder / name).write_bytes(packed)
        content = _make_spec(facts, source, model, golden, extras).to_json()
        content["output"]["activation"] = facts.activation
        write_json(folder / SPEC_FILE, content)
        return _gate(load_bundle(str(folder)), source.reference)


def check_replaceable(out: Path) -> None:
    """Refuse to overwrite anything but a bundle.

    Raises:
        MribatchError: `out` exists and holds something else.
    """
    if out.exists() and not (out / SPEC_FILE).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise MribatchError(f"{out} exists and is not a model bundle", "choose another --out")


def check_names(name: str, classes: ClassList) -> None:
    """Refuse impossible names of a model and its classes before hours of fitting or minutes of conversion.

    Raises:
        MribatchError: A bundle or a report cannot hold one of them; names it.
    """
    nothing = "0" * 64
    try:
        ModelSpec(
            name=name,
            classes=classes.names,
            aliases=dict(classes.aliases),
            height=1,
            width=1,
            model_sha256=nothing,
            golden_sha256=nothing,
            trained=True,
        )
    except MribatchError as error:
        fix = "use up to 64 letters, digits, '_', '.' and '-' for names of models (--name, or the folder's) and classes"
        raise MribatchError(error.problem, fix) from error
    if taken := {MACRO, WEIGHTED} & set(classes.names):
        problem = f"a class is called '{min(taken)}', which is the name of an average in tables of metrics"
        raise MribatchError(problem, "rename the class")


def _pack_extras(facts: BundleFacts) -> dict[str, bytes]:
    """What the bundle knows of its training images, by file name."""
    known = {TRAINING_IMAGES_FILE: facts.training_images, TRAINING_LOOK_FILE: facts.training_look}
    return {name: content.to_bytes() for name, content in known.items() if content is not None}


def _make_spec(
    facts: BundleFacts, source: Source, model: bytes, golden: bytes, extras: Mapping[str, bytes]
) -> ModelSpec:
    digests = {name: sha256(content).hexdigest() for name, content in extras.items()}
    return ModelSpec(
        name=facts.name,
        classes=facts.classes.names,
        aliases=dict(facts.classes.aliases),
        height=source.height,
        width=source.width,
        model_sha256=sha256(model).hexdigest(),
        golden_sha256=sha256(golden).hexdigest(),
        training_images_sha256=digests.get(TRAINING_IMAGES_FILE),
        training_look_sha256=digests.get(TRAINING_LOOK_FILE),
        trained=facts.trained,
        temperature=facts.temperature,
        description=facts.description,
        training=dict(facts.training),
        metrics=tuple(facts.metrics),
        licences=dict(facts.licences),
    )


def _gate(bundle: Bundle, reference: str) -> Agreement:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    got = session.run([OUTPUT_NAME], {INPUT_NAME: bundle.golden.images})[0]
    agreement = compare(got, bundle.golden.probabilities, bundle.spec.tolerance)
    if not agreement.holds:
        raise MribatchError(
            f"the exported graph does not give the probabilities of {reference} on the golden slices: {agreement}",
            "report this with the versions that `pip list` shows; no bundle was written",
        )
    return agreement


def _pack_golden(golden: Golden) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, images=golden.images, probabilities=golden.probabilities)
    return stream.getvalue()


@contextlib.contextmanager
def publishing_bundle(out: Path) -> Iterator[Path]:
    """Yield a dotted folder beside `out` that gets its name at the end; a former bundle is removed only then.

    If the process is killed between the two renamings, the next call puts the former bundle back.
    """
    out = Path(os.path.abspath(out))
    building, former = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    try:
        _put_back(former, out)
        for leftover in (building, former):
            remove_folder(leftover)
        building.mkdir(parents=True)
        yield building
        if out.exists():
            os.rename(out, former)
        os.rename(building, out)
    except OSError as error:
        raise MribatchError(f"could not write {out}: {error.strerror or error}", "choose another --out") from error
    finally:
        remove_folder(building)
        with contextlib.suppress(OSError):  # if even this fails, `former` stays and the next call tries again
            _put_back(former, out)
            remove_folder(former)


def _put_back(former: Path, out: Path) -> None:
    if former.is_dir() and not out.exists():
        os.rename(former, out)

"""Who races, with what network and in which environment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mribatch.core.bundle import DEFAULT_MODEL, INT8_FILE, shipped_models
from mribatch.core.model_spec import INT8

PIXELS = 160
REFERENCE = "reference"  # every ratio is against this one


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One way to classify a folder.

    Attributes:
        name: Of the entrant, on the command line and in the results.
        label: For readers.
        network: What is computed for each image; {bundle} is the name of mribatch's default model.
        environment: Name of the virtual environment and of its list of requirements; None for this one, with mribatch.
        module: The peer's script; None for `mribatch classify`.
        options: Command line of its own. {graph} is mribatch's default graph, {b3} the reference's network as Keras
            saved it, {b3_bundle} the same as a bundle.
        imports: What must be importable to run in this environment.
        libraries: Whose versions are recorded.
    """

    name: str
    label: str
    network: str
    environment: str | None = None
    module: str | None = None
    options: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is `mribatch classify`."""
        return self.module is None

    @property
    def uses_default_graph(self) -> bool:
        """Whether it is a peer with mribatch's default graph, and so with its size."""
        return "{graph}" in self.options

    @property
    def variant(self) -> Mapping[str, str] | None:
        """What tells variants of bundles apart in the results; None where the decoder or the network is another.

        "precision", and "model" where it is not the default.
        """
        words = self.options
        if not self.ours or "opencv" not in words or "--precision" not in words or "{b3_bundle}" in words:
            return None
        named = dict(zip(words[::2], words[1::2], strict=False))
        shown = {"precision": named["--precision"]}
        return shown | ({"model": named["--model"]} if "--model" in named else {})


_CPU = ("--backend", "onnxruntime", "--decoder", "opencv")
_OUR_LIBRARIES = ("onnxruntime", "numpy", "pyarrow", "opencv-python-headless")
_B3 = f"EfficientNetB3, {PIXELS} px, random weights"


def _list_other_bundles() -> Iterator[Entrant]:
    """Every shipped bundle but the default in every precision that it has, the fastest one under the plain name."""
    for name, folder in shipped_models().items():
        if name == DEFAULT_MODEL:
            continue
        precisions = [INT8, "fp32"] if (folder / INT8_FILE).is_file() else ["fp32"]
        for precision in precisions:
            first = precision == precisions[0]
            yield Entrant(
                name=f"mribatch-{name}" if first else f"mribatch-{name}-{precision}",
                label=f"mribatch --model {name}" + ("" if first else f" --precision {precision}"),
                network=f"{name}, INT8" if precision == INT8 else name,
                options=("--model", name, "--precision", precision, *_CPU),
                libraries=_OUR_LIBRARIES,
            )


ENTRANTS = (
    Entrant(
        name=REFERENCE,
        label="OpenCV + Keras (the reference's way)",
        network=_B3,
        environment="reference",
        module="benchmarks.race.peers.reference",
        options=("--model", "{b3}"),
        imports=("tensorflow", "keras", "cv2"),
        libraries=("tensorflow", "keras", "opencv-python-headless", "numpy"),
    ),
    Entrant(
        name="timm",
        label="timm, as its inference script",
        network=f"tf_efficientnet_lite2, {PIXELS} px, random weights",
        environment="timm",
        module="benchmarks.race.peers.timm_folder",
        imports=("timm", "torch", "torchvision"),
        libraries=("timm", "torch", "torchvision", "pillow", "numpy"),
    ),
    Entrant(
        name="ray",
        label="Ray Data + ONNX Runtime",
        network="{bundle}",
        environment="ray",
        module="benchmarks.race.peers.ray_data",
        options=("--model", "{graph}"),
        imports=("ray", "onnxruntime", "PIL"),
        libraries=("ray", "onnxruntime", "pillow", "numpy"),
    ),
    Entrant(
        name="ultralytics",
        label="Ultralytics YOLO predict",
        network=f"yolo11n-cls, {PIXELS} px, random weights",
        environment="ultralytics",
        module="benchmarks.race.peers.ultralytics_yolo",
        imports=("ultralytics", "torch", "torchvision"),
        libraries=("ultralytics-opencv-headless", "torch", "torchvision", "opencv-python-headless", "numpy"),
    ),
    Entrant(
        name="tutorial",
        label="Pillow + ONNX Runtime (tutorials)",
        network="{bundle}",
        environment="tutorial",
        module="benchmarks.race.peers.tutorial",
        options=("--model", "{graph}"),
        imports=("onnxruntime", "PIL"),
        libraries=("onnxruntime", "pillow", "numpy"),
    ),
    Entrant(
        name="mribatch",
        label="mribatch",
        network="{bundle}, INT8",
        options=("--precision", "int8", *_CPU),
        libraries=_OUR_LIBRARIES,
    ),
    Entrant(
        name="mribatch-fp32",
        label="mribatch --precision fp32",
        network="{bundle}",
        options=("--precision", "fp32", *_CPU),
        libraries=_OUR_LIBRARIES,
    ),
    *_list_other_bundles(),
    Entrant(
        name="mribatch-dali",
        label="mribatch --decoder dali",
        network="{bundle}, INT8",
        options=("--precision", "int8", "--backend", "onnxruntime", "--decoder", "dali"),
        imports=("nvidia.dali",),
        libraries=(*_OUR_LIBRARIES, "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    ),
    Entrant(
        name="mribatch-b3",
        label="mribatch with the reference's network",
        network=_B3,
        options=("--model", "{b3_bundle}", *_CPU),
        imports=("tensorflow", "tf2onnx"),
        libraries=_OUR_LIBRARIES,
    ),
)
# Left out unless asked for: a race of everybody should take minutes.
ON_REQUEST = ("mribatch-b3",)


def choose(names: str | None, extra: list[str]) -> list[Entrant]:
    """The entrants of a race.

    Args:
        names: Separated by commas; "all", or None for all but those on request.
        extra: NAME=OPTIONS, each one more `mribatch classify` with these options.

    Raises:
        ValueError: No entrant has such a name, or an extra one is not NAME=OPTIONS.
    """
    known = {entrant.name: entrant for entrant in ENTRANTS}
    if names is None:
        chosen = [entrant for entrant in ENTRANTS if entrant.name not in ON_REQUEST]
    elif names == "all":
        chosen = list(ENTRANTS)
    else:
        asked = [name.strip() for name in names.split(",") if name.strip()]
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(f"no peer is called {', '.join(unknown)}; there are {', '.join(known)}")
        chosen = [known[name] for name in dict.fromkeys(asked)]
    for one in extra:
        name, separator, options = one.partition("=")
        if not separator or not name or name in known:
            raise ValueError(f"--ours takes NAME=OPTIONS with a new name, not {one}")
        words = tuple(options.split())
        chosen.append(
            Entrant(
                name=name,
                label=" ".join(("mribatch", *words)),
                network=words[words.index("--model") + 1] if "--model" in words[:-1] else "{bundle}",
                options=words,
                libraries=_OUR_LIBRARIES,
            )
        )
    return chosen

"""Every name of TensorRT that trt/ uses exists in TensorRT 10.12, 10.16 and 11.4 and in TensorRT for RTX 1.7.

The listings in tests/trt/api/ were read out of the public wheels by tests/trt/api/make_listing.py. This test follows each
object of the library through the code, from the module `trt` over calls and attributes, and looks up what is asked of it.
"""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

API = Path(__file__).parent / "api"
TRT = Path(__file__).parents[2] / "trt"
LISTINGS = {path.stem: json.loads(path.read_text()) for path in sorted(API.glob("*.json"))}
MODULE = "module"

# Variables that hold an object of the library wherever they are not annotated as something else.
NAMES = {
    "trt": MODULE,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
# The same for attributes of our own objects.
ATTRIBUTES = {"opened.engine": "ICudaEngine", "_opened.engine": "ICudaEngine", "self._context": "IExecutionContext"}
# What a method gives, where the code goes on with it.
RETURNS = {
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("Builder", "create_optimization_profile"): "IOptimizationProfile",
    ("Builder", "build_serialized_network"): "IHostMemory",
    ("OnnxParser", "get_error"): "ParserError",
    ("INetworkDefinition", "get_input"): "ITensor",
    ("INetworkDefinition", "get_output"): "ITensor",
    ("INetworkDefinition", "get_layer"): "ILayer",
    ("ILayer", "get_output"): "ITensor",
    ("IBuilderConfig", "create_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "get_timing_cache"): "ITimingCache",
    ("Runtime", "deserialize_cuda_engine"): "ICudaEngine",
    ("ICudaEngine", "create_execution_context"): "IExecutionContext",
    ("ICudaEngine", "create_engine_inspector"): "EngineInspector",
    ("ICudaEngine", "create_runtime_config"): "IRuntimeConfig",
    ("IRuntimeConfig", "create_runtime_cache"): "IRuntimeCache",
    ("ICudaEngine", "get_tensor_mode"): "TensorIOMode",
    ("ICudaEngine", "get_tensor_dtype"): "DataType",
}


@dataclass
class Walk(ast.NodeVisitor):
    """uses: (class or MODULE, name, line) of every access to an object of the library."""

    names: dict[str, str | None] = field(default_factory=lambda: dict(NAMES))
    uses: list[tuple[str, str, int]] = field(default_factory=list)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = dict(self.names)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            if argument.annotation is not None and ast.unparse(argument.annotation) != "Any":
                self.names[argument.arg] = None
        self.generic_visit(node)
        self.names = before

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        kind = self.kind(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name) and (kind or target.id not in NAMES):
                self.names[target.id] = kind

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.kind(node.value)
        if owner and not node.attr.startswith("__"):
            self.uses.append((owner, node.attr, node.lineno))
        self.generic_visit(node)

    def kind(self, node: ast.expr) -> str | None:
        """The class of the library that an expression is, or is an instance or a member of."""
        match node:
            case ast.Name(id=name):
                return self.names.get(name)
            case ast.Attribute(value=owner, attr=name):
                path = ast.unparse(node)
                for ending, kind in ATTRIBUTES.items():
                    if path == ending or path.endswith("." + ending):
                        return kind
                return name if self.kind(owner) == MODULE else None
            case ast.Call(func=ast.Attribute(value=owner, attr=name)):
                if self.kind(owner) == MODULE:
                    return name
                return RETURNS.get((self.kind(owner) or "", name))
        return None


def uses_of(source: str) -> list[tuple[str, str, int]]:
    walk = Walk()
    walk.visit(ast.parse(source))
    return walk.uses


def missing(source: str, listings: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    for owner, name, line in uses_of(source):
        for library, classes in listings.items():
            found = name in classes if owner == MODULE else name in classes.get(owner, ())
            if not found:
                yield f"line {line}: {library} has no {'' if owner == MODULE else owner + '.'}{name}"


MODULES = sorted(TRT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TRT)))
def test_every_name_exists_in_every_library(path: Path) -> None:
    only_rtx = path.name == "rtx.py"
    listings = {name: names for name, names in LISTINGS.items() if not only_rtx or name.startswith("tensorrt_rtx")}
    assert not list(missing(path.read_text(), listings))


def test_four_libraries_are_looked_at() -> None:
    assert list(LISTINGS) == [
        "tensorrt-10.12.0.36",
        "tensorrt-10.16.1.11",
        "tensorrt-11.4.0.106",
        "tensorrt_rtx-1.7.1.116",
    ]


def test_the_walk_sees_what_the_code_does() -> None:
    seen = {(owner, name) for path in MODULES for owner, name, _ in uses_of(path.read_text())}
    assert seen >= {
        (MODULE, "Builder"),
        (MODULE, "OnnxParser"),
        (MODULE, "Runtime"),
        (MODULE, "ILogger"),
        (MODULE, "IProgressMonitor"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("BuilderFlag", "TF32"),
        ("MemoryPoolType", "WORKSPACE"),
        ("Builder", "create_network"),
        ("Builder", "build_serialized_network"),
        ("OnnxParser", "parse"),
        ("ParserError", "desc"),
        ("IBuilderConfig", "progress_monitor"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ITimingCache", "serialize"),
        ("IOptimizationProfile", "set_shape"),
        ("ILayer", "metadata"),
        ("ITensor", "dtype"),
        ("IBuilderConfig", "set_compute_capability"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "create_execution_context"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("TensorIOMode", "name"),
        ("IExecutionContext", "set_input_shape"),
        ("IExecutionContext", "set_tensor_address"),
        ("IExecutionContext", "execute_async_v3"),
        ("EngineInspector", "get_engine_information"),
        ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
        ("IRuntimeConfig", "set_runtime_cache"),
        ("IRuntimeCache", "deserialize"),
    }


def test_tensorrt_for_rtx_can_be_told_to_compile_eagerly() -> None:
    """The code asks the value that is there for its type, which the walk cannot follow."""
    assert "EAGER" in LISTINGS["tensorrt_rtx-1.7.1.116"]["DynamicShapesKernelSpecializationStrategy"]


PLANTED = {
    "config.set_flag(trt.BuilderFlag.FP16)": "BuilderFlag.FP16",
    "builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))": "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "builder.platform_has_fast_fp16": "Builder.platform_has_fast_fp16",
    "config.max_workspace_size = 1": "IBuilderConfig.max_workspace_size",
    "builder.build_engine(network, config)": "Builder.build_engine",
    "trt.Runtime(logger).deserialize_cuda_engine(b'').create_execution_context().execute_async_v2([], 0)": "IExecutionContext.execute_async_v2",
    "layer = network.get_layer(0); layer.precision": "ILayer.precision",
    "trt.IInt8EntropyCalibrator2": "IInt8EntropyCalibrator2",
    "engine.num_bindings": "ICudaEngine.num_bindings",
    "config.set_compute_capability(0, 0)": "IBuilderConfig.set_compute_capability",
}


@pytest.mark.parametrize("line", PLANTED)
def test_a_planted_name_of_the_past_is_found(line: str) -> None:
    source = (TRT / "engine/build.py").read_text()
    place = "    config.set_memory_pool_limit("
    assert place in source
    found = list(missing(source.replace(place, f"    {line}\n{place}", 1), LISTINGS))
    assert found and all(PLANTED[line] in one for one in found)

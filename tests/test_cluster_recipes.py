"""The scripts of docs/how-to/cluster.md: valid, and the Slurm one runs where Slurm's variables are set."""

import copy
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mribatch.cli.classify import classify
from mribatch.pipeline.output.run_file import read_run_file
from tests.folders import draw_images

FOLDER = Path(__file__).parents[1] / "docs/how-to/cluster"
SCRIPT = FOLDER / "slurm-array.sh"


def test_shellcheck_finds_nothing_in_the_script() -> None:
    checker = Path(sys.executable).parent / "shellcheck"
    found = subprocess.run([checker, SCRIPT], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.fixture
def manifest() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "kubernetes-indexed-job.yaml").read_text())
    return content


def test_the_manifest_follows_the_schema_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_the_manifest_numbers_as_many_shards_as_it_starts_pods(manifest: dict[str, Any]) -> None:
    assert manifest["spec"]["completionMode"] == "Indexed"
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert f'--shard "$number/{manifest["spec"]["completions"]}"' in container["args"][0]


@pytest.fixture
def ray_job() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "kuberay-rayjob.yaml").read_text())
    return content


def check_ray_job(manifest: dict[str, Any]) -> None:
    """The reduced schema of KubeRay; the pods by the schema of Kubernetes."""
    schema = json.loads((Path(__file__).parent / "ray_job.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema, jsonschema.Draft202012Validator)
    for template in templates(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"} | template.get("metadata", {})}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, "1.33", strict=True)


def templates(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])


def test_the_ray_job_follows_the_schemas(ray_job: dict[str, Any]) -> None:
    check_ray_job(ray_job)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("spec", "entryPoint"), "mribatch"),
        (("spec", "backoffLimit"), "3"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "replica"), 4),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "imagePull"), "Always"),
    ],
)
def test_a_mistake_in_the_ray_job_is_found(ray_job: dict[str, Any], keys: tuple[Any, ...], value: object) -> None:
    place: Any = copy.deepcopy(ray_job)
    changed = place
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_ray_job(changed)


def test_all_machines_of_the_ray_job_have_the_same_image_and_volumes(ray_job: dict[str, Any]) -> None:
    pods = [(one["spec"]["containers"][0], one["spec"]["volumes"]) for one in templates(ray_job)]
    assert len({(box["image"], str(box["volumeMounts"]), str(volumes)) for box, volumes in pods}) == 1


def test_the_entrypoint_of_the_ray_job_is_a_command_that_exists(ray_job: dict[str, Any]) -> None:
    words = shlex.split(ray_job["spec"]["entrypoint"])
    assert words[-5:] == ["||", "test", "$?", "-eq", "3"]
    command = classify.make_context("classify", words[2:-5])
    assert (command.params["on"], command.params["out"]) == ("ray", "/output/run")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Slurm's variables in one task of two, and a `mribatch` on the path."""
    command = tmp_path / "bin/mribatch"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mribatch.cli "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
    return os.environ | slurm | {"PATH": path}


def test_the_script_makes_its_shard_and_takes_failed_images_for_a_success(
    environment: dict[str, str], tmp_path: Path
) -> None:
    draw_images(tmp_path / "data", 4)
    (tmp_path / "data/broken.jpg").write_bytes(b"not an image")
    command = [SCRIPT, tmp_path / "data", tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    content = read_run_file(tmp_path / "out/shard-2")
    assert (
        content.shard == "2/2"
        and content.counts is not None
        and content.counts.rows - content.counts.by_status["ok"] == 1
    )


def test_the_script_fails_where_the_command_does(environment: dict[str, str], tmp_path: Path) -> None:
    command = [SCRIPT, tmp_path / "missing", tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "missing" in done.stderr

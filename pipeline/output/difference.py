"""Why a folder's run is another one than the command describes, in the user's words."""

import json
import os

from mribatch.pipeline.output.run_file import JsonScalar

_NAMES = {
    "backend": "the backend",
    "backend_version": "the version of the backend's library",
    "decoder": "the decoder",
    "decoder_version": "the version of the decoder's library",
    "precision": "the precision",
    "batch_size": "the batch size",
    "max_pixels": "the maximum of pixels per image",
    "part_rows": "the number of rows in a Parquet file",
    "schema_version": "the version of the Parquet schema",
    "check_data": "--check-data",
    "window": "the window of DICOM slices",
    "plane": "the plane of NIfTI slices",
    "volume": "the volume of NIfTI files",
    "any_modality": "--any-modality",
    "dicom_anywhere": "--dicom-anywhere",
    "anonymize_paths": "--anonymize-paths",
    "pseudonym_key": "the key of the pseudonyms",
    "imagecodecs": "the version of imagecodecs",
    "nibabel": "the version of nibabel",
}
_STDIN = "-"
_MOST_INPUTS = 3


def describe_difference(key: str, earlier: JsonScalar, now: JsonScalar) -> str:
    """Say what differs between an earlier run and the command.

    Args:
        key: Of the fingerprint.
        earlier: Its value in the earlier run; None where an older version did not record it.
        now: Its value today.
    """
    if key == "inputs":
        return f"its inputs were {_list_inputs(earlier)}, now they are {_list_inputs(now)}"
    if key == "model":
        return _describe_models(str(earlier), str(now))
    if key == "exclude":
        return f"its patterns of files to leave out were {_list_values(earlier)}, now they are {_list_values(now)}"
    if key == "alias":
        return f"its aliases of classes were {_list_values(earlier)}, now they are {_list_values(now)}"
    return f"{_NAMES.get(key, key)} was {_shorten(earlier)}, now it is {_shorten(now)}"


def _list_values(value: JsonScalar) -> str:
    """A list or an object in JSON -> its content; None, where the option was not used."""
    if value is None:
        return "none"
    try:
        content = json.loads(str(value))
    except ValueError:
        return _shorten(value)
    if isinstance(content, dict):
        return ", ".join(f"{name}={target}" for name, target in content.items())
    return ", ".join(map(str, content)) if isinstance(content, list) else _shorten(value)


def _describe_models(earlier: str, now: str) -> str:
    """Each is a name and the hash of its bundle."""
    (name, _, hash_before), (name_now, _, hash_now) = earlier.rpartition(" "), now.rpartition(" ")
    if name != name_now:
        return f"the model was {name}, now it is {name_now}"
    return f"the model {name} has changed since: its bundle was {hash_before[:8]}…, now it is {hash_now[:8]}…"


def _list_inputs(value: JsonScalar) -> str:
    """The inputs as [kind, root, name] in JSON -> their paths; another form is shown as it is."""
    try:
        inputs = json.loads(str(value))
        paths = [_format_input(*item) for item in inputs]
    except (ValueError, TypeError):
        return _shorten(value)
    more = f" and {len(paths) - _MOST_INPUTS:,} more" if len(paths) > _MOST_INPUTS else ""
    return ", ".join(paths[:_MOST_INPUTS]) + more


def _format_input(kind: str, root: str, name: str) -> str:
    if kind == "list":
        return "a list on standard input" if name == _STDIN else f"the list {name}"
    return os.path.join(root, name) if name else root


def _shorten(value: JsonScalar) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if len(text) > 40 else text

"""Model bundles in a store: a local copy of each, fetched once."""

import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

from mribatch.core.errors import BundleError
from mribatch.core.system_errors import write_error
from mribatch.pipeline.storage.address import Address, is_address, local_path
from mribatch.pipeline.storage.store import (
    FIRST_PATIENCE_S,
    StoreError,
    check_bucket,
    list_folder,
    look_up,
    read_object,
)

_MAX_FILES = 100


def fetch_bundle(model: str) -> str:
    """Return a model that `load_bundle` takes: itself, or for one in a store the folder of its copy.

    A copy is known by names, sizes and times of the files in the store, so a bundle that was replaced is fetched anew.

    Raises:
        BundleError: There is no bundle.
        MribatchError: The store does not answer, or refuses access.
        WriteError: There is no place for the copy.
    """
    if not is_address(model):
        return os.fspath(local_path(model))
    address = Address.parse(model)
    try:
        files = _list(address)
        folder = _cache() / sha256(repr((str(address), files)).encode()).hexdigest()[:32]
        if not folder.is_dir():
            _fetch(address, [name for name, _, _ in files], folder)
        return str(folder)
    except StoreError as error:
        raise error.to_user(f"cannot read the bundle {address}") from error
    except OSError as error:
        problem = f"cannot keep a copy of {address} in {_cache()}"
        raise write_error(problem, error, "name another folder by MRIBATCH_CACHE") from error


def _list(address: Address) -> list[tuple[str, int, int | None]]:
    if look_up(address, FIRST_PATIENCE_S) is None:
        check_bucket(address)
        raise BundleError(f"there is no model bundle at '{address}'", "check the address")
    found = [(name, facts.size, facts.mtime_ns) for name, facts in list_folder(address) if not facts.is_folder]
    if not found or len(found) > _MAX_FILES:
        raise BundleError(f"{address} is no model bundle: it holds {len(found):,} files", "check the address")
    return sorted(found)


def _fetch(address: Address, names: list[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        whole = Path(scratch, "bundle")
        whole.mkdir()
        for name in names:
            (whole / os.path.basename(name)).write_bytes(read_object(address / name).data)
        if not folder.is_dir():  # another process may have been faster
            shutil.move(whole, folder)


def _cache() -> Path:
    from mribatch.trt.engine.cache import find_default_folder

    return find_default_folder() / "bundles"

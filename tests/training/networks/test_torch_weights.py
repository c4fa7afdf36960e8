"""State dicts are read to the last bit, and a pickle that wants anything else is refused before it runs."""

import copy
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.training.networks.torch_weights import read_state_dict
from tests.training.state_dicts import (
    Call,
    Global,
    Stored,
    code,
    pickled,
    some_arrays,
    tensor,
    write_stream,
    write_zip,
)

Writer = Callable[..., Path]
WRITERS = pytest.mark.parametrize("write", [write_stream, write_zip], ids=["stream", "zip"])
ARRAY = np.arange(6, dtype=np.float32)


@WRITERS
def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path, write: Writer) -> None:
    arrays = some_arrays()
    read = read_state_dict(write(tmp_path / "net.pth", arrays))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


@WRITERS
def test_views_of_one_storage_and_the_versions_that_pytorch_hangs_on(tmp_path: Path, write: Writer) -> None:
    whole = np.arange(12, dtype=np.float32)
    key = "1000" if write is write_stream else "0"
    names = {
        "turned": tensor(whole, key, shape=(4, 3), strides=(1, 4)),
        "tail": tensor(whole, key, shape=(2,), strides=(1,), offset=10),
    }
    made = Call(Global("collections", "OrderedDict"), ())
    versions = {"_metadata": {"": {"version": 1}}}
    body = pickled(made)[2:-1] + pickled(names)[3:-1] + pickled(versions)[2:-1] + b"b"
    read = read_state_dict(write(tmp_path / "net.pth", {"whole": whole}, body))
    assert isinstance(read, dict) and not isinstance(read, OrderedDict)
    assert read["turned"].tolist() == whole.reshape(3, 4).T.tolist() and read["tail"].tolist() == [10, 11]
    assert not read["turned"].flags.writeable


class Ran(Exception):
    pass


@WRITERS
@pytest.mark.parametrize(
    "function",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_rebuild"),
        ("collections", "Counter"),
        ("torch", "storage._load_from_bytes"),
    ],
    ids="·".join,
)
def test_a_hostile_pickle_is_refused_and_never_runs(tmp_path: Path, write: Writer, function: tuple[str, str]) -> None:
    bait = tmp_path / "ran"
    state = {"a": tensor(ARRAY, "0"), "b": Call(Global(*function), (f"touch {bait}",))}
    with pytest.raises(
        MribatchError, match=f"it asks for {function[0]}.{function[1]}, which is not a tensor of numbers"
    ):
        read_state_dict(write(tmp_path / "net.pth", {"a": ARRAY}, state))
    assert not bait.exists()


@pytest.mark.parametrize(
    ("opcodes", "told"),
    [
        (b"\x8c\x02os\x8c\x06system\x93", "asks for os.system"),  # STACK_GLOBAL
        (b"ios\nsystem\n", "uses INST"),
        (b"(cos\nsystem\no", "uses OBJ"),
        (b"cos\nsystem\n)\x81", "uses NEWOBJ"),
        (b"\x82\x01", "uses EXT1"),
        (b"Nr\xff\xff\xff\xff", "an object number out of range"),
        (b"F1.5\n", "uses FLOAT"),
        (b"P12\n", "uses PERSID"),
    ],
)
def test_other_ways_into_a_pickle_are_closed(tmp_path: Path, opcodes: bytes, told: str) -> None:
    for write in (write_stream, write_zip):
        with pytest.raises(MribatchError, match=told):
            read_state_dict(write(tmp_path / "net.pth", {"a": ARRAY}, {"a": tensor(ARRAY, "0"), "b": opcodes}))


@pytest.mark.parametrize(
    "alters", [{"strides": (b"J" + struct.pack("<i", -1),)}, {"offset": 2**40}, {"shape": (2**40,)}]
)
def test_what_was_checked_cannot_be_altered_afterwards(tmp_path: Path, alters: dict[str, Any]) -> None:
    """BUILD writes into an object's __dict__ past a frozen dataclass: strides of -1 would read before the storage."""
    built = code(tensor(ARRAY, "0", view=False)) + code(alters) + b"b"
    with pytest.raises(MribatchError, match="its pickle alters what it has built"):
        read_state_dict(write_zip(tmp_path / "net.pth", {"a": ARRAY}, {"a": built}))


@pytest.mark.parametrize(
    "built",
    [
        code(Global("torch._utils", "_rebuild_tensor_v2")) + code({"x": 1}) + b"b",
        code(Stored(("storage", Global("torch", "FloatStorage"), "0", "cpu", 6))) + code({"count": 2**40}) + b"b",
    ],
    ids=["function", "storage"],
)
def test_nothing_else_can_be_altered_either(tmp_path: Path, built: bytes) -> None:
    with pytest.raises(MribatchError, match="its pickle alters what it has built"):
        read_state_dict(
            write_zip(tmp_path / "net.pth", {"a": ARRAY}, {"a": tensor(ARRAY, "0", view=False), "b": built})
        )


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A thousand entries over one megabyte would take a gigabyte of memory."""
    path = write_zip(tmp_path / "net.pth", {"a": np.zeros(100_000, dtype=np.float32)})
    with zipfile.ZipFile(path, "a") as archive:
        again = copy.copy(archive.getinfo("net/data/0"))
        again.filename = "net/data/1"
        archive.filelist.append(again)
        archive.NameToInfo[again.filename] = again
        archive.comment = b""  # whatever it is, setting it makes close() write the directory again
    with pytest.raises(MribatchError, match="its entries are longer than the file together"):
        read_state_dict(path)


def test_a_long_program_is_not_looked_through_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"X" + (60_000).to_bytes(4, "little") + b"a" * 60_000 + b"0"  # BINUNICODE, then POP
    seen = 0
    genops = pickletools.genops

    def counted(stream: bytes) -> Iterator[Any]:
        nonlocal seen
        for opcode in genops(stream):
            seen += 1
            yield opcode

    monkeypatch.setattr(pickletools, "genops", counted)
    with pytest.raises(MribatchError, match="too long for names and shapes"):
        read_state_dict(write_zip(tmp_path / "net.pth", {"a": ARRAY}, text * 400 + b"N"))
    assert seen < 600  # of 801


@WRITERS
@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"shape": (7,)}, "is outside its storage"),
        ({"offset": 1}, "is outside its storage"),
        ({"offset": 2**62}, "is outside its storage"),
        ({"strides": (2,)}, "is outside its storage"),
        ({"strides": (2**40,)}, "is outside its storage"),
        ({"shape": (2**40,), "strides": (0,)}, "is outside its storage"),
        ({"strides": (1, 1)}, "has an unknown description"),
        ({"strides": (-1,)}, "has an unknown description"),
        ({"offset": -1}, "has an unknown description"),
        ({"offset": True}, "has an unknown description"),
        ({"count": 7}, "a storage of 7 numbers has 6"),
        ({"count": 2**61}, "a storage of .* numbers has 6"),
        ({"storage": "DoubleStorage"}, "numbers has"),
        ({"storage": "BoolStorage"}, "asks for torch.BoolStorage"),
    ],
)
def test_lengths_offsets_and_strides_are_checked(tmp_path: Path, write: Writer, lie: dict[str, Any], told: str) -> None:
    key = "1000" if write is write_stream else "0"
    state = {"a": tensor(ARRAY, key, write is write_stream, **lie)}
    with pytest.raises(MribatchError, match=told):
        read_state_dict(write(tmp_path / "net.pth", {"a": ARRAY}, state))


def test_other_damage_is_told(tmp_path: Path) -> None:
    path = write_stream(tmp_path / "net.pth", {"a": ARRAY}, tail=b"more")
    with pytest.raises(MribatchError, match="there are more bytes after the last storage"):
        read_state_dict(path)
    whole = write_stream(path, {"a": ARRAY}).read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(MribatchError, match="a storage of 6 numbers has 5"):
        read_state_dict(path)
    with pytest.raises(MribatchError, match="compressed"):
        read_state_dict(write_zip(path, {"a": ARRAY}, compression=zipfile.ZIP_DEFLATED))
    for state, told in (
        ({}, "no names with tensors"),
        ([1], "no names with tensors"),
        ({"a": 1}, "'a' is not a tensor"),
        ({"a": tensor(ARRAY, "1000"), "b": tensor(ARRAY, "1000", count=5)}, "has two descriptions"),
        ({"a": tensor(ARRAY, "5")}, "does not fit the tensors"),
        ({"a": Stored(("module", "x", "y", "cpu", 1))}, "has an unknown description"),
    ):
        with pytest.raises(MribatchError, match=told):
            read_state_dict(write_stream(path, {"a": ARRAY}, state))
    with pytest.raises(MribatchError, match=r"cannot read .*none\.pth"):
        read_state_dict(tmp_path / "none.pth")


@settings(max_examples=300, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans(), as_zip=st.booleans())
def test_any_damage_gives_tensors_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int, cut: bool, as_zip: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    content = bytearray((write_zip if as_zip else write_stream)(path, some_arrays()).read_bytes())
    spot = int(place * len(content))
    content[spot] = value
    path.write_bytes(content[:spot] if cut else content)
    try:
        read = read_state_dict(path)
    except MribatchError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in read.values())

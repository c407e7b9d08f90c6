import hashlib
import json
import math
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scenes import names_in, run_python

from surface_kernel.networks.architecture import Architecture, ArchitectureError
from surface_kernel.networks.weights import Metadata, WeightsError, describe, load, save
from surface_kernel.volumes.intensity import Intensity

METADATA = Metadata(
    architecture=Architecture("FPN", "resnet34"),
    intensity=Intensity(limit=3.0),
    tile_zyx=(32, 64, 96),
    overlap=0.25,
    threshold=0.4,
    provenance={"commit": "abc", "fold": 2, "score": 0.55, "n_averaged": None},
)
STATE = {
    "a.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "a.half": torch.tensor([1.5, -2], dtype=torch.float16),
    "b.count": torch.tensor(7),
}


@pytest.fixture
def file(tmp_path):
    save(tmp_path / "w.safetensors", STATE, METADATA)
    return tmp_path / "w.safetensors"


def test_what_was_saved_comes_back(file):
    metadata, state = load(file)
    assert metadata == METADATA == describe(file)
    assert state.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)


def test_the_same_state_makes_the_same_bytes(file):
    digests = {file.read_bytes()}
    for _ in range(5):
        save(file, STATE, METADATA)
        digests.add(file.read_bytes())
    assert len(digests) == 1


def test_the_digest_is_that_of_the_whole_file_with_zeros_in_its_place(file):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    digest = json.loads(content[8 : 8 + length])["__metadata__"]["sha256"]
    assert content.count(digest.encode()) == 1
    assert hashlib.sha256(content.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


def test_others_read_the_file_too(file):
    others = load_file(file)
    assert others.keys() == STATE.keys()
    assert all(torch.equal(others[name], tensor) for name, tensor in STATE.items())


def test_every_kind_of_tensor_and_empty_ones_come_back(tmp_path):
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    state = {kind: torch.tensor([[1, 0, 1]]).to(getattr(torch, kind)) for kind in kinds}
    state |= {"none": torch.zeros(0, 3), "one": torch.tensor(2.5)}
    save(tmp_path / "w.safetensors", state, METADATA)
    found = load(tmp_path / "w.safetensors")[1]
    for name, tensor in state.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
    save(tmp_path / "w.safetensors", {}, METADATA)
    assert load(tmp_path / "w.safetensors") == (METADATA, {})


def test_a_view_with_gradients_and_its_channels_innermost_is_saved_as_its_values(tmp_path):
    tensor = torch.rand(2, 3, 4, 5, 6, requires_grad=True).to(memory_format=torch.channels_last_3d)[:, 1:]
    save(tmp_path / "w.safetensors", {"w": tensor}, METADATA)
    assert torch.equal(load(tmp_path / "w.safetensors")[1]["w"], tensor.detach())


def test_a_file_is_described_without_torch(file):
    code = "import sys; from pathlib import Path; from surface_kernel.networks.weights import describe\n"
    code += "print(describe(Path(sys.argv[1])).tile_zyx, 'torch' in sys.modules)"
    assert run_python(code, file).stdout == "(32, 64, 96) False\n"


@pytest.mark.parametrize("where", [-1, -20, -60])
def test_a_flipped_bit_in_the_tensors_is_refused(file, where):
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    assert describe(file) == METADATA
    with pytest.raises(WeightsError, match=r"w\.safetensors: expected sha256 .*: the file was changed; copy"):
        load(file)


def test_every_flipped_bit_is_refused(file):
    content = file.read_bytes()
    for at in range(len(content)):
        spoiled = bytearray(content)
        spoiled[at] ^= 1 << at % 8
        file.write_bytes(spoiled)
        with pytest.raises(WeightsError) as caught:
            load(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "other"), [(b'threshold":"0.4', b'threshold":"0.5'), (b"a.weight", b"a.Weight"), (b"[2,3,4]", b"[4,3,2]")]
)
def test_a_header_that_says_something_else_is_refused_though_it_could_be_run(file, text, other):
    content = file.read_bytes()
    assert content.count(text) == 1
    file.write_bytes(content.replace(text, other))
    describe(file)
    with pytest.raises(WeightsError, match=r"expected sha256 .*: the file was changed"):
        load(file)


@pytest.mark.parametrize("end", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(file, end):
    file.write_bytes(file.read_bytes()[:end])
    for read in (describe, load):
        with pytest.raises(
            WeightsError,
            match=r"w\.safetensors: expected a weights file .*, got no safetensors file",
        ):
            read(file)


def test_a_longer_file_is_refused(file):
    file.write_bytes(file.read_bytes() + b"\0")
    for read in (describe, load):
        with pytest.raises(WeightsError, match="got no safetensors file"):
            read(file)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    make(tmp_path / "w.safetensors")
    for read in (describe, load):
        with pytest.raises(WeightsError, match=r"expected a weights file \(surface-weights/2\)"):
            read(tmp_path / "w.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"w\.safetensors: no such file; expected a weights file"):
        describe(tmp_path / "w.safetensors")


class Canary:
    def __reduce__(self):
        return os.mkdir, (str(CANARY),)


CANARY = Path("pickle_was_run")


@pytest.mark.parametrize(
    "write", [lambda path: path.write_bytes(pickle.dumps(Canary())), lambda path: torch.save(Canary(), path)]
)
def test_a_pickle_is_refused_and_never_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.safetensors"
    write(path)
    for read in (describe, load):
        with pytest.raises(WeightsError, match="got no safetensors file"):
            read(path)
    assert not CANARY.exists()
    pickle.loads(pickle.dumps(Canary()))
    assert CANARY.exists()  # it would have sung


def sealed(path, header, tensors=b"", prefix=None, multiple_of=8):
    """Writes a file with this header, whatever it says, and the digest that is right for it."""
    text = (prefix or json.dumps(header, separators=(",", ":"))).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % multiple_of)
    content = struct.pack("<Q", len(text)) + text + tensors
    if b'"sha256":"' in content:
        at = content.index(b'"sha256":"') + len(b'"sha256":"')
        assert content[at : at + 64] == b"0" * 64
        content = content[:at] + hashlib.sha256(content).hexdigest().encode() + content[at + 64 :]
    path.write_bytes(content)


def rewritten(path, **changes):
    """Writes the metadata anew with changes; None takes an entry out."""
    strings = METADATA.to_strings() | {name: json.dumps(value) for name, value in changes.items()}
    for name in [name for name, value in changes.items() if value is None]:
        del strings[name]
    sealed(path, {"__metadata__": {"sha256": "0" * 64, **strings}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": "surface-weights/1"},
            r"expected .*weights/2\), got '\"surface-weights/1\"' in the metadata",
        ),
        ({"format": None}, "got 'no format' in the metadata"),
        ({"emits": "probability"}, "emits: expected a network that emits 'logits', got 'probability'"),
        ({"emits": None}, "expected metadata .*'emits'.*, got "),
        ({"more": 1}, "expected metadata .*, got .*'more'"),
        ({"tile_zyx": [32, 32, 48]}, r"tile: expected three positive multiples of 32, got \(32, 32, 48\) voxels"),
        ({"tile_zyx": [32.0, 32, 32]}, "tile: expected"),
        ({"tile_zyx": 32}, "tile_zyx: expected a list, got 32"),
        ({"tile_zyx": "abc"}, "tile_zyx: expected a list, got 'abc'"),
        ({"tile_zyx": [True, 32, 32]}, "tile: expected"),
        ({"tile_zyx": [32, 32, 2048]}, "tile: expected at most 1024 voxels along an axis"),
        ({"tile_zyx": [32, 32, 32 * 10**4000]}, "tile: expected"),
        ({"overlap": 1.0}, "overlap: expected a share from 0 to below 1, got 1.0"),
        ({"overlap": "half"}, "overlap: expected a number, got 'half'"),
        ({"overlap": False}, "overlap: expected a number, got False"),
        ({"overlap": 10**400}, r"overlap: expected a number, got 10{119}…"),
        ({"threshold": math.nan}, "threshold: expected a number, got nan"),
        ({"threshold": math.inf}, "threshold: expected a number, got inf"),
        ({"threshold": True}, "threshold: expected a number, got True"),
        ({"threshold": 0}, "threshold: expected a probability between 0 and 1, got 0"),
        ({"architecture": {"decoder": "Unet", "encoder": "vit"}}, "encoder: expected one of .*, got 'vit'"),
        ({"architecture": [["decoder"], "encoder"]}, r"architecture: expected a dict, got "),
        ({"architecture": {"decoder": [["Unet"]], "encoder": {}}}, "decoder: expected"),
        ({"intensity": {"kind": "minmax"}}, 'intensity.kind: expected "standardised", got "minmax"'),
        ({"intensity": []}, r"intensity: expected a dict, got \[\]"),
        ({"intensity": {"kind": "\n\ud800"}}, r"intensity.kind: expected "),
        ({"intensity": {"limit": 10**400}}, "intensity.limit: expected a number, got 1000"),
        ({"provenance": [1]}, r"provenance: expected a dict, got \[1\]"),
    ],
)
def test_metadata_that_cannot_be_run_is_refused(tmp_path, changes, message):
    path = tmp_path / "w.safetensors"
    rewritten(path, **changes)
    for read in (describe, load):
        with pytest.raises(WeightsError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).isprintable()


GOOD = {"__metadata__": {"sha256": "0" * 64, **METADATA.to_strings()}}
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_the_headers_below_are_bad_for_what_they_say_alone(tmp_path):
    sealed(tmp_path / "w.safetensors", GOOD | {"a": TENSOR}, bytes(8))
    assert load(tmp_path / "w.safetensors")[1]["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F128"},
        {"shape": [3]},
        {"shape": [-2]},
        {"shape": "2"},
        {"data_offsets": [0, 16], "shape": [4]},
        {"data_offsets": [0, 4 << 40], "shape": [1 << 40]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [0, 4], "shape": [1]},
        {"data_offsets": [4, 8], "shape": [1]},
    ],
)
def test_a_tensor_that_does_not_lie_in_its_file_is_refused(tmp_path, change):
    path = tmp_path / "w.safetensors"
    sealed(path, GOOD | {"a": TENSOR | change}, bytes(8))
    for read in (describe, load):
        with pytest.raises(WeightsError, match="got no safetensors file"):
            read(path)


def test_tensors_that_overlap_are_refused(tmp_path):
    sealed(tmp_path / "w.safetensors", GOOD | {"a": TENSOR, "b": TENSOR}, bytes(8))
    with pytest.raises(WeightsError, match="got no safetensors file"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("[" * 100_000, "got no safetensors file"),
        ("9" * 5000, "got no safetensors file"),
        ("[1]" + " " * 200, "got no safetensors file"),
        ('{"__metadata__":7}' + " " * 200, "got no safetensors file"),
        ("\ud800" * 100, "got no safetensors file"),
        (" " * (1 << 22) + "{}", "got 'no format' in the metadata"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, prefix, message):
    path = tmp_path / "w.safetensors"
    sealed(path, None, prefix=prefix)
    for read in (describe, load):
        with pytest.raises(WeightsError, match=message) as caught:
            read(path)
        assert str(caught.value).isprintable()


def test_nonsense_in_the_metadata_is_refused_however_deep(tmp_path):
    path = tmp_path / "w.safetensors"
    for nonsense in ("[" * 100_000, "9" * 5000, "{", "\ud800"):
        sealed(path, {"__metadata__": GOOD["__metadata__"] | {"architecture": nonsense}})
        with pytest.raises(WeightsError) as caught:
            load(path)
        assert str(caught.value).isprintable()


def test_a_digest_that_lies_elsewhere_is_none(tmp_path):
    """With spaces between the entries the header says the same, but not at the same place."""
    sealed(tmp_path / "w.safetensors", None, prefix=json.dumps(GOOD))
    with pytest.raises(WeightsError, match="got no sha256 at the head of the metadata"):
        load(tmp_path / "w.safetensors")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"expected .*surface-weights/2\), got 'no format' in the metadata"):
        describe(tmp_path / "w.safetensors")


def test_a_file_without_a_digest_is_neither_described_nor_loaded(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors", METADATA.to_strings())
    for read in (describe, load):
        with pytest.raises(WeightsError, match=r"expected metadata .*'sha256'.*, got "):
            read(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "changes", [{"emits": "probability"}, {"overlap": -0.1}, {"threshold": 1.0}, {"tile_zyx": (48, 48, 48)}]
)
def test_what_could_not_be_loaded_cannot_be_described_for_saving(changes):
    entries = {"architecture": Architecture(), "intensity": Intensity(), "tile_zyx": (32, 32, 32)} | changes
    with pytest.raises((WeightsError, ArchitectureError)):
        Metadata(**entries)


def test_a_failure_leaves_the_older_file_and_no_partial_one(file, monkeypatch):
    older = file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        save(file, {}, METADATA)
    assert names_in(file.parent) == [file.name]
    assert file.read_bytes() == older

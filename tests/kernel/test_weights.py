import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scenes import names_in, run_python

from surface_kernel.architecture import Architecture, ArchitectureError
from surface_kernel.intensity import Intensity
from surface_kernel.weights import Metadata, WeightsError, describe, load, save

METADATA = Metadata(
    Architecture("FPN", "resnet34"),
    Intensity(limit=3.0),
    (32, 64, 96),
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


def test_the_digest_is_that_of_the_bytes_after_the_header(file):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    digest = hashlib.sha256(content[8 + length :]).hexdigest()
    assert json.loads(header["__metadata__"]["tensors_sha256"]) == digest


def test_a_view_with_gradients_and_its_channels_innermost_is_saved_as_its_values(tmp_path):
    tensor = torch.rand(2, 3, 4, 5, 6, requires_grad=True).to(memory_format=torch.channels_last_3d)[:, 1:]
    save(tmp_path / "w.safetensors", {"w": tensor}, METADATA)
    assert torch.equal(load(tmp_path / "w.safetensors")[1]["w"], tensor.detach())


def test_a_file_is_described_without_torch(file):
    code = "import sys; from pathlib import Path; from surface_kernel.weights import describe\n"
    code += "print(describe(Path(sys.argv[1])).tile_zyx, 'torch' in sys.modules)"
    assert run_python(code, file).stdout == "(32, 64, 96) False\n"


@pytest.mark.parametrize("where", [-1, -20, -60])
def test_a_flipped_bit_in_the_tensors_is_refused(file, where):
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    assert describe(file) == METADATA
    with pytest.raises(WeightsError, match=r"w\.safetensors: found tensors with sha256 .*, wanted .*: the file was"):
        load(file)


@pytest.mark.parametrize("end", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(file, end):
    file.write_bytes(file.read_bytes()[:end])
    for read in (describe, load):
        with pytest.raises(WeightsError, match=r"w\.safetensors: found no safetensors file"):
            read(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="found no such file"):
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
        with pytest.raises(WeightsError, match="found no safetensors file"):
            read(path)
    assert not CANARY.exists()
    pickle.loads(pickle.dumps(Canary()))
    assert CANARY.exists()  # it would have sung


def rewritten(path, **changes):
    """Writes the metadata anew with changes; None takes an entry out."""
    strings = METADATA.to_strings() | {name: json.dumps(value) for name, value in changes.items()}
    for name in [name for name, value in changes.items() if value is None]:
        del strings[name]
    save_file(STATE, path, strings)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"format": "surface-weights/2"}, 'found "surface-weights/2" in the metadata, wanted surface-weights/1'),
        ({"format": None}, "found no format in the metadata"),
        ({"emits": "probability"}, 'found a network that emits "probability", wanted "logits"'),
        ({"emits": None}, "found metadata without 'emits'"),
        ({"tile_zyx": [32, 32, 48]}, r"tile: found \(32, 32, 48\) voxels, wanted three positive multiples of 32"),
        ({"tile_zyx": [32.0, 32, 32]}, "tile: found"),
        ({"tile_zyx": 32}, r"w\.safetensors: "),
        ({"overlap": 1.0}, "found overlap 1.0"),
        ({"overlap": "half"}, r"w\.safetensors: "),
        ({"threshold": 0}, "found threshold 0, wanted a probability"),
        ({"architecture": {"decoder": "Unet", "encoder": "vit"}}, "encoder: found 'vit'"),
        ({"intensity": {"kind": "minmax"}}, 'intensity: found kind "minmax"'),
    ],
)
def test_metadata_that_cannot_be_run_is_refused(tmp_path, changes, found):
    path = tmp_path / "w.safetensors"
    rewritten(path, **changes)
    for read in (describe, load):
        with pytest.raises(WeightsError, match=found) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="found no format in the metadata, wanted surface-weights/1"):
        describe(tmp_path / "w.safetensors")


def test_a_file_without_a_digest_is_not_loaded(tmp_path):
    rewritten(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="wanted None: the file was changed"):
        load(tmp_path / "w.safetensors")


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

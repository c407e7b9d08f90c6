import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from package.fake_bundle import make_bundle

from surface_kernel.architecture import LIBRARIES, Architecture
from surface_kernel.intensity import Intensity
from surface_kernel.mounts import read_bundle
from surface_kernel.settings import SettingsError
from surface_kernel.weights import Metadata, WeightsError, save
from surface_package import bundle, manifest, wheels
from surface_package.bundle import BundleError
from surface_package.wheels import Pin, WheelError

RES_ENC = Architecture("ResEncUNet", "resenc_s", "instance")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel cache with small wheels, which are pinned instead of the project's: both libraries and one compiled."""
    folder = tmp_path / "cache"
    folder.mkdir()
    made = []
    for name, version in zip([*LIBRARIES, "native"], ["3.0", "5.0", "4.0"], strict=True):
        package = tmp_path / "foreign" / name.replace("-", "_")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        made.append(wheels.write_wheel(package, version, folder))
    made[-1] = made[-1].rename(folder / "native-4.0-cp312-cp312-linux_x86_64.whl")
    pins = [Pin(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in made]
    monkeypatch.setattr(wheels, "read_pins", lambda: pins)
    return folder


def write_weights(path: Path, value: float, architecture: Architecture | None = None, **provenance: object) -> Path:
    metadata = Metadata(architecture or Architecture(), Intensity(), (64, 64, 64), provenance=provenance)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, {"tensor": torch.full((3,), value)}, metadata)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_holds_what_kaggle_lacks_and_is_whole(tmp_path: Path, cache: Path) -> None:
    # Two folds' files bear one name; in the bundle they are told apart by their place.
    weights = [write_weights(tmp_path / fold / "weights.safetensors", value) for fold, value in (("0", 1), ("1", 2))]
    (tmp_path / "some.toml").write_text('views = ["none", "x"]\ndust_voxels = 7\n')
    out = bundle.build(weights, tmp_path / "some.toml", tmp_path / "made" / "bundle", cache, offline=True)
    assert manifest.verify(out)[0]
    held = content(out)
    version = bundle.project_version()
    assert set(held) == {
        "manifest.json",
        "member_0.safetensors",
        "member_1.safetensors",
        "settings.json",
        f"surface_kernel-{version}-py3-none-any.whl",
        "segmentation_models_pytorch_3d-3.0-py3-none-any.whl",
        "native-4.0-cp312-cp312-linux_x86_64.whl",
    }
    assert [held[f"member_{index}.safetensors"] for index in (0, 1)] == [path.read_bytes() for path in weights]
    assert json.loads(held["settings.json"]) == {
        "views": ["none", "x"],
        "stages": None,
        "dust_voxels": 7,
        "threshold": None,
        "compiled": False,
    }
    said = manifest.read(out)
    assert said["weights"] == ["member_0.safetensors", "member_1.safetensors"]
    assert said["requirements"] == [
        f"surface-kernel=={version}",
        "segmentation-models-pytorch-3d==3.0",
        "native==4.0",
    ]
    assert (said["settings"], said["python"], said["kernel"]) == ("settings.json", ["3.12"], {"version": version})


@pytest.mark.parametrize(
    ("architectures", "libraries"),
    [
        ([RES_ENC], ["dynamic-network-architectures==5.0"]),
        ([RES_ENC, Architecture()], ["segmentation-models-pytorch-3d==3.0", "dynamic-network-architectures==5.0"]),
    ],
)
def test_a_bundle_carries_the_libraries_of_its_own_networks(
    tmp_path: Path, cache: Path, architectures: list[Architecture], libraries: list[str]
) -> None:
    for name in LIBRARIES:  # a wheel that is not needed need not be there
        if not any(library.startswith(name) for library in libraries):
            next(cache.glob(name.replace("-", "_") + "*")).unlink()
    weights = [write_weights(tmp_path / str(index), index, chosen) for index, chosen in enumerate(architectures)]
    out = bundle.build(weights, None, tmp_path / "bundle", cache, offline=True)
    assert manifest.verify(out)[0]
    assert manifest.read(out)["requirements"][1:] == [*libraries, "native==4.0"]
    carried = {f"{path.name.split('-')[0].replace('_', '-')}=={path.name.split('-')[1]}" for path in out.glob("*.whl")}
    assert carried == set(manifest.read(out)["requirements"])


def test_the_kernels_wheel_holds_that_package_alone(tmp_path: Path, cache: Path) -> None:
    out = bundle.build([write_weights(tmp_path / "w", 1)], None, tmp_path / "bundle", cache, offline=True)
    (wheel,) = out.glob("surface_kernel-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    assert tops == {"surface_kernel", f"surface_kernel-{bundle.project_version()}.dist-info"}
    assert modules == {f"surface_kernel/{path.name}" for path in (manifest.ROOT / "kernel/surface_kernel").glob("*.py")}


def test_the_same_inputs_give_the_same_bytes_under_another_umask_and_folder(tmp_path: Path, cache: Path) -> None:
    first = write_weights(tmp_path / "w", 1)
    second = Path(shutil.copy(first, tmp_path / "other-name"))
    first.chmod(0o600)
    one = bundle.build([first], None, tmp_path / "one", cache, offline=True)
    earlier = os.umask(0o077)
    try:
        two = bundle.build([second], None, tmp_path / "deep" / "two", cache, offline=True)
    finally:
        os.umask(earlier)
    assert content(one) == content(two)
    for folder in (one, two):
        assert folder.stat().st_mode & 0o777 == 0o755
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("fault", ["weights", "settings", "wheels", "none"])
def test_a_bad_input_leaves_nothing(tmp_path: Path, cache: Path, fault: str) -> None:
    weights, settings = [write_weights(tmp_path / "w", 1)], None
    wanted: type[ValueError] = {
        "weights": WeightsError,
        "settings": SettingsError,
        "wheels": WheelError,
        "none": BundleError,
    }[fault]
    if fault == "weights":
        weights += [tmp_path / "pickle"]
        (tmp_path / "pickle").write_bytes(b"\x80\x04N.")
    elif fault == "settings":
        settings = tmp_path / "bad.toml"
        settings.write_text("threshold = 2.0")
    elif fault == "wheels":
        next(cache.glob("*.whl")).unlink()
    else:
        weights = []
    with pytest.raises(wanted):
        bundle.build(weights, settings, tmp_path / "made" / "bundle", cache, offline=True)
    assert not (tmp_path / "made").exists()


STAGES = 'stages = [["0 none"], ["1 none", "1 x"]]'


def test_stages_are_written_through(tmp_path: Path, cache: Path) -> None:
    weights = [write_weights(tmp_path / str(index), index) for index in (0, 1)]
    (tmp_path / "some.toml").write_text(STAGES)
    out = bundle.build(weights, tmp_path / "some.toml", tmp_path / "bundle", cache, offline=True)
    found = read_bundle(out)
    assert found.settings.stages(2) == [((0, "none"),), ((1, "none"), (1, "x"))]
    assert found.digests == {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest()
        for name in ("member_0.safetensors", "member_1.safetensors", "settings.json")
    }


@pytest.mark.parametrize("count", [1, 3])
def test_stages_of_other_members_than_there_are_weights_are_refused(tmp_path: Path, cache: Path, count: int) -> None:
    weights = [write_weights(tmp_path / str(index), index) for index in range(count)]
    (tmp_path / "some.toml").write_text(STAGES)
    with pytest.raises(SettingsError, match=r"some\.toml: stages: found the members 0, 1, wanted each of 0 to"):
        bundle.build(weights, tmp_path / "some.toml", tmp_path / "bundle", cache, offline=True)
    assert not (tmp_path / "bundle").exists()


TOKEN = "hf" + "_" + "Ab0" * 12


@pytest.mark.parametrize("place", ["provenance", "settings", "kernel", "weights' name", "settings' name"])
def test_a_secret_is_named_and_not_told_and_nothing_is_built(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    weights, settings = tmp_path / "w.safetensors", tmp_path / "some.toml"
    text = f"# {TOKEN}" if place == "settings" else ""
    if place == "kernel":
        kernel = Path(shutil.copytree(bundle.KERNEL, tmp_path / "surface_kernel"))
        (kernel / "more.py").write_text(f"TOKEN = {TOKEN!r}\n")
        monkeypatch.setattr(bundle, "KERNEL", kernel)
    elif place == "weights' name":
        weights = tmp_path / "id_rsa"
    elif place == "settings' name":
        settings = tmp_path / "credentials.toml"
    settings.write_text(text)
    write_weights(weights, 1, deep={"er": [TOKEN]} if place == "provenance" else None)
    with pytest.raises(BundleError, match=r"found .*, wanted no secrets in a bundle") as caught:
        bundle.build([weights], settings, tmp_path / "bundle", cache, offline=True)
    culprit = {"kernel": "more.py", "settings": "some.toml", "settings' name": "credentials.toml"}
    assert culprit.get(place, weights.name) in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_no_file_with_a_secrets_name_gets_into_a_bundle(tmp_path: Path) -> None:
    contents = manifest.Contents("1", None, ["only"], "only", ["a==1"], ["3.12"])
    (tmp_path / "kaggle.json").write_text("")
    for name, source in (("only", tmp_path / "kaggle.json"), (".netrc", Path(__file__))):
        with pytest.raises(BundleError, match="wanted no secrets in a bundle"):
            bundle.assemble(tmp_path / "bundle", {name: source}, contents)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_is_replaced_by_a_bundle(tmp_path: Path) -> None:
    out = make_bundle(tmp_path / "bundle")
    (out / "dataset-metadata.json").write_text("{}")
    bundle.assemble(out, {"only": Path(__file__)}, manifest.Contents("1", None, ["only"], "only", ["a==1"], ["3.12"]))
    assert set(content(out)) == {"only", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    contents = manifest.Contents("1", None, ["only"], "only", ["a==1"], ["3.12"])
    files = {"only": Path(__file__)}
    (tmp_path / "empty").mkdir()
    bundle.assemble(tmp_path / "empty", files, contents)

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="found a folder with other things in it, wanted a new folder"):
        bundle.assemble(foreign, files, contents)
    mixed = make_bundle(tmp_path / "mixed")
    (mixed / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match=r"found thesis\.txt, which no bundle of ours has"):
        bundle.assemble(mixed, files, contents)
    (tmp_path / "file").write_text("years of work")
    (tmp_path / "link").symlink_to(mixed)
    for name in ("file", "link"):
        with pytest.raises(BundleError, match="found a link or a file"):
            bundle.assemble(tmp_path / name, files, contents)
    assert (foreign / "thesis.txt").exists()
    assert (mixed / "thesis.txt").exists()


def test_a_build_that_breaks_off_leaves_the_earlier_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_bundle(tmp_path / "bundle")
    before = content(out)

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        bundle.assemble(out, {"only": Path(__file__)}, manifest.Contents("1", None, [], "only", [], []))
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_commit_is_named_only_where_it_stands_for_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert bundle.project_commit() is None  # no repository
    (tmp_path / "kernel" / "surface_kernel").mkdir(parents=True)
    code = tmp_path / "kernel" / "surface_kernel" / "a.py"
    for path in (code, tmp_path / "setup.cfg", tmp_path / "README.md"):
        path.write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "README.md").write_text("2")
    assert bundle.project_commit() == head
    code.write_text("2")
    assert bundle.project_commit() is None

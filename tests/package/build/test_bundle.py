import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from package.clones import OWNER, commit, git, make_clone, name_owner
from package.fake_bundle import make_bundle
from scenes import ROOT, noise

from surface_kernel import __version__
from surface_kernel.inference.settings import SettingsError, from_json
from surface_kernel.networks.architecture import LIBRARIES, Architecture
from surface_kernel.networks.network import build as build_network
from surface_kernel.networks.weights import Metadata, WeightsError, save
from surface_kernel.postprocess.mask_settings import COMPETITION_STEPS, MaskSettings
from surface_kernel.postprocess.steps import Threshold
from surface_kernel.runs.mounts import read_bundle
from surface_kernel.volumes.header import VolumeError
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.intensity import Intensity
from surface_package.build import bundle, licences, manifest, wheels
from surface_package.build.bundle import BundleError, BundleRequest
from surface_package.build.sources import SourceError
from surface_package.build.wheels import Pin, WheelError
from surface_package.target import TargetError

RES_ENC = Architecture("ResEncUNet", "resenc_s", "instance")


def build(weights: list[Path], settings: Path | None, out: Path, cache: Path, **more: object) -> Path:
    asked = BundleRequest(weights=weights, settings=settings, out=out, wheels=cache, offline=True, **more)  # type: ignore[arg-type]
    return bundle.build(asked)


def contents(weights: list[str], settings: str = "only") -> manifest.Contents:
    return manifest.Contents(
        version="1", commit=None, weights=weights, settings=settings, requirements=["a==1"], python=["3.12"]
    )


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What bundles are made from here: a copy of the project outside of git, which nobody owns."""
    made = make_clone(tmp_path / "clone")
    monkeypatch.setattr(manifest, "ROOT", made)
    return made


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
    metadata = Metadata(
        architecture=architecture or Architecture(), intensity=Intensity(), tile_zyx=(64, 64, 64), provenance=provenance
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, {"tensor": torch.full((3,), value)}, metadata)
    return path


COMPETITION = MaskSettings(steps=COMPETITION_STEPS)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("trained", "bundled", "warns"),
    [
        (COMPETITION, "", False),
        (COMPETITION, 'views = ["none", "x"]', False),
        (COMPETITION, 'purpose = "segmentation"', True),
        (COMPETITION, "dust_voxels = 7", True),
        (COMPETITION, "clear_unscanned = false", True),
        (COMPETITION, "dust_voxels = 7\nthreshold = 0.4", False),  # the weights' own is not used
        (COMPETITION.with_threshold(0.3), "", False),
        (MaskSettings(), "", True),
        (MaskSettings(), 'purpose = "segmentation"', False),
        (MaskSettings(), "dust_voxels = 1000", False),
        (None, "", True),  # weights of before
    ],
)
def test_a_threshold_that_was_chosen_on_other_masks_is_warned_of(
    tmp_path: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    trained: MaskSettings | None,
    bundled: str,
    warns: bool,
) -> None:
    provenance = {"mask": trained.to_entries()} if trained else {}
    (tmp_path / "some.toml").write_text(bundled)
    build([write_weights(tmp_path / "w", 1, **provenance)], tmp_path / "some.toml", tmp_path / "bundle", cache)
    warnings = [line for line in caplog.messages if line.startswith("warning: ")]
    assert len(warnings) == warns
    assert all("the threshold 0.5 was chosen with another post-processing" in line for line in warnings)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (None, COMPETITION_STEPS),
        ("", COMPETITION_STEPS),
        ('purpose = "competition"\nclear_unscanned = false', COMPETITION_STEPS),
        ('purpose = "segmentation"', MaskSettings().steps),
        ("threshold = 0.5", MaskSettings().with_threshold(0.5).steps),  # the older form means what it meant
        ('postprocess = [{step = "threshold"}]', (Threshold(),)),
    ],
)
def test_steps_that_nobody_named_are_those_of_the_purpose(
    tmp_path: Path, cache: Path, text: str | None, steps: tuple[object, ...]
) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text or "")
    out = build([write_weights(tmp_path / "w", 1)], None if text is None else path, tmp_path / "bundle", cache)
    assert from_json((out / "settings.json").read_bytes(), "settings.json").mask.steps == steps


def test_a_bundle_holds_what_kaggle_lacks_and_is_whole(tmp_path: Path, cache: Path) -> None:
    # Two folds' files bear one name; in the bundle they are told apart by their place.
    weights = [write_weights(tmp_path / fold / "weights.safetensors", value) for fold, value in (("0", 1), ("1", 2))]
    (tmp_path / "some.toml").write_text('views = ["none", "x"]\ndust_voxels = 7\n')
    out = build(weights, tmp_path / "some.toml", tmp_path / "made" / "bundle", cache)
    assert manifest.verify(out) == []
    held = content(out)
    version = __version__
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
        "compiled": False,
        "purpose": "competition",
        "clear_unscanned": True,
        "postprocess": [
            {"step": "threshold"},
            {"step": "drop_small_components", "least_voxels": 7, "connectivity": 26},
        ],
    }
    said = manifest.read(out)
    assert said["weights"] == ["member_0.safetensors", "member_1.safetensors"]
    assert said["requirements"] == [
        f"surface-kernel=={version}",
        "segmentation-models-pytorch-3d==3.0",
        "native==4.0",
    ]
    ours = {"settings.json": "MIT", "member_0.safetensors": "CC-BY-NC-4.0", "member_1.safetensors": "CC-BY-NC-4.0"}
    assert said["licences"] == ours | {name: "MIT" for name in held if name.endswith(".whl")}
    assert said["half"] is None
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
    out = build(weights, None, tmp_path / "bundle", cache)
    assert manifest.verify(out) == []
    assert manifest.read(out)["requirements"][1:] == [*libraries, "native==4.0"]
    carried = {f"{path.name.split('-')[0].replace('_', '-')}=={path.name.split('-')[1]}" for path in out.glob("*.whl")}
    assert carried == set(manifest.read(out)["requirements"])


def test_the_kernels_wheel_holds_that_package_alone(tmp_path: Path, cache: Path) -> None:
    out = build([write_weights(tmp_path / "w", 1)], None, tmp_path / "bundle", cache)
    (wheel,) = out.glob("surface_kernel-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    assert tops == {"surface_kernel", f"surface_kernel-{__version__}.dist-info"}
    kernel = manifest.ROOT / "kernel"
    assert modules == {path.relative_to(kernel).as_posix() for path in (kernel / "surface_kernel").rglob("*.py")}


def test_the_same_inputs_give_the_same_bytes_under_another_umask_and_folder(tmp_path: Path, cache: Path) -> None:
    first = write_weights(tmp_path / "w", 1)
    second = Path(shutil.copy(first, tmp_path / "other-name"))
    first.chmod(0o600)
    one = build([first], None, tmp_path / "one", cache)
    earlier = os.umask(0o077)
    try:
        two = build([second], None, tmp_path / "deep" / "two", cache)
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
        build(weights, settings, tmp_path / "made" / "bundle", cache)
    assert not (tmp_path / "made").exists()


STAGES = 'stages = [["0 none"], ["1 none", "1 x"]]'


def test_stages_are_written_through(tmp_path: Path, cache: Path) -> None:
    weights = [write_weights(tmp_path / str(index), index) for index in (0, 1)]
    (tmp_path / "some.toml").write_text(STAGES)
    out = build(weights, tmp_path / "some.toml", tmp_path / "bundle", cache)
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
    with pytest.raises(SettingsError, match=r"some\.toml: stages: "):
        build(weights, tmp_path / "some.toml", tmp_path / "bundle", cache)
    assert not (tmp_path / "bundle").exists()


TOKEN = "hf" + "_" + "Ab0" * 12


@pytest.mark.parametrize("place", ["provenance", "settings", "kernel", "weights' name", "settings' name"])
def test_a_secret_is_named_and_not_repeated_and_nothing_is_built(
    tmp_path: Path, clone: Path, cache: Path, place: str
) -> None:
    weights, settings = tmp_path / "w.safetensors", tmp_path / "some.toml"
    text = f"# {TOKEN}" if place == "settings" else ""
    if place == "kernel":
        (clone / "kernel" / "surface_kernel" / "more.py").write_text(f"TOKEN = {TOKEN!r}\n")
    elif place == "weights' name":
        weights = tmp_path / "id_rsa"
    elif place == "settings' name":
        settings = tmp_path / "credentials.toml"
    settings.write_text(text)
    write_weights(weights, 1, deep={"er": [TOKEN]} if place == "provenance" else None)
    with pytest.raises(BundleError, match=r"expected no secrets in a bundle, got ") as caught:
        build([weights], settings, tmp_path / "bundle", cache)
    culprit = {"kernel": "more.py", "settings": "some.toml", "settings' name": "credentials.toml"}
    assert culprit.get(place, weights.name) in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_no_file_with_a_secrets_name_gets_into_a_bundle(tmp_path: Path) -> None:
    listed = contents(["only"])
    (tmp_path / "kaggle.json").write_text("")
    for name, source in (("only", tmp_path / "kaggle.json"), (".netrc", Path(__file__))):
        with pytest.raises(BundleError, match="expected no secrets in a bundle"):
            bundle.assemble(tmp_path / "bundle", {name: source}, listed)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_is_replaced_by_a_bundle(tmp_path: Path) -> None:
    out = make_bundle(tmp_path / "bundle")
    (out / "dataset-metadata.json").write_text("{}")
    bundle.assemble(out, {"only": Path(__file__)}, contents(["only"]))
    assert set(content(out)) == {"only", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    listed = contents(["only"])
    files = {"only": Path(__file__)}
    (tmp_path / "empty").mkdir()
    bundle.assemble(tmp_path / "empty", files, listed)

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match=r"expected a new folder or .*, got a folder with other things in it"):
        bundle.assemble(foreign, files, listed)
    mixed = make_bundle(tmp_path / "mixed")
    (mixed / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match=r"got thesis\.txt, which no bundle of ours has"):
        bundle.assemble(mixed, files, listed)
    (tmp_path / "file").write_text("years of work")
    (tmp_path / "link").symlink_to(mixed)
    for name in ("file", "link"):
        with pytest.raises(BundleError, match="got a link or a file"):
            bundle.assemble(tmp_path / name, files, listed)
    assert (foreign / "thesis.txt").exists()
    assert (mixed / "thesis.txt").exists()


def test_a_build_that_breaks_off_leaves_the_earlier_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_bundle(tmp_path / "bundle")
    before = content(out)

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        bundle.assemble(out, {"only": Path(__file__)}, contents([]))
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_manifest_tells_where_each_member_comes_from_and_how_good_it_was(tmp_path: Path, cache: Path) -> None:
    told = {"fold": "3", "epoch": 7, "validation": {"score": 0.5, "threshold": 0.45}}
    weights = [write_weights(tmp_path / "0", 1, **told), write_weights(tmp_path / "1", 2, RES_ENC)]
    members = manifest.read(build(weights, None, tmp_path / "bundle", cache))["members"]
    assert members == {
        "member_0.safetensors": {
            "architecture": Architecture().to_mapping(),
            "threshold": 0.5,
            "provenance": told,
        },
        "member_1.safetensors": {"architecture": RES_ENC.to_mapping(), "threshold": 0.5, "provenance": {}},
    }


def test_weights_that_predict_the_same_everywhere_are_refused(tmp_path: Path, cache: Path) -> None:
    told = {"validation": {"foreground": 1.0, "variance": 0.1}}
    with pytest.raises(BundleError, match=r"w: expected weights whose own validation is not uniform, .* got 100.00%"):
        build([write_weights(tmp_path / "w", 1, **told)], None, tmp_path / "bundle", cache)
    told["limits"] = {"most_foreground": 1.0}  # as the training's own settings allow
    assert build([write_weights(tmp_path / "w", 1, **told)], None, tmp_path / "bundle", cache)


def test_each_wheel_is_under_its_own_licence(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "of_wheel", lambda path: f"that of {path.name}")
    said = manifest.read(build([write_weights(tmp_path / "w", 1)], None, tmp_path / "bundle", cache))
    carried = [name for name in said["files"] if name.endswith(".whl")]
    assert len(carried) == 3
    assert {name: said["licences"][name] for name in carried} == {name: f"that of {name}" for name in carried}
    assert said["licences"].keys() == said["files"].keys()


def test_a_folder_of_a_run_stands_for_its_weights(tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "downloaded"
    weights = write_weights(run / "weights.safetensors", 1)
    write_weights(run / "best.safetensors", 2)
    out = build([run], None, tmp_path / "bundle", cache)
    assert (out / "member_0.safetensors").read_bytes() == weights.read_bytes()
    weights.unlink()
    with pytest.raises(WeightsError, match=r"weights\.safetensors: no such file"):
        build([run], None, tmp_path / "bundle", cache)


def test_the_code_is_the_commits(tmp_path: Path, clone: Path, cache: Path) -> None:
    head = commit(clone)
    weights = [write_weights(tmp_path / "w", 1)]
    module = clone / "kernel" / "surface_kernel" / "__main__.py"
    original = module.read_bytes()
    git(clone, "update-index", "--assume-unchanged", str(module))
    module.write_text("changed = 1")  # where git does not look
    committed = build(weights, None, tmp_path / "committed", cache)
    assert manifest.read(committed)["commit"] == head
    (wheel,) = committed.glob("surface_kernel-*.whl")
    assert zipfile.ZipFile(wheel).read("surface_kernel/__main__.py") == original
    git(clone, "update-index", "--no-assume-unchanged", str(module))
    with pytest.raises(SourceError, match=r"changes in kernel/surface_kernel/__main__\.py"):
        build(weights, None, tmp_path / "bundle", cache)
    assert not (tmp_path / "bundle").exists()
    taken = build(weights, None, tmp_path / "taken", cache, uncommitted=True)
    assert manifest.read(taken)["commit"] is None
    (wheel,) = taken.glob("surface_kernel-*.whl")
    assert zipfile.ZipFile(wheel).read("surface_kernel/__main__.py") == b"changed = 1"


def test_the_datasets_metadata_lies_in_it_once_somebody_owns_it(tmp_path: Path, clone: Path, cache: Path) -> None:
    weights = [write_weights(tmp_path / "w", 1)]
    first = build(weights, None, tmp_path / "first", cache)
    assert not (first / "dataset-metadata.json").exists()
    name_owner(clone, OWNER)
    owned = build(weights, None, tmp_path / "owned", cache)
    written = json.loads((owned / "dataset-metadata.json").read_text())
    assert written["id"] == f"{OWNER}/vesuvius-surface-bundle"
    assert all(6 <= len(name) <= 50 for name in (written["title"], written["id"].partition("/")[2]))
    assert written["licenses"] == [{"name": "CC-BY-NC-4.0"}]
    assert manifest.verify(owned) == []
    assert manifest.digest(owned) == manifest.digest(first)  # it is not part of what the digest stands for
    described = clone / "kernel-metadata.json"
    shipped = described.read_text()
    described.write_text(shipped.replace('"is_private": true', '"is_private": false'))
    assert content(build(weights, None, tmp_path / "public", cache)) == content(owned)
    described.write_text(shipped.replace("vesuvius-surface-bundle", "x" * 51))
    with pytest.raises(TargetError, match="write a slug of 6 to 50 characters, not 51"):
        build(weights, None, tmp_path / "long", cache)
    assert not (tmp_path / "long").exists()
    described.unlink()
    with pytest.raises(TargetError, match="cannot be read"):
        build(weights, None, tmp_path / "none", cache)


def run_build(clone: Path, folder: Path, *words: object, umask: int = -1, **variables: str) -> list[str]:
    """Builds `folder`/bundle by the command of a clone, with the pins of these tests; gives the lines it prints."""
    lines = [f"{pin.filename} {pin.sha256}" for pin in wheels.read_pins()]
    (clone / "package" / "wheels.txt").write_text("\n".join([*lines, ""]))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    environment |= {"PYTHONPATH": f"{clone / 'kernel'}:{clone / 'package'}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "surface_package", "build", "--out", "bundle", "--offline", *map(str, words)]
    build = subprocess.run(command, env=environment, cwd=folder, umask=umask, capture_output=True, text=True)
    assert (build.returncode, build.stderr) == (0, "")
    return build.stdout.splitlines()


def test_the_command_tells_what_was_made(tmp_path: Path, clone: Path, cache: Path) -> None:
    weights = write_weights(tmp_path / "w", 1, mask=COMPETITION.to_entries())
    first = run_build(clone, tmp_path, "--weights", weights, "--wheels", cache)
    made = manifest.read(tmp_path / "bundle")["files"]
    assert [line.split() for line in first[: len(made)]] == [
        [str(entry["bytes"]), "bytes", name] for name, entry in sorted(made.items())
    ]
    total = sum(path.stat().st_size for path in (tmp_path / "bundle").iterdir() if path.name != "manifest.json")
    assert [line.split() for line in first[len(made) :]] == [
        f"{total} bytes in {len(made)} files, commit none".split(),
        ["no", "dataset-metadata.json:", "set", "an", "owner", "with", "`surface_package", "init`"],
        f"built bundle, manifest sha256 {manifest.digest(tmp_path / 'bundle')}".split(),
    ]
    name_owner(clone, OWNER)
    head = commit(clone)
    second = run_build(clone, tmp_path, "--weights", weights, "--wheels", cache, "--notebook")
    assert [line.strip() for line in second[len(made) :]] == [
        f"{total} bytes in {len(made)} files, commit {head}",
        "notebook: bundle.ipynb",
        f"built bundle, manifest sha256 {manifest.digest(tmp_path / 'bundle')}",
    ]


def test_another_machine_makes_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    """Another clone, working folder, HOME, time zone, language, umask and order of sets, and files of another age."""
    weights = write_weights(tmp_path / "w", 1, fold="3", validation={"score": 0.5})
    (tmp_path / "some.toml").write_text('views = ["none", "x"]')
    words = ("--weights", weights, "--settings", tmp_path / "some.toml", "--wheels", cache, "--notebook")
    made = []
    for name, zone, language, mask in (("one", "UTC", "C", 0o022), ("two", "Asia/Tokyo", "tr_TR.UTF-8", 0o077)):
        clone = make_clone(tmp_path / name / "clone", OWNER)
        for path in clone.rglob("*"):
            os.utime(path, (len(made) * 10**8, len(made) * 10**9))
        home = tmp_path / name / "home"
        home.mkdir()
        run_build(clone, home, *words, umask=mask, TZ=zone, LC_ALL=language, PYTHONHASHSEED=str(len(made)))
        assert sorted(path.name for path in home.iterdir()) == ["bundle", "bundle.ipynb"]
        made.append(home)
    assert content(made[0] / "bundle") == content(made[1] / "bundle")
    assert (made[0] / "bundle.ipynb").read_bytes() == (made[1] / "bundle.ipynb").read_bytes()
    for text in texts(made[0] / "bundle"):
        for folder in (str(tmp_path), str(Path.home()), str(ROOT)):
            assert folder.encode() not in text


def texts(bundle: Path) -> list[bytes]:
    """All that a bundle holds, wheels unpacked."""
    found = []
    for path in bundle.iterdir():
        found += [path.name.encode(), path.read_bytes()]
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                found += [part for name in wheel.namelist() for part in (name.encode(), wheel.read(name))]
    return found


@pytest.mark.parametrize("place", ["provenance", "kernel"])
def test_no_path_of_the_machine_gets_into_a_bundle(
    tmp_path: Path, clone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "who"))
    named = [f"{tmp_path / 'who'}/data"] if place == "provenance" else []
    if place == "kernel":
        (clone / "kernel" / "surface_kernel" / "more.py").write_text(f"HERE = {str(clone)!r}\n")
    weights = write_weights(tmp_path / "w", 1, data=named)
    with pytest.raises(BundleError, match=r"expected no path of this machine, got "):
        build([weights], None, tmp_path / "bundle", cache)
    assert not (tmp_path / "bundle").exists()


def test_the_kernel_of_a_bundle_installs_offline_and_imports(tmp_path: Path, cache: Path) -> None:
    out = build([write_weights(tmp_path / "w", 1)], None, tmp_path / "bundle", cache)
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--quiet", "--no-index", "--no-deps"]
    command += ["--find-links", str(out), "--target", str(site), manifest.read(out)["requirements"][0]]
    subprocess.run(command, check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import surface_kernel.inference.engine as e\nprint(e.__file__)"
    )
    run = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == f"{site / 'surface_kernel' / 'inference' / 'engine.py'}\n"


def test_at_half_precision_the_manifest_tells_what_that_changes(tmp_path: Path, cache: Path) -> None:
    network = Architecture("Linknet")
    weights = tmp_path / "w"
    save(
        weights,
        build_network(network).state_dict(),
        Metadata(architecture=network, intensity=Intensity(), tile_zyx=(32, 32, 32)),
    )
    write_lzw(tmp_path / "a.tif", noise((32, 32, 48)))
    out = build([weights], None, tmp_path / "bundle", cache, half=tmp_path / "a.tif")
    assert manifest.verify(out) == []
    assert (out / "member_0.safetensors").stat().st_size < 0.6 * weights.stat().st_size
    change = manifest.read(out)["half"]
    assert (change["volume"], change["voxels"]) == ("a.tif", 32 * 32 * 48)
    assert change["largest_logit_change"] > 0
    with pytest.raises(VolumeError):
        build([weights], None, tmp_path / "other", cache, half=tmp_path / "none.tif")
    assert not (tmp_path / "other").exists()

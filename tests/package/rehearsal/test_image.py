import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from surface_package.rehearsal import image
from surface_package.rehearsal.image import ImageError


def see(python: Path, names: list[str]) -> dict[str, bool]:
    """Ask a Python which modules it would find."""
    code = "import importlib.util, sys; print(*[bool(importlib.util.find_spec(name)) for name in sys.argv[1:]])"
    run = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True, cwd="/", env={})
    return dict(zip(names, [word == "True" for word in run.stdout.split()], strict=True))


def test_only_what_kaggle_preinstalls_is_visible(tmp_path: Path) -> None:
    made = image.make(tmp_path / "python")
    shown = ["json", "pip", "numpy", "torch", "numba", "llvmlite", "PIL", "tifffile", "safetensors", "tqdm", "scipy"]
    hidden = ["cc3d", "segmentation_models_pytorch_3d", "imagecodecs", "pytest", "hypothesis", "kaggle"]
    rooms = ["surface_kernel", "surface_train", "surface_phantom", "surface_score", "surface_package"]
    assert see(made.python, shown + hidden + rooms) == dict.fromkeys(shown, True) | dict.fromkeys(hidden + rooms, False)


def test_what_is_visible_works(tmp_path: Path) -> None:
    made = image.make(tmp_path / "python")
    code = "import numpy, PIL.Image, sys; print(numpy.ones(3).sum(), sys.prefix, sys.flags.no_user_site)"
    run = subprocess.run([made.python, "-c", code], check=True, capture_output=True, text=True, cwd="/", env={})
    assert run.stdout.split()[:2] == ["3.0", str(tmp_path / "python")]
    pip = [made.python, "-m", "pip", "--version"]
    assert str(tmp_path / "python") in subprocess.run(pip, check=True, capture_output=True, text=True, env={}).stdout


def test_a_list_names_what_is_shown_and_what_stays_hidden(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# all\nNumPy\nScikit_Image # a comment\n\n!image.codecs\n")
    assert image.read_names(tmp_path / "list") == (["numpy", "scikit-image"], {"image-codecs"})
    (tmp_path / "list").write_text("# none\n!numpy\n")
    with pytest.raises(ImageError, match=r"expected the names of .*, got none"):
        image.read_names(tmp_path / "list")


def test_dependencies_come_along_and_hidden_ones_do_not() -> None:
    assert set(image.closure(["numba"], set())) >= {"numba", "llvmlite", "numpy"}
    assert set(image.closure(["numba"], {"llvmlite", "numba-extra"})) == {"numba", "numpy"}
    assert "imagecodecs" not in image.closure(["tifffile"], set())  # only an extra asks for it
    assert image.closure(["no-such-thing"], set()) == {}


def test_scripts_and_path_files_are_left_out(tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    info = installed / "thing-1.0.dist-info"
    info.mkdir(parents=True)
    files = ["thing/__init__.py", "thing.libs/a.so", "thing_one.py", "__pycache__/thing_one.pyc", "thing.pth"]
    files += ["../../bin/thing", "thing-1.0.dist-info/RECORD"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for path in (installed / name for name in files[:-1]):  # from 3.12 on Python names those alone that are there
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = "thing", "thing-1.0.dist-info", "thing.libs", "thing_one.py"
    assert image.places(metadata.Distribution.at(info)) == [installed / name for name in names]


def test_what_is_not_installed_here_is_named(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("pip\nnumpy\nno-such-thing\n")
    assert image.absent(tmp_path / "list") == ["no-such-thing"]


def test_without_pip_there_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("numpy\n")
    with pytest.raises(ImageError, match="expected pip, as on Kaggle, got none"):
        image.make(tmp_path / "python", tmp_path / "list")

"""What a wheel says of its licence, in the several places where wheels say it."""

import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from surface_package.build import licences, wheels

APACHE = "                                 Apache License\n                           Version 2.0\n"


def make_wheel(folder: Path, told: str, **files: str) -> Path:
    path = folder / "a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("a/LICENSE", "of some data that it carries")
        wheel.writestr("a-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: a\n{told}\n\nLicense: in the text")
        for name, text in files.items():
            wheel.writestr(f"a-1.0.dist-info/{name}", text)
    return path


@pytest.mark.parametrize(
    ("told", "files", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other", {}, "MIT OR Apache-2.0"),
        ("License: LGPL-3.0-or-later", {"COPYING": "GNU GENERAL"}, "LGPL-3.0-or-later"),
        ("License: " + APACHE.replace("\n", "\n        "), {}, "Apache-2.0"),
        ("License: UNKNOWN", {"LICENSE": "MIT License\n\nCopyright"}, "MIT"),
        ("License: UNKNOWN", {"licenses/LICENCE.txt": APACHE}, "Apache-2.0"),
        ("Classifier: Topic :: X\nClassifier: License :: OSI Approved :: MIT License", {}, "MIT"),
        ("Classifier: License :: OSI Approved :: Some Other License", {"LICENSE": "x"}, "Some Other License"),
        ("License: BSD 3-Clause License", {}, "BSD-3-Clause"),
        ("License: UNKNOWN", {"COPYING": "GNU GENERAL PUBLIC LICENSE\n Version 3"}, "GNU GENERAL PUBLIC LICENSE"),
        ("License: UNKNOWN", {"AUTHORS": "MIT License"}, "unknown"),
        ("License:", {"LICENSE": "\n"}, "unknown"),
    ],
)
def test_what_a_wheel_says(tmp_path: Path, told: str, files: dict[str, str], licence: str) -> None:
    assert licences.of_wheel(make_wheel(tmp_path, told, **files)) == licence


def test_our_own_wheel_is_under_the_projects_licence(tmp_path: Path) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").touch()
    assert licences.of_wheel(wheels.write_wheel(package, "1.0", tmp_path)) == licences.CODE == "MIT"


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("segmentation-models-pytorch-3d", "MIT"),
        ("dynamic-network-architectures", "Apache-2.0"),
        ("connected-components-3d", "LGPL-3.0-or-later"),
    ],
)
def test_every_pinned_library_says_its_licence(tmp_path: Path, name: str, licence: str) -> None:
    """By what its wheel left here when it was installed: the same files as in the wheel."""
    assert name in {pin.name for pin in wheels.read_pins()}
    installed = metadata.distribution(name)
    path = tmp_path / "installed.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in installed.files or ():
            if file.parts[0].endswith(".dist-info"):
                wheel.write(str(file.locate()), str(file))
    assert licences.of_wheel(path) == licence

"""What a training on Kaggle needs and its image lacks: our code as wheels, the pinned ones, and the settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

from surface_kernel.networks.architecture import Architecture
from surface_package.build import leaks, licences, manifest, sources, wheels
from surface_package.build.sources import Sources
from surface_package.kaggle.delivery import DeliveryError

FORMAT = "surface-training/1"  # as kernel/train_on_kaggle.py expects it
SETTINGS = "settings.toml"
PACKAGES = ("kernel/surface_kernel", "train/surface_score", "train/surface_train")  # all that `fit` imports of ours
# Settings are checked by the code that will read them; this package must not import it.
_READ_SETTINGS = """
import json, sys
from pathlib import Path
from surface_train import settings
try:
    chosen = settings.read(Path(sys.argv[1]))
except ValueError as error:
    sys.exit(str(error))
print(json.dumps({"network": chosen.network.to_mapping(), "labels_dir": chosen.labels_dir}))
"""


def make(folder: Path, *, settings: Path, fold: str, root: Path) -> dict[str, Path]:
    """Make a bundle and return its files by name; the same commit and settings give the same bytes.

    Args:
        folder: an empty one to make it in.
        settings: the TOML file that `fit` takes.
        fold: the validation fold, or "all".
        root: the clone.

    Raises:
        WheelError: a pinned wheel cannot be had.
        DeliveryError: the settings cannot be trained there, or no commit holds the code.
    """
    _check_asked(settings, fold)
    code = _committed(root, folder / "clone")
    pins = wheels.needed(wheels.read_pins(), [_network(settings, code.root)])
    made = folder / "made"
    made.mkdir()
    for path in wheels.gather(pins, wheels.cache_folder()):
        (made / path.name).write_bytes(path.read_bytes())
    ours = [wheels.write_wheel(code.root / package, code.version, made) for package in PACKAGES]
    (made / SETTINGS).write_bytes(settings.read_bytes())
    names = [wheel.name.split("-")[0].replace("_", "-") for wheel in ours]
    files = {path.name: path for path in sorted(made.iterdir())}
    contents = {
        "format": FORMAT,
        "version": code.version,
        "commit": code.commit,
        "settings": SETTINGS,
        "fold": fold,
        "requirements": [*(f"{name}=={code.version}" for name in names), *wheels.requirements(pins)],
        "python": wheels.pythons(pins),
        "licences": {path.name: licences.of_wheel(path) for path in files.values() if path.suffix == ".whl"},
        "files": manifest.listed(made),
    }
    (made / manifest.NAME).write_text(manifest.sealed(contents), encoding="utf-8")
    return files | {manifest.NAME: made / manifest.NAME}


def _check_asked(settings: Path, fold: str) -> None:
    if not (fold == "all" or fold.isdigit()):
        raise DeliveryError(f"--fold is {fold!r}. Set the number of the validation fold, or all.")
    if not settings.is_file():
        raise DeliveryError(f"{settings} is no file. Name a file like those in train/settings.")
    text = settings.read_text(encoding="utf-8-sig", errors="replace")
    if secret := leaks.in_text(text) or leaks.in_paths(text, (manifest.ROOT, Path.home())):
        raise DeliveryError(f"{settings} holds {secret}. Take it out: it would be uploaded.")


def _committed(root: Path, folder: Path) -> Sources:
    """Take the code as a commit has it: weights name the commit that trained them."""
    try:
        return sources.take(root, folder, paths=(*PACKAGES, "setup.cfg"))
    except sources.SourceError as error:
        advice = "Commit it first: the weights will name the commit that trained them."
        raise DeliveryError(f"{error.root} has {error.changed}. {advice}") from error


def _network(settings: Path, root: Path) -> Architecture:
    """Let the code of a clone read the settings; return their network."""
    rooms = os.pathsep.join(str(root / room) for room in ("kernel", "train"))
    command = [sys.executable, "-c", _READ_SETTINGS, str(settings.absolute())]
    environment = os.environ | {"PYTHONPATH": rooms, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    reader = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if reader.returncode:
        raise DeliveryError((reader.stderr.strip().splitlines() or [f"{settings} could not be read"])[-1])
    chosen = json.loads(reader.stdout)
    if chosen["labels_dir"]:
        raise DeliveryError(f"{settings} names the labels_dir {chosen['labels_dir']}, absent on Kaggle. Leave it out.")
    return Architecture.from_mapping(chosen["network"])


def script(root: Path, after_step: int) -> str:
    """Return the code that Kaggle receives: train_on_kaggle.py and the submit.py that it imports, as one file."""
    texts = {name: (root / "kernel" / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    return _ONE_FILE.format(texts=texts, words=["--after-step", str(after_step)])


_MODULES = ("submit", "train_on_kaggle")
_ONE_FILE = '''"""kernel/train_on_kaggle.py, and kernel/submit.py that it imports, in one file: Kaggle takes no more."""

import sys
from types import ModuleType

TEXTS = {texts}
for name, text in TEXTS.items():
    module = sys.modules[name] = ModuleType(name)
    exec(compile(text, name + ".py", "exec"), vars(module))
exit_code = sys.modules["train_on_kaggle"].main({words} + sys.argv[1:])
if exit_code:
    sys.exit(exit_code)
'''

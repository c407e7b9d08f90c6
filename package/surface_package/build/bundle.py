"""A bundle: one flat folder with all that Kaggle's run needs and Kaggle's image lacks."""

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from surface_kernel.inference import settings as kernel_settings
from surface_kernel.inference.settings import Settings
from surface_kernel.networks import weights as kernel_weights
from surface_kernel.networks.weights import Metadata
from surface_package.build import leaks, licences, manifest, sources, wheels
from surface_package.target import DATASET_FILE, PLACEHOLDER_OWNER, dataset_metadata, read_target

SETTINGS = "settings.json"
WEIGHTS = "weights.safetensors"  # what a training leaves in its folder to be shipped
log = logging.getLogger("surface_package")


class BundleError(ValueError):
    """A bundle that cannot be made as asked; the message says what was found and what to do."""


def build(
    weights: Sequence[Path],
    settings: Path | None,
    out: Path,
    wheel_folder: Path | None = None,
    offline: bool = False,
    half: Path | None = None,
    uncommitted: bool = False,
) -> Path:
    """Make a bundle of these members, in this order, and return its folder; the same inputs give the same bytes.

    weights: files, or folders of runs. settings: a TOML file for views or stages, threshold and dust, the kernel's
    defaults without one. wheel_folder: where the pinned wheels lie or are fetched to, a cache of the user's without
    one; `offline` refuses to fetch. Of the libraries that build networks, it holds the ones that these weights need.
    half: a volume; the weights are written in float16, and the manifest says what that changes on this volume.
    uncommitted: take our code as it lies there, even where no commit has it.
    Raises BundleError, SourceError, TargetError, WheelError, and the kernel's WeightsError and SettingsError, before
    anything is written: also for stages of other members than there are weights, and for what seems to hold a secret.
    """
    if not weights:
        raise BundleError("found no weights, wanted at least one file; name it with --weights")
    weights = [path / WEIGHTS if path.is_dir() else path for path in weights]
    described = [kernel_weights.describe(path) for path in weights]
    chosen = _settings(settings, len(weights))
    for path, metadata in zip(weights, described, strict=True):
        _refuse_leaks(path, "\n".join(metadata.to_strings().values()))
    _refuse_foreign(out)
    dataset = _dataset()
    pins = wheels.needed(wheels.read_pins(), [metadata.architecture for metadata in described])
    pinned = wheels.gather(pins, wheel_folder or wheels.cache_folder(), offline)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        code = sources.take(manifest.ROOT, folder / "clone", uncommitted)
        for path in wheels.modules_of(code.kernel):
            _refuse_leaks(path.relative_to(code.root), path.read_text(encoding="utf-8"))
        written = folder / SETTINGS
        written.write_text(kernel_settings.to_json(chosen), encoding="utf-8")
        carried = [wheels.write_wheel(code.kernel, code.version, folder), *pinned]
        shipped, changed = _halved(weights, folder, chosen, half) if half else (weights, None)
        members = {f"member_{index}.safetensors": path for index, path in enumerate(shipped)}
        contents = manifest.Contents(
            version=code.version,
            commit=code.commit,
            weights=list(members),
            settings=SETTINGS,
            requirements=[f"surface-kernel=={code.version}", *wheels.requirements(pins)],
            python=wheels.pythons(pins),
            members={name: _told(metadata) for name, metadata in zip(members, described, strict=True)},
            licences={
                **dict.fromkeys(members, licences.WEIGHTS),
                SETTINGS: licences.CODE,
                **{path.name: licences.of_wheel(path) for path in carried},
            },
            half=changed,
        )
        files = {**members, **{path.name: path for path in (written, *carried)}}
        assemble(out, files, contents, dataset)
    return out


def _settings(path: Path | None, members: int) -> Settings:
    """Read a settings file that fits so many members, without secrets."""
    if path is None:
        return Settings()
    chosen = kernel_settings.from_toml(path)
    try:
        chosen.stages(members)
    except kernel_settings.SettingsError as error:
        raise kernel_settings.SettingsError(f"{path}: {error}") from error
    _refuse_leaks(path, path.read_text(encoding="utf-8"))
    return chosen


def _dataset() -> dict[str, Any] | None:
    """Give the content of dataset-metadata.json by Kaggle's rules; None as long as nobody owns the dataset.

    Raises TargetError where kernel-metadata.json breaks one of its rules.
    """
    path = manifest.ROOT / "kernel-metadata.json"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if PLACEHOLDER_OWNER in text:
        return None
    public = re.search(r'"is_private"\s*:\s*false', text) is not None
    return dataset_metadata(read_target(path, public))


def _halved(
    weights: Sequence[Path], folder: Path, settings: Settings, volume: Path
) -> tuple[list[Path], dict[str, Any]]:
    """Write the weights in float16, and say what that changes on a volume."""
    from surface_package.build import half  # and with it torch, which nothing else here needs

    halved = [folder / f"half_{index}.safetensors" for index in range(len(weights))]
    for source, target in zip(weights, halved, strict=True):
        half.write(source, target)
    try:
        change = half.compare(weights, halved, settings, volume)
    except RuntimeError as error:  # the kernel's for networks, devices and predictions, and torch's own
        raise BundleError(f"--half {volume}: found no prediction to compare ({error}), wanted two") from error
    log.info("%s", change)
    return halved, asdict(change)


def _told(metadata: Metadata) -> dict[str, Any]:
    """Give what a manifest says of weights: what they are, how good they were, where they come from."""
    return {
        "architecture": metadata.architecture.to_mapping(),
        "threshold": metadata.threshold,
        "provenance": dict(metadata.provenance),
    }


def assemble(
    out: Path, files: dict[str, Path], contents: manifest.Contents, dataset: dict[str, Any] | None = None
) -> None:
    """Copy files under their names in the bundle and list them; the folder appears complete or not at all.

    dataset: what goes into dataset-metadata.json, which the manifest does not list: Kaggle never delivers it.
    Raises BundleError when `out` holds something else than an earlier bundle, which is replaced, and for a file whose
    name says that it holds secrets.
    """
    for name, source in files.items():
        _refuse_leaks(Path(name))
        _refuse_leaks(source)
    _refuse_foreign(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made, earlier = Path(temporary) / "made", Path(temporary) / "earlier"
        made.mkdir()
        for name, source in files.items():
            shutil.copyfile(source, made / name)
        manifest.write(made, contents)
        if dataset:
            (made / DATASET_FILE).write_text(json.dumps(dataset, indent=2) + "\n", encoding="utf-8")
        made.chmod(0o755)
        for path in made.iterdir():
            path.chmod(0o644)
        if out.exists():
            out.replace(earlier)
        made.replace(out)


def _refuse_leaks(path: Path, text: str = "") -> None:
    """Raise BundleError where a file's name or text is like that of a secret, which is not repeated, or names a path.

    The paths are those that tell of the one who builds: of the home and of the clone.
    """
    if pattern := leaks.in_name(path.name):
        raise BundleError(
            f"{path}: found a name like {pattern}, wanted no secrets in a bundle; leave it out or rename it"
        )
    if what := leaks.in_text(text):
        raise BundleError(f"{path}: found what looks like {what} in it, wanted no secrets in a bundle; take it out")
    if folder := leaks.in_paths(text, (manifest.ROOT, Path.home())):
        raise BundleError(f"{path}: found the path {folder} in it, wanted no path of this machine; take it out")


def _refuse_foreign(out: Path) -> None:
    wanted = "wanted a new folder or a bundle to replace; choose another --out"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleError(f"{out}: found a link or a file, {wanted}")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if not names:
        return
    try:
        listed = set(manifest.read(out).get("files", ()))
    except manifest.ManifestError as error:
        raise BundleError(f"{out}: found a folder with other things in it, {wanted}") from error
    if strangers := names - listed - {manifest.NAME, DATASET_FILE}:
        raise BundleError(f"{out}: found {', '.join(sorted(strangers))}, which no bundle of ours has, {wanted}")

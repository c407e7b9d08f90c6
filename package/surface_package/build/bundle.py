"""A bundle: one flat folder with all that Kaggle's run needs and Kaggle's image lacks."""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from surface_kernel.inference import settings as kernel_settings
from surface_kernel.inference.settings import Settings
from surface_kernel.networks import weights as kernel_weights
from surface_kernel.networks.weights import Metadata
from surface_kernel.postprocess.mask_settings import MaskSettings, MaskSettingsError
from surface_kernel.runs.report import validation_fault
from surface_package.build import leaks, licences, manifest, sources, wheels
from surface_package.build.wheels import Pin
from surface_package.target import DATASET_FILE, PLACEHOLDER_OWNER, dataset_metadata, is_public, read_target

SETTINGS = "settings.json"
WEIGHTS = "weights.safetensors"  # what a training leaves in its folder to be shipped
log = logging.getLogger("surface_package")


class BundleError(ValueError):
    """A bundle that cannot be made as asked; the message says what was expected and what to do."""


@dataclass(frozen=True, kw_only=True)
class BundleRequest:
    """What to make a bundle of."""

    weights: Sequence[Path]
    """The members in order: weights files, or run folders."""
    settings: Path | None = None
    """A TOML file with views or stages and post-processing. Without one, or where it names no step, the bundle has the
    steps of the competition (`purpose = "segmentation"` in the file: the kernel's default)."""
    out: Path
    """The folder to make; a bundle there is replaced."""
    wheels: Path | None = None
    """Where the pinned wheels are or are fetched to; a cache of the user's without one."""
    offline: bool = False
    """Refuse to fetch a wheel."""
    half: Path | None = None
    """A volume: write the weights in float16, and say in the manifest what that changes on this volume."""
    uncommitted: bool = False
    """Take our code as it is in the clone, even where no commit has it."""


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """What a bundle is made of, once nothing is wrong with it."""

    weights: Sequence[Path]
    members: Sequence[Metadata]
    settings: Settings
    dataset: dict[str, Any] | None
    pins: list[Pin]
    pinned: list[Path]


def build(asked: BundleRequest) -> Path:
    """Make a bundle and return its folder; the same inputs give the same bytes.

    Of the libraries that build networks, it holds the ones that these weights need.

    Raises:
        BundleError, SourceError, TargetError, WheelError, WeightsError, SettingsError: before anything is written; also
            for stages of other members than there are weights, and for what seems to hold a secret.
    """
    checked = _check(asked)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        code = sources.take(manifest.ROOT, folder / "clone", uncommitted=asked.uncommitted)
        for path in wheels.modules_of(code.kernel):
            _refuse_leaks(path.relative_to(code.root), path.read_text(encoding="utf-8"))
        written = folder / SETTINGS
        written.write_text(kernel_settings.to_json(checked.settings), encoding="utf-8")
        carried = [wheels.write_wheel(code.kernel, code.version, folder), *checked.pinned]
        shipped, changed = list(checked.weights), None
        if asked.half:
            shipped, changed = _halved(checked.weights, folder, settings=checked.settings, volume=asked.half)
        files = {f"member_{index}.safetensors": path for index, path in enumerate(shipped)}
        contents = manifest.Contents(
            version=code.version,
            commit=code.commit,
            weights=list(files),
            settings=SETTINGS,
            requirements=[f"surface-kernel=={code.version}", *wheels.requirements(checked.pins)],
            python=wheels.pythons(checked.pins),
            members={name: _entries(metadata) for name, metadata in zip(files, checked.members, strict=True)},
            licences=_licences(files, carried),
            half=changed,
        )
        files |= {path.name: path for path in (written, *carried)}
        assemble(asked.out, files, contents, dataset=checked.dataset)
    return asked.out


def _check(asked: BundleRequest) -> _Checked:
    """Read and check all that can be wrong with a request, before anything is made."""
    if not asked.weights:
        raise BundleError("--weights: expected at least one file, got none")
    weights = [path / WEIGHTS if path.is_dir() else path for path in asked.weights]
    members = [kernel_weights.describe(path) for path in weights]
    settings = _settings(asked.settings, len(weights))
    for path, metadata in zip(weights, members, strict=True):
        _refuse_leaks(path, "\n".join(metadata.to_strings().values()))
        if fault := validation_fault(metadata.provenance):
            raise BundleError(
                f"{path}: expected weights whose own validation is not uniform, got one that is: {fault}; train on, or "
                "where the data look like this, with other limits under [sentinel] in the training's settings"
            )
    _warn_of_other_masks(settings, weights[0], members[0])
    _refuse_foreign(asked.out)
    dataset = _dataset()
    pins = wheels.needed(wheels.read_pins(), [metadata.architecture for metadata in members])
    pinned = wheels.gather(pins, asked.wheels or wheels.cache_folder(), offline=asked.offline)
    return _Checked(weights=weights, members=members, settings=settings, dataset=dataset, pins=pins, pinned=pinned)


def _settings(path: Path | None, members: int) -> Settings:
    """Read a settings file that fits so many members, without secrets."""
    if path is None:
        return Settings.from_mapping({}, "the default settings", of_purpose=True)
    settings = kernel_settings.from_toml(path, of_purpose=True)
    if settings.mask.field_steps:
        names = ", ".join(step.name for step in settings.mask.field_steps)
        raise BundleError(
            f"{path}: {names}: expected no step but the threshold to read the field in a bundle, whose run keeps none: "
            "it thresholds while it stitches; use the step with `predict` or `postprocess`, or leave it out"
        )
    try:
        settings.stages(members)
    except kernel_settings.SettingsError as error:
        raise kernel_settings.SettingsError(f"{path}: {error}") from error
    _refuse_leaks(path, path.read_text(encoding="utf-8"))
    return settings


def _warn_of_other_masks(settings: Settings, path: Path, first: Metadata) -> None:
    """Warn where the first member's threshold is used, and was not chosen on masks made as the bundle makes them."""
    if settings.mask.threshold is not None:
        return
    entries, expected = first.provenance.get("mask"), settings.mask
    try:
        if isinstance(entries, Mapping) and MaskSettings.from_entries(entries).same_but_threshold(expected):
            return
    except MaskSettingsError:
        pass  # of a later version: another chain
    got = json.dumps(dict(entries)) if isinstance(entries, Mapping) else "one that they do not say"
    log.warning(
        "warning: %s: the threshold %g was chosen with another post-processing, %s, than the bundle's, %s; train with "
        "the bundle's in the settings, or name a threshold in --settings",
        path,
        first.threshold,
        got,
        json.dumps(expected.to_entries()),
    )


def _dataset() -> dict[str, Any] | None:
    """Return the content of dataset-metadata.json by Kaggle's rules; None as long as the dataset has no owner.

    Raises TargetError where kernel-metadata.json breaks one of its rules.
    """
    path = manifest.ROOT / "kernel-metadata.json"
    if path.is_file() and PLACEHOLDER_OWNER in path.read_text(encoding="utf-8"):
        return None
    return dataset_metadata(read_target(path, is_public(path)))


def _halved(
    weights: Sequence[Path], folder: Path, *, settings: Settings, volume: Path
) -> tuple[list[Path], dict[str, Any]]:
    """Write the weights in float16; return their files and what that changes on a volume."""
    from surface_package.build import half  # and with it torch, which nothing else here needs

    halved = [folder / f"half_{index}.safetensors" for index in range(len(weights))]
    for source, target in zip(weights, halved, strict=True):
        half.write(source, target)
    try:
        change = half.compare(weights, halved, settings=settings, path=volume)
    except RuntimeError as error:  # the kernel's for networks, devices and predictions, and torch's own
        raise BundleError(f"--half {volume}: expected two predictions to compare, got: {error}") from error
    log.info("%s", change)
    return halved, asdict(change)


def _entries(metadata: Metadata) -> dict[str, Any]:
    """Return what a manifest says of weights: what they are, how good they were, where they come from."""
    return {
        "architecture": metadata.architecture.to_mapping(),
        "threshold": metadata.threshold,
        "provenance": dict(metadata.provenance),
    }


def _licences(members: Mapping[str, Path], carried: Sequence[Path]) -> dict[str, str]:
    wheels_licences = {path.name: licences.of_wheel(path) for path in carried}
    return {**dict.fromkeys(members, licences.WEIGHTS), SETTINGS: licences.CODE, **wheels_licences}


def assemble(
    out: Path, files: Mapping[str, Path], contents: manifest.Contents, *, dataset: dict[str, Any] | None = None
) -> None:
    """Copy files under their names in the bundle and list them; the folder appears complete or not at all.

    Args:
        out: the folder to make; an earlier bundle there is replaced.
        files: by their names in the bundle.
        contents: what else the manifest says.
        dataset: what goes into dataset-metadata.json, which the manifest does not list: Kaggle never delivers it.

    Raises:
        BundleError: `out` holds something other than an earlier bundle, or a file's name says that it holds secrets.
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
            out.rename(earlier)
        made.rename(out)


def _refuse_leaks(path: Path, text: str = "") -> None:
    """Raise BundleError where a file's name or text is like that of a secret, which is not repeated, or names a path.

    The paths are those that tell of whoever builds: of the home and of the clone.
    """
    if pattern := leaks.in_name(path.name):
        raise BundleError(
            f"{path}: expected no secrets in a bundle, got a name like {pattern}; rename it or leave it out"
        )
    if what := leaks.in_text(text):
        raise BundleError(f"{path}: expected no secrets in a bundle, got what looks like {what}; take it out")
    if folder := leaks.in_paths(text, (manifest.ROOT, Path.home())):
        raise BundleError(f"{path}: expected no path of this machine, got {folder}; take it out")


def _refuse_foreign(out: Path) -> None:
    expected = f"{out}: expected a new folder or a bundle to replace"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleError(f"{expected}, got a link or a file; choose another --out")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if not names:
        return
    try:
        listed = set(manifest.read(out).get("files", ()))
    except manifest.ManifestError as error:
        raise BundleError(f"{expected}, got a folder with other things in it; choose another --out") from error
    if strangers := names - listed - {manifest.NAME, DATASET_FILE}:
        got = f"{', '.join(sorted(strangers))}, which no bundle of ours has"
        raise BundleError(f"{expected}, got {got}; choose another --out")

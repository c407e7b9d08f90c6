"""A bundle: one flat folder with all that Kaggle's run needs and Kaggle's image lacks."""

import configparser
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from surface_kernel import settings as kernel_settings
from surface_kernel import weights as kernel_weights
from surface_package import leaks, manifest, wheels

SETTINGS = "settings.json"
KERNEL = manifest.ROOT / "kernel" / "surface_kernel"
# What the kernel's wheel and the others are made from: where it has changed, no commit can stand for the bundle.
_SOURCES = ("kernel/surface_kernel", "setup.cfg", "package/wheels.txt")


class BundleError(ValueError):
    """A bundle that cannot be made as asked; the message says what was found and what to do."""


def build(
    weights: Sequence[Path],
    settings: Path | None,
    out: Path,
    wheel_folder: Path | None = None,
    offline: bool = False,
) -> Path:
    """Make a bundle of these members, in this order, and return its folder; the same inputs give the same bytes.

    settings: a TOML file for views or stages, threshold and dust, the kernel's defaults without one. wheel_folder:
    where the pinned wheels lie or are fetched to, a cache of the user's without one; `offline` refuses to fetch. Of the
    libraries that build networks, it holds the ones that these weights need.
    Raises BundleError, WheelError, and the kernel's WeightsError and SettingsError, before anything is written: also
    for stages of other members than there are weights, and for what seems to hold a secret.
    """
    if not weights:
        raise BundleError("found no weights, wanted at least one file; name it with --weights")
    described = [kernel_weights.describe(path) for path in weights]
    chosen = kernel_settings.from_toml(settings) if settings else kernel_settings.Settings()
    try:
        chosen.stages(len(weights))
    except kernel_settings.SettingsError as error:
        raise kernel_settings.SettingsError(f"{settings}: {error}") from error
    for path, metadata in zip(weights, described, strict=True):
        _refuse_secrets(path, "\n".join(metadata.to_strings().values()))
    if settings:
        _refuse_secrets(settings, settings.read_text(encoding="utf-8"))
    for path in sorted(KERNEL.glob("*.py")):
        _refuse_secrets(path, path.read_text(encoding="utf-8"))
    _refuse_foreign(out)
    pins = wheels.needed(wheels.read_pins(), [metadata.architecture for metadata in described])
    pinned = wheels.gather(pins, wheel_folder or wheels.cache_folder(), offline)

    members = {f"member_{index}.safetensors": path for index, path in enumerate(weights)}
    version = project_version()
    contents = manifest.Contents(
        version=version,
        commit=project_commit(),
        weights=list(members),
        settings=SETTINGS,
        requirements=[f"surface-kernel=={version}", *wheels.requirements(pins)],
        python=wheels.pythons(pins),
    )
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / SETTINGS
        written.write_text(kernel_settings.to_json(chosen), encoding="utf-8")
        kernel = wheels.write_wheel(KERNEL, version, Path(folder))
        assemble(out, {**members, **{path.name: path for path in (written, kernel, *pinned)}}, contents)
    return out


def assemble(out: Path, files: dict[str, Path], contents: manifest.Contents) -> None:
    """Copy files under their names in the bundle and list them; the folder appears complete or not at all.

    Raises BundleError when `out` holds something else than an earlier bundle, which is replaced, and for a file whose
    name says that it holds secrets.
    """
    for name, source in files.items():
        _refuse_secrets(Path(name))
        _refuse_secrets(source)
    _refuse_foreign(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made, earlier = Path(temporary) / "made", Path(temporary) / "earlier"
        made.mkdir()
        for name, source in files.items():
            shutil.copyfile(source, made / name)
        manifest.write(made, contents)
        made.chmod(0o755)
        for path in made.iterdir():
            path.chmod(0o644)
        if out.exists():
            out.replace(earlier)
        made.replace(out)


def _refuse_secrets(path: Path, text: str = "") -> None:
    """Raise BundleError where a file's name or text is like that of a secret. What was found is not repeated."""
    if pattern := leaks.in_name(path.name):
        raise BundleError(
            f"{path}: found a name like {pattern}, wanted no secrets in a bundle; leave it out or rename it"
        )
    if what := leaks.in_text(text):
        raise BundleError(f"{path}: found what looks like {what} in it, wanted no secrets in a bundle; take it out")


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
    if strangers := names - listed - {manifest.NAME, "dataset-metadata.json"}:
        raise BundleError(f"{out}: found {', '.join(sorted(strangers))}, which no bundle of ours has, {wanted}")


def project_version() -> str:
    """Return the version that setup.cfg gives the project."""
    config = configparser.ConfigParser()
    config.read(manifest.ROOT / "setup.cfg", encoding="utf-8")
    return config.get("metadata", "version")


def project_commit() -> str | None:
    """Return the commit that the bundle's own code comes from; None outside git or where that code has been changed."""
    git = ["git", "-C", str(manifest.ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--", *_SOURCES], capture_output=True, text=True)
    except FileNotFoundError:  # no git here
        return None
    return head.stdout.strip() if head.returncode == changed.returncode == 0 and not changed.stdout else None

"""The code that Kaggle receives: finds the bundle, verifies it, installs its wheels offline and runs surface_kernel.

It needs the standard library only, is run and never imported. `run` tells the story; what it calls follows in the same
order. Exit code 0: a verified submission.zip stands, whatever the verdict printed last says (Kaggle scores nothing of
a run that errs), and whatever befell the engine or this script once the engine was started. Exit code 1: none stands.
`--verify BUNDLE` checks a bundle against its manifest and does no more. Nothing of a bundle is executed but what pip
unpacked from its verified wheels.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

COMPETITION = "vesuvius-challenge-surface-detection"
INPUT = Path("/kaggle/input")
WORKING = Path("/kaggle/working")
SCRATCH = Path("/kaggle/tmp")

FORMAT = "surface-bundle/1"
SEARCH_LEVELS = 3  # /kaggle/input/datasets/<owner>/<slug> is the deepest mount that was seen
MANIFEST_LIMIT_BYTES = 1 << 20
WHEELS_LIMIT_BYTES = 2 << 30  # unpacked, all together: scratch has some tens of GB
DELIVERED_UNLISTED = ("manifest.json", "dataset-metadata.json")  # the latter is Kaggle's, and only lies beside uploads

BUDGET_S = 8.5 * 3600.0
GRACE_S = 600.0  # an engine that outlives its budget by this is killed: Kaggle would end everything at 9 h
STARTS = 4  # the first, and three more where it dies
LOOK_S = 0.2  # how often it is looked whether to stop
REAP_S = 10.0
VERDICTS = {0: "complete", 3: "degraded", 1: "failed"}  # the engine's exit codes; any other means that it died
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class SubmitError(Exception):
    """Nothing can be submitted; the message names what was found, what was wanted and what to do."""


def run(place: argparse.Namespace, started_s: float) -> int:
    """Go from Kaggle's mounts to a verified submission.zip."""
    for folder in (place.working, place.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    zip_path = place.working / "submission.zip"
    set_aside(zip_path)
    bundle = find_bundle(place.input)
    competition = find_competition(place.input)
    ids = read_ids(competition / "test.csv")
    say(f"bundle {bundle}, competition {competition}, {len(ids)} volumes to predict")

    findings = check_bundle(bundle)
    if findings:
        print_findings(findings)
        raise SubmitError(f"{bundle}: found {len(findings)} faults, wanted none; build or upload the bundle again")
    manifest = read_manifest(bundle)
    say(f"bundle verified: {len(manifest['files'])} files, manifest sha256 {sha256(bundle / 'manifest.json')}")

    environment = child_environment(place.scratch)
    install(bundle, manifest, place.scratch / "site", environment)
    command = [sys.executable, "-m", "surface_kernel", "--bundle", str(bundle), "--competition", str(competition)]
    command += ["--out", str(place.working), "--scratch", str(place.scratch / "engine")]
    stops = heed_stops()
    try:
        verdict = supervise(command, environment, place.scratch, started_s + place.budget_s, stops)
    except Exception as error:  # whatever it is: what the engine left is looked at, and may count
        verdict = f"failed ({type(error).__name__}: {error})"

    faults = check_submission(zip_path, ids)
    print_findings(faults)
    if faults:
        say(f"verdict: no submission; the engine's run was {verdict}")
        return 1
    say(f"verdict: {verdict}; submission.zip stands with {len(ids)} masks")
    return 0


# --- what is mounted ---------------------------------------------------------------------------------------------


def set_aside(zip_path: Path) -> None:
    """Keep an earlier run's zip from being taken for this run's."""
    if zip_path.exists():
        kept = zip_path.with_name("earlier_submission.zip")
        zip_path.replace(kept)
        say(f"{zip_path}: found one from an earlier run, kept as {kept.name}")


def folders_below(top: Path) -> Iterator[Path]:
    """Yield the folders at most SEARCH_LEVELS below `top`, nearest first.

    Folders of images and labels are passed by: the competition's hold 26 GB on a slow mount. So is what cannot be read.
    """
    level = [top]
    for _ in range(SEARCH_LEVELS):
        level = [folder / name for folder in level for name in folders_in(folder)]
        level = [folder for folder in level if not folder.name.endswith(("_images", "_labels"))]
        yield from level


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none where it cannot be read."""
    names = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link that leads in a circle
                if entry.is_dir():
                    names.append(entry.name)
    return sorted(names)


def is_kind(path: Path, kind: Callable[[int], bool]) -> bool:
    """Say whether there is a file or folder, as `kind` tells by its mode: what is neither could make us wait."""
    try:
        return kind(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def different(folders: Sequence[Path], name: str) -> list[Path]:
    """Return the folders whose file of this name can be read; of those with the same content the first."""
    firsts: dict[str, Path] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            firsts.setdefault(sha256(folder / name), folder)
    return list(firsts.values())


def find_bundle(top: Path, form: str = FORMAT) -> Path:
    """Return the one folder below `top` whose manifest.json says that it is a bundle of ours, of this format."""
    wanted = f"wanted one folder with a manifest.json of format {form!r}"
    if not is_kind(top, stat.S_ISDIR):
        raise SubmitError(f"{top}: found no such folder, {wanted}; name the inputs' folder with --input")
    bundles: list[Path] = []
    others = []
    for folder in folders_below(top):
        if is_kind(folder / "manifest.json", stat.S_ISREG):
            try:
                read_manifest(folder, form)
            except SubmitError as error:
                others.append(f"{folder}: {error}")
                continue
            bundles.append(folder)
    # Kaggle has been seen to show one dataset under two paths. A manifest stands for all that it lists: the nearest
    # folder of those with the same one is taken.
    bundles = different(bundles, "manifest.json")
    if len(bundles) == 1:
        return bundles[0]
    if bundles:
        raise SubmitError(
            f"{top}: found {len(bundles)} bundles ({joined(sorted(bundles))}), {wanted}; attach one dataset only"
        )
    found = f"no bundle ({'; '.join(others)})" if others else "no bundle"
    raise SubmitError(f"{top}: found {found}, {wanted}; attach the bundle's dataset to the kernel")


def find_competition(top: Path) -> Path:
    """Return the folder below `top` that holds test.csv and test_images.

    Where there are several, the one named as the competition is meant; those with the same test.csv count as one.
    """
    found = [folder for folder in folders_below(top) if is_kind(folder / "test.csv", stat.S_ISREG)]
    found = [folder for folder in found if is_kind(folder / "test_images", stat.S_ISDIR)]
    found = different([folder for folder in found if folder.name == COMPETITION] or found, "test.csv")
    if len(found) != 1:
        listed = f"{len(found)} ({joined(sorted(found))})" if found else "none"
        wanted = "wanted one folder with test.csv and test_images"
        raise SubmitError(f"{top}: found {listed}, {wanted}; attach the competition {COMPETITION} to the kernel")
    return found[0]


def read_ids(path: Path) -> list[str]:
    """Return the ids of test.csv in its order, each once."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            ids = [(row.get("id") or "").strip() for row in table]
            columns = table.fieldnames
    except (csv.Error, UnicodeDecodeError) as error:
        raise SubmitError(f"{path}: found no readable csv ({error}), wanted the columns id and scroll_id") from error
    ids = list(dict.fromkeys(name for name in ids if name))
    if not ids:
        raise SubmitError(f"{path}: found the columns {columns} and no id, wanted at least one row with an id")
    return ids


# --- the manifest ------------------------------------------------------------------------------------------------


def read_manifest(bundle: Path, form: str = FORMAT) -> dict[str, Any]:
    """Read manifest.json; SubmitError where there is none, it cannot be read, or says another format."""
    path = bundle / "manifest.json"
    if path.is_symlink() or not is_kind(path, stat.S_ISREG):
        raise SubmitError("manifest.json: found no such file, wanted the list of the bundle's files")
    try:
        with path.open("rb") as stream:
            content = stream.read(MANIFEST_LIMIT_BYTES + 1)
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise SubmitError(f"manifest.json: found more than {MANIFEST_LIMIT_BYTES} bytes, wanted at most that many")
        manifest = json.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise SubmitError(f"manifest.json: found no readable JSON ({error}), wanted format {form!r}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != form:
        raise SubmitError(f"manifest.json: found format {shown(found)}, wanted {form!r}")
    return dict(manifest)


def check_bundle(bundle: Path, form: str = FORMAT) -> list[str]:
    """Compare a bundle with its manifest: one line a finding, none for a good bundle."""
    try:
        manifest = read_manifest(bundle, form)
        return check_form(manifest) or check_files(bundle, manifest["files"]) or check_wheels(bundle, manifest["files"])
    except (SubmitError, OSError) as error:
        return [str(error)]


def check_form(manifest: dict[str, Any]) -> list[str]:
    """Check what the manifest says, before anything that it names is touched."""
    findings = []
    files = manifest.get("files")
    if not isinstance(files, dict):
        return ["manifest.json: found no table 'files', wanted a sha256 and a size for every file"]
    for name, entry in files.items():
        if name in DELIVERED_UNLISTED or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            findings.append(f"manifest.json: found the name {shown(name)}, wanted that of a file inside the bundle")
        form = entry if isinstance(entry, dict) else {}
        if not (matches(r"[0-9a-f]{64}", form.get("sha256")) and type(form.get("bytes")) is int):
            told = f"{shown(entry)} for {shown(name)}"
            findings.append(f"manifest.json: found {told}, wanted a sha256 and a number of bytes")
    lists = {"requirements": r"[A-Za-z0-9][\w.-]*==\w[\w.+!]*", "python": r"3\.\d+"}
    if manifest.get("format") == FORMAT:  # a bundle to train from brings no weights
        lists["weights"] = ".+"
    for key, pattern in lists.items():
        values = manifest.get(key)
        if not isinstance(values, list) or not values or not all(matches(pattern, value) for value in values):
            findings.append(
                f"manifest.json: found {shown(values)} for {key!r}, wanted a list of strings like {pattern}"
            )
        elif key == "weights" and not set(values) <= set(files):
            findings.append(f"manifest.json: found the weights {shown(values)}, wanted files that it lists")
    settings = manifest.get("settings")
    if not isinstance(settings, str) or settings not in files:
        findings.append(f"manifest.json: found the settings {shown(settings)}, wanted a file that it lists")
    return findings


def check_files(bundle: Path, files: dict[str, dict[str, Any]]) -> list[str]:
    """Check that exactly the listed files are there, with the sizes and digests listed."""
    findings, present = [], set()
    for path in sorted(bundle.iterdir()):
        name = path.name
        present.add(name)
        if path.is_symlink():
            findings.append(f"{name!r}: found a link, wanted a file")
        elif not is_kind(path, stat.S_ISREG):
            findings.append(f"{name!r}: found a folder or a special file, wanted files only")
        elif name not in files:
            if name not in DELIVERED_UNLISTED:
                findings.append(f"{name!r}: found a file that the manifest does not list, wanted none")
        else:
            findings += check_file(path, files[name])
    for name in sorted(files.keys() - present):
        findings.append(f"{shown(name)}: found no such file, wanted {files[name]['bytes']} bytes")
    return findings


def check_file(path: Path, wanted: dict[str, Any]) -> list[str]:
    """Compare one file with its entry in the manifest."""
    try:
        size = path.stat().st_size
        if size != wanted["bytes"]:
            return [f"{path.name!r}: found {size} bytes, wanted {wanted['bytes']}"]
        digest = sha256(path)
    except OSError as error:
        return [f"{path.name!r}: found it unreadable ({error}), wanted {wanted['bytes']} bytes"]
    return [] if digest == wanted["sha256"] else [f"{path.name!r}: found sha256 {digest}, wanted {wanted['sha256']}"]


def check_wheels(bundle: Path, names: Iterable[str]) -> list[str]:
    """Check that every wheel holds what pip may unpack, before pip touches any: a digest says nothing about that."""
    findings, unpacked_bytes = [], 0
    for name in sorted(name for name in names if name.lower().endswith(".whl")):
        try:
            with zipfile.ZipFile(bundle / name) as wheel:
                members = wheel.infolist()
        except Exception as error:  # of a damaged zip: BadZipFile, struct.error, NotImplementedError, ...
            findings.append(f"{name!r}: found no readable zip ({shown(error)}), wanted a wheel")
            continue
        unpacked_bytes += sum(member.file_size for member in members)
        for member in members:
            found, mode = member.orig_filename, member.external_attr >> 16
            if re.search(r"\A(/|[A-Za-z]:)|\\|\0|(\A|/)\.\.(/|\Z)", found):
                findings.append(f"{name!r}: found the member {shown(found)}, wanted names inside of the wheel")
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                findings.append(f"{name!r}: found the member {shown(found)} as a link or a device, wanted files")
    if unpacked_bytes > WHEELS_LIMIT_BYTES:
        findings.append(f"wheels: found {unpacked_bytes} bytes to unpack, wanted at most {WHEELS_LIMIT_BYTES}")
    return findings


def matches(pattern: str, value: object) -> bool:
    """Say whether a JSON value is a string of this form."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def sha256(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- the engine --------------------------------------------------------------------------------------------------


def child_environment(scratch: Path) -> dict[str, str]:
    """Return the environment of pip and of the engine: all that they write besides the output goes to scratch."""
    for name in ("tmp", "numba"):
        (scratch / name).mkdir(exist_ok=True)
    path = [str(scratch / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(path),
        TMPDIR=str(scratch / "tmp"),
        NUMBA_CACHE_DIR=str(scratch / "numba"),
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONSAFEPATH="1",  # `-m` would put the current folder before everything else
        PYTHONUNBUFFERED="1",
        PYTHONFAULTHANDLER="1",
    )


def install(bundle: Path, manifest: dict[str, Any], site: Path, environment: dict[str, str]) -> None:
    """Let pip unpack those of the bundle's wheels that fit this Python into `site`, offline."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = f"Python {here} on {platform.system()} {platform.machine()}"
    wanted = f"wanted Python {' or '.join(manifest['python'])} on Linux x86_64"
    advice = "add its wheels to package/wheels.txt and build the bundle again"
    if here not in manifest["python"]:
        raise SubmitError(f"{bundle}: found {machine}, {wanted}; {advice}")
    if site.exists():
        shutil.rmtree(site)
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--target", str(site), "--find-links", str(bundle), *manifest["requirements"]]
    pip = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if pip.returncode:
        lines = (pip.stderr or pip.stdout).splitlines()
        why = " ".join([line for line in lines if line.startswith("ERROR")] or lines[-1:])
        raise SubmitError(f"{bundle}: found no way to install its wheels for {machine} ({why}), {wanted}; {advice}")
    say(f"installed: {', '.join(manifest['requirements'])}")


def heed_stops() -> list[int]:
    """Let a signal that would end us only be noted from here on; returns the list that it is noted in.

    The engine is ended and its submission checked, and neither may be broken off in the middle.
    """
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stops.append(number))
    return stops


def supervise(
    command: list[str], environment: dict[str, str], folder: Path, deadline_s: float, stops: Sequence[int] = ()
) -> str:
    """Run the engine, start it again when it dies, and return its verdict; the deadline is one of time.monotonic.

    The engine gets what is left as its budget, goes on where an earlier start of it got to, and is ended when `stops`
    holds a signal.
    """
    for start in range(1, STARTS + 1):
        left_s = max(deadline_s - time.monotonic(), 0.0)
        if start > 1 and not left_s:
            return "failed (it died, and no time is left)"
        try:
            code = run_engine([*command, "--budget-s", f"{left_s:.1f}"], environment, folder, left_s + GRACE_S, stops)
        except OSError as error:  # no memory for another process, say
            how = str(error)
        else:
            if code in VERDICTS:
                return VERDICTS[code]
            if code is None and not stops:
                return f"failed (stopped {GRACE_S:.0f} s after its budget)"
            how = signal.Signals(-code).name if code and -code in set(signal.Signals) else f"exit code {code}"
        if stops:
            return f"failed (stopped by {signal.Signals(stops[0]).name})"
        say(f"the engine died: {how}, start {start} of {STARTS}")
    return f"failed (it died {STARTS} times)"


def run_engine(
    command: list[str], environment: dict[str, str], folder: Path, limit_s: float, stops: Sequence[int]
) -> int | None:
    """Run the engine in a process group of its own, so that nothing of it is left; None if it had to be killed."""
    end_s = time.monotonic() + limit_s
    engine = subprocess.Popen(command, env=environment, cwd=folder, process_group=0)
    try:
        while not stops and time.monotonic() < end_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return engine.wait(LOOK_S)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot even be killed
            engine.wait(REAP_S)


# --- the submission ----------------------------------------------------------------------------------------------


def check_submission(path: Path, ids: list[str]) -> list[str]:
    """Check that the zip opens, is whole, and holds one TIFF for every id and nothing else."""
    if not path.is_file():
        return [f"{path}: found no such file, wanted a submission with {len(ids)} masks"]
    wanted = {f"{name}.tif" for name in ids}
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
            heads = {name: archive.open(name).read(4) for name in set(names)} if damaged is None else {}
    except Exception as error:  # a damaged zip makes zipfile raise BadZipFile, zlib.error, EOFError, struct.error, ...
        return [f"{path}: found no readable zip ({type(error).__name__}: {error}), wanted {len(ids)} masks"]
    if damaged is not None:
        return [f"{path}: found {damaged!r} damaged, wanted whole masks"]
    findings = [f"{path}: found no {name!r}, wanted a mask for every id" for name in sorted(wanted - set(names))]
    findings += [f"{path}: found {name!r}, wanted the ids of test.csv only" for name in sorted(set(names) - wanted)]
    findings += [f"{path}: found {name!r} twice, wanted one each" for name in sorted(heads) if names.count(name) > 1]
    for name in sorted(wanted & set(heads)):
        if heads[name] not in TIFF_MAGICS:
            findings.append(f"{path}: found {name!r} starting with {heads[name]!r}, wanted a TIFF")
    return findings


# --- the command -------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a line at once: Kaggle's log must have it when the run is ended from outside.

    A log that takes no more must not take the run down: from then on nothing is printed, by the engine neither.
    """
    try:
        print(line, flush=True)
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def shown(value: object) -> str:
    """Give a value of a stranger's file for a message: short, and on one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, a list too deep
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def joined(paths: list[Path]) -> str:
    """Name paths in a message."""
    return ", ".join(str(path) for path in paths)


def print_findings(findings: list[str]) -> None:
    """Print one line a finding."""
    for finding in findings:
        say(f"finding: {finding}")


def verify(bundle: Path) -> int:
    """Print what is wrong with a bundle; 0 if nothing is."""
    findings = check_bundle(bundle)
    print_findings(findings)
    if not findings:
        say(f"bundle verified: {bundle}, manifest sha256 {sha256(bundle / 'manifest.json')}")
    return 1 if findings else 0


def main() -> int:
    """Read the command line and do what it says; returns the exit code."""
    started_s = time.monotonic()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold any bytes
    # A termination must pass through `finally`, or pip would go on alone. For the engine see `heed_stops`.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description="From a mounted bundle to submission.zip, offline.")
    parser.add_argument("--input", type=Path, default=INPUT, help="where the bundle and the competition are mounted")
    parser.add_argument("--working", type=Path, default=WORKING, help="where submission.zip goes")
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="where everything else goes")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="wall time for all, in seconds")
    parser.add_argument("--verify", type=Path, metavar="BUNDLE", help="check this bundle and do nothing else")
    arguments = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook's arguments are not ours
    if arguments.verify:
        return verify(arguments.verify)
    for name in ("input", "working", "scratch"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    try:
        return run(arguments, started_s)
    except (SubmitError, OSError) as error:
        say(f"error: {error}")
        say("verdict: no submission")
        return 1


if __name__ == "__main__":
    exit_code = main()
    if exit_code:
        sys.exit(exit_code)

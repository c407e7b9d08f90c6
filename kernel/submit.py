"""The code that Kaggle receives: finds the bundle, verifies it, installs its wheels offline and runs surface_kernel.

Standard library only; run, never imported (train_on_kaggle.py, which is pushed in one file with it, excepted). `run`
tells the story; what it calls follows in the same order. Exit code 0: a verified submission.zip exists, whatever the
verdict says (Kaggle scores nothing of a run that fails), and whatever happened to the engine or this script once the
engine was started. Exit code 1: there is none. `--verify BUNDLE` only checks a bundle against its manifest. Nothing of
a bundle is executed but what pip unpacked from its verified wheels.

What it prints is for people, but for the last line: PREFIX and one JSON object (`Result`), which other programs read.
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
from dataclasses import asdict, dataclass, field
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
DELIVERED_UNLISTED = ("manifest.json", "dataset-metadata.json")  # the latter is Kaggle's, and only beside uploads

BUDGET_S = 8.5 * 3600.0
GRACE_S = 600.0  # an engine that outlives its budget by this is killed: Kaggle would end everything at 9 h
STARTS = 4  # the first, and three more where it dies
POLL_S = 0.2  # how often a running engine is checked for a signal or the end of its time
REAP_S = 10.0
VERDICTS = {0: "complete", 3: "degraded", 1: "failed"}  # the engine's exit codes; any other means that it died
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

PREFIX = "surface-submit: "  # what the line for other programs begins with; surface_package reads it
LISTED_FINDINGS = 20  # in that line: a log may cut long ones


class SubmitError(Exception):
    """Nothing can be submitted. The message says what was expected, what there was and what to do.

    reason: one word for other programs, which stays the same when the message is reworded.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(kw_only=True)
class Result:
    """What a run says of itself to other programs, filled in as it goes and printed as its last line."""

    program: str
    """Which one ran: submit, verify or train."""
    verdict: str
    """How it ended: of submit complete, degraded, failed or no submission; of verify verified or refused."""
    reason: str = ""
    """Of a run that was refused: the word of its SubmitError."""
    message: str = ""
    """The same for people: why it did not end well."""
    manifest_sha256: str = ""
    """Of the bundle, once it was verified."""
    files: dict[str, str] = field(default_factory=dict)
    """What was left in the output and may be used: sha256 by name."""
    findings: list[str] = field(default_factory=list)
    """The first of what is wrong with the bundle or the submission."""
    after_step: int | None = None
    """Of a training: the step it began after."""
    step: int | None = None
    """Of a training: the step it reached."""

    def line(self) -> str:
        """Return the line that is printed: ASCII, so that no log spoils it."""
        listed, more = self.findings[:LISTED_FINDINGS], len(self.findings) - LISTED_FINDINGS
        findings = [*listed, f"and {more} more"] if more > 0 else listed
        return PREFIX + json.dumps(asdict(self) | {"findings": findings}, sort_keys=True)


def run(place: argparse.Namespace, started_s: float, result: Result) -> None:
    """Go from Kaggle's mounts to a verified submission.zip, and note in `result` what came of it."""
    for folder in (place.working, place.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    zip_path = place.working / "submission.zip"
    set_aside(zip_path)
    bundle = find_bundle(place.input)
    competition = find_competition(place.input)
    ids = read_ids(competition / "test.csv")
    say(f"bundle {bundle}, competition {competition}, {len(ids)} volumes to predict")

    manifest = verified_manifest(bundle, FORMAT, result)
    environment = child_environment(place.scratch)
    install(bundle, manifest, site=place.scratch / "site", environment=environment)
    command = [sys.executable, "-m", "surface_kernel", "--bundle", str(bundle), "--competition", str(competition)]
    command += ["--out", str(place.working), "--scratch", str(place.scratch / "engine")]
    stops = catch_signals()
    try:
        result.verdict, result.message = supervise(
            command, environment=environment, folder=place.scratch, deadline_s=started_s + place.budget_s, stops=stops
        )
    except Exception as error:  # whatever it is: what the engine left is checked, and may count
        result.verdict, result.message = "failed", f"{type(error).__name__}: {error}"

    result.findings = check_submission(zip_path, ids)
    print_findings(result.findings)
    engine = result.verdict + (f" ({result.message})" if result.message else "")
    if result.findings:
        result.verdict = "no submission"
        say(f"verdict: no submission; the engine's run: {engine}")
    else:
        result.files = {zip_path.name: sha256(zip_path)}
        say(f"verdict: {engine}; submission.zip holds {len(ids)} masks")


# --- what is mounted ---------------------------------------------------------------------------------------------


def set_aside(zip_path: Path) -> None:
    """Rename an earlier run's zip, so that it is not taken for this run's."""
    if zip_path.exists():
        kept = zip_path.with_name("earlier_submission.zip")
        zip_path.replace(kept)
        say(f"{zip_path}: left by an earlier run, renamed to {kept.name}")


def folders_below(top: Path) -> Iterator[Path]:
    """Yield the folders at most SEARCH_LEVELS below `top`, nearest first.

    Folders of images and labels are skipped: the competition's hold 26 GB on a slow mount. So are unreadable ones.
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
    """Whether a path exists and `kind` holds of its mode: reading a pipe, which is neither, could block."""
    try:
        return kind(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def distinct(folders: Sequence[Path], name: str) -> list[Path]:
    """Return the folders whose file of this name can be read; of those with the same content the first."""
    firsts: dict[str, Path] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            firsts.setdefault(sha256(folder / name), folder)
    return list(firsts.values())


def find_bundle(top: Path, form: str = FORMAT) -> Path:
    """Return the one folder below `top` whose manifest.json says that it is a bundle of ours, of this format."""
    expected = f"{top}: expected one folder with a manifest.json of format {form!r}"
    if not is_kind(top, stat.S_ISDIR):
        raise SubmitError("no_input", f"{expected}, got no such folder; name the inputs' folder with --input")
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
    bundles = distinct(bundles, "manifest.json")
    if len(bundles) == 1:
        return bundles[0]
    if bundles:
        listed = f"{len(bundles)} ({', '.join(map(str, sorted(bundles)))})"
        raise SubmitError("several_bundles", f"{expected}, got {listed}; attach one dataset only")
    got = f"none ({'; '.join(others)})" if others else "none"
    raise SubmitError("no_bundle", f"{expected}, got {got}; attach the bundle's dataset to the kernel")


def find_competition(top: Path) -> Path:
    """Return the folder below `top` that holds test.csv and test_images.

    Where there are several, the one named as the competition is meant; those with the same test.csv count as one.
    """
    folders = [folder for folder in folders_below(top) if is_kind(folder / "test.csv", stat.S_ISREG)]
    folders = [folder for folder in folders if is_kind(folder / "test_images", stat.S_ISDIR)]
    folders = distinct([folder for folder in folders if folder.name == COMPETITION] or folders, "test.csv")
    if len(folders) == 1:
        return folders[0]
    got = f"{len(folders)} ({', '.join(map(str, sorted(folders)))})" if folders else "none"
    raise SubmitError(
        "several_competitions" if folders else "no_competition",
        f"{top}: expected one folder with test.csv and test_images, got {got}; "
        f"attach the competition {COMPETITION} to the kernel",
    )


def read_ids(path: Path) -> list[str]:
    """Return the ids of test.csv in its order, each once."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            ids = [(row.get("id") or "").strip() for row in table]
            columns = table.fieldnames
    except (csv.Error, UnicodeDecodeError) as error:
        expected = "expected CSV with the columns id and scroll_id"
        raise SubmitError("no_ids", f"{path}: {expected}, got an unreadable file ({error})") from error
    ids = list(dict.fromkeys(name for name in ids if name))
    if not ids:
        raise SubmitError("no_ids", f"{path}: expected at least one row with an id, got none; its columns: {columns}")
    return ids


# --- the manifest ------------------------------------------------------------------------------------------------


def verified_manifest(bundle: Path, form: str, result: Result) -> dict[str, Any]:
    """Return the manifest of a bundle that agrees with it in every file, and note its digest in `result`."""
    result.findings = check_bundle(bundle, form)
    if result.findings:
        print_findings(result.findings)
        faults = f"{len(result.findings)} fault{'s' * (len(result.findings) > 1)}"
        message = f"{bundle}: expected the files that its manifest lists, got {faults}; build and publish it again"
        raise SubmitError("bundle_damaged", message)
    manifest = read_manifest(bundle, form)
    result.manifest_sha256 = sha256(bundle / "manifest.json")
    say(f"bundle verified: {len(manifest['files'])} files, manifest sha256 {result.manifest_sha256}")
    return manifest


def read_manifest(bundle: Path, form: str = FORMAT) -> dict[str, Any]:
    """Read manifest.json; SubmitError where there is none, it cannot be read, or says another format."""
    path = bundle / "manifest.json"
    if path.is_symlink() or not is_kind(path, stat.S_ISREG):
        raise SubmitError("no_bundle", "manifest.json: expected the list of the bundle's files, got no such file")
    expected = f"manifest.json: expected JSON of format {form!r}"
    try:
        with path.open("rb") as stream:
            content = stream.read(MANIFEST_LIMIT_BYTES + 1)
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise SubmitError("no_bundle", f"{expected}, got more than {MANIFEST_LIMIT_BYTES} bytes")
        manifest = json.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise SubmitError("no_bundle", f"{expected}, got an unreadable file ({error})") from error
    got = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if got != form:
        raise SubmitError("no_bundle", f"{expected}, got {shown(got)}")
    return dict(manifest)


def check_bundle(bundle: Path, form: str = FORMAT) -> list[str]:
    """Compare a bundle with its manifest: one line a finding, none for a good bundle."""
    try:
        manifest = read_manifest(bundle, form)
        findings = check_form(manifest) or check_own_digest(manifest, (bundle / "manifest.json").read_bytes())
        return findings or check_files(bundle, manifest["files"]) or check_wheels(bundle, manifest["files"])
    except (SubmitError, OSError) as error:
        return [str(error)]


def check_form(manifest: dict[str, Any]) -> list[str]:
    """Check what the manifest says, before anything that it names is opened."""
    files = manifest.get("files")
    if not isinstance(files, dict):
        return ["manifest.json: expected a table 'files' with a sha256 and a size for every file, got none"]
    findings = check_entries(files)
    lists = {"requirements": r"[A-Za-z0-9][\w.-]*==\w[\w.+!]*", "python": r"3\.\d+"}
    if manifest.get("format") == FORMAT:  # a bundle to train from brings no weights
        lists["weights"] = ".+"
    for key, pattern in lists.items():
        values = manifest.get(key)
        if not isinstance(values, list) or not values or not all(matches(pattern, value) for value in values):
            findings.append(f"manifest.json: {key}: expected a list of strings like {pattern}, got {shown(values)}")
        elif key == "weights" and not set(values) <= set(files):
            findings.append(f"manifest.json: weights: expected files that it lists, got {shown(values)}")
    settings = manifest.get("settings")
    if not isinstance(settings, str) or settings not in files:
        findings.append(f"manifest.json: settings: expected a file that it lists, got {shown(settings)}")
    return findings


def check_own_digest(manifest: dict[str, Any], content: bytes) -> list[str]:
    """Check that a manifest is to the byte what was written: it lists the digests of all files but its own.

    The entry contents_sha256 is that of its other entries, as JSON with sorted keys and without spaces.
    """
    others = {key: value for key, value in manifest.items() if key != "contents_sha256"}
    digest = hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    advice = "the manifest was changed; build the bundle again"
    if (stated := manifest.get("contents_sha256")) != digest:
        return [f"manifest.json: contents_sha256: expected {digest}, got {shown(stated)}: {advice}"]
    # An escape may be written in two ways, and the digest is that of what both mean.
    if content != (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode():
        return [f"manifest.json: expected it as it was written, got the same content in another form: {advice}"]
    return []


def check_entries(files: dict[str, Any]) -> list[str]:
    """Check the manifest's table of files."""
    findings = []
    for name, entry in files.items():
        if name in DELIVERED_UNLISTED or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            findings.append(f"manifest.json: files: expected names of files inside the bundle, got {shown(name)}")
        form = entry if isinstance(entry, dict) else {}
        if not (matches(r"[0-9a-f]{64}", form.get("sha256")) and type(form.get("bytes")) is int):
            expected = "expected a sha256 and a number of bytes"
            findings.append(f"manifest.json: files: {shown(name)}: {expected}, got {shown(entry)}")
    return findings


def check_files(bundle: Path, files: dict[str, dict[str, Any]]) -> list[str]:
    """Check that exactly the listed files are there, with the sizes and digests listed."""
    findings, present = [], set()
    for path in sorted(bundle.iterdir()):
        name = path.name
        present.add(name)
        if path.is_symlink():
            findings.append(f"{name!r}: expected a file, got a link")
        elif not is_kind(path, stat.S_ISREG):
            findings.append(f"{name!r}: expected a file, got a folder or a special file")
        elif name in files:
            findings += check_file(path, files[name])
        elif name not in DELIVERED_UNLISTED:
            findings.append(f"{name!r}: expected only files that the manifest lists, got another")
    for name in sorted(files.keys() - present):
        findings.append(f"{shown(name)}: expected {files[name]['bytes']} bytes, got no such file")
    return findings


def check_file(path: Path, entry: dict[str, Any]) -> list[str]:
    """Compare one file with its entry in the manifest."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return [f"{path.name!r}: expected {entry['bytes']} bytes, got {size}"]
        digest = sha256(path)
    except OSError as error:
        return [f"{path.name!r}: expected {entry['bytes']} bytes, got an unreadable file ({error})"]
    return [] if digest == entry["sha256"] else [f"{path.name!r}: expected sha256 {entry['sha256']}, got {digest}"]


def check_wheels(bundle: Path, names: Iterable[str]) -> list[str]:
    """Check that every wheel holds what pip may unpack, before pip opens any: a digest says nothing about that."""
    findings, unpacked_bytes = [], 0
    for name in sorted(name for name in names if name.lower().endswith(".whl")):
        try:
            with zipfile.ZipFile(bundle / name) as wheel:
                members = wheel.infolist()
        except Exception as error:  # of a damaged zip: BadZipFile, struct.error, NotImplementedError, ...
            findings.append(f"{name!r}: expected a wheel, got no readable zip ({shown(error)})")
            continue
        unpacked_bytes += sum(member.file_size for member in members)
        for member in members:
            inside, mode = member.orig_filename, member.external_attr >> 16
            if re.search(r"\A(/|[A-Za-z]:)|\\|\0|(\A|/)\.\.(/|\Z)", inside):
                findings.append(f"{name!r}: expected members inside of the wheel, got {shown(inside)}")
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                findings.append(f"{name!r}: expected files, got the member {shown(inside)} as a link or a device")
    if unpacked_bytes > WHEELS_LIMIT_BYTES:
        findings.append(f"wheels: expected at most {WHEELS_LIMIT_BYTES} bytes to unpack, got {unpacked_bytes}")
    return findings


def matches(pattern: str, value: object) -> bool:
    """Whether a JSON value is a string of this form."""
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


def install(bundle: Path, manifest: dict[str, Any], *, site: Path, environment: dict[str, str]) -> None:
    """Let pip unpack those of the bundle's wheels that fit this Python into `site`, offline."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = f"Python {here} on {platform.system()} {platform.machine()}"
    expected = f"{bundle}: expected Python {' or '.join(manifest['python'])} on Linux x86_64"
    advice = "add its wheels to package/wheels.txt and build the bundle again"
    if here not in manifest["python"]:
        raise SubmitError("other_python", f"{expected}, got {machine}; {advice}")
    if site.exists():
        shutil.rmtree(site)
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--target", str(site), "--find-links", str(bundle), *manifest["requirements"]]
    pip = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if pip.returncode:
        lines = (pip.stderr or pip.stdout).splitlines()
        why = " ".join([line for line in lines if line.startswith("ERROR")] or lines[-1:])
        raise SubmitError("not_installed", f"{expected}, got {machine}, where pip fails ({why}); {advice}")
    say(f"installed: {', '.join(manifest['requirements'])}")


def catch_signals() -> list[int]:
    """From here on only note a signal that would end us; return the list that it is noted in.

    The engine is ended and its submission checked, and neither may be broken off in the middle.
    """
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stops.append(number))
    return stops


def supervise(
    command: list[str], *, environment: dict[str, str], folder: Path, deadline_s: float, stops: Sequence[int] = ()
) -> tuple[str, str]:
    """Run the engine, start it again when it dies, and return its verdict and why, where it is "failed".

    The engine gets the time left as its budget, resumes what an earlier start of it did, and is ended when `stops`
    holds a signal. deadline_s: on the clock of time.monotonic.
    """
    for start in range(1, STARTS + 1):
        left_s = max(deadline_s - time.monotonic(), 0.0)
        if start > 1 and not left_s:
            return "failed", "it died, and no time is left"
        budgeted = [*command, "--budget-s", f"{left_s:.1f}"]
        try:
            code = run_engine(budgeted, environment=environment, folder=folder, limit_s=left_s + GRACE_S, stops=stops)
        except OSError as error:  # no memory for another process, say
            how = str(error)
        else:
            if code in VERDICTS:
                return VERDICTS[code], ""
            if code is None and not stops:
                return "failed", f"stopped {GRACE_S:.0f} s after its budget"
            how = signal.Signals(-code).name if code and -code in set(signal.Signals) else f"exit code {code}"
        if stops:
            return "failed", f"stopped by {signal.Signals(stops[0]).name}"
        say(f"the engine died: {how}, start {start} of {STARTS}")
    return "failed", f"it died {STARTS} times"


def run_engine(
    command: list[str], *, environment: dict[str, str], folder: Path, limit_s: float, stops: Sequence[int]
) -> int | None:
    """Run the engine in a process group of its own, so that nothing of it is left; None if it had to be killed."""
    end_s = time.monotonic() + limit_s
    engine = subprocess.Popen(command, env=environment, cwd=folder, process_group=0)
    try:
        while not stops and time.monotonic() < end_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return engine.wait(POLL_S)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot even be killed
            engine.wait(REAP_S)


# --- the submission ----------------------------------------------------------------------------------------------


def check_submission(path: Path, ids: list[str]) -> list[str]:
    """Check that the zip opens, is undamaged, and holds one TIFF for every id and nothing else."""
    if not path.is_file():
        return [f"{path}: expected a submission with {len(ids)} masks, got no such file"]
    expected = {f"{name}.tif" for name in ids}
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
            heads = {name: archive.open(name).read(4) for name in set(names)} if damaged is None else {}
    except Exception as error:  # a damaged zip makes zipfile raise BadZipFile, zlib.error, EOFError, struct.error, ...
        return [f"{path}: expected {len(ids)} masks, got no readable zip ({type(error).__name__}: {error})"]
    if damaged is not None:
        return [f"{path}: expected {len(ids)} masks, got {damaged!r} damaged"]
    findings = [f"{path}: expected a mask for every id, got no {name!r}" for name in sorted(expected - set(names))]
    findings += [f"{path}: expected only ids of test.csv, got {name!r}" for name in sorted(set(names) - expected)]
    findings += [
        f"{path}: expected one mask each, got {name!r} twice" for name in sorted(heads) if names.count(name) > 1
    ]
    for name in sorted(expected & set(heads)):
        if heads[name] not in TIFF_MAGICS:
            findings.append(f"{path}: {name!r}: expected a TIFF, got {heads[name]!r} at its start")
    return findings


# --- the command -------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a line at once: Kaggle's log must have it when the run is ended from outside.

    A log that takes no more must not end the run: from then on nothing is printed, by the engine neither.
    """
    try:
        print(line, flush=True)
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def shown(value: object) -> str:
    """Return a value of a stranger's file for a message: short, and on one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, a list too deep
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def print_findings(findings: list[str]) -> None:
    """Print one line a finding."""
    for finding in findings:
        say(f"finding: {finding}")


def refuse(result: Result, verdict: str, error: Exception) -> None:
    """Print why nothing came of a run, and note it in `result`."""
    result.verdict, result.files = verdict, {}
    result.reason = error.reason if isinstance(error, SubmitError) else "unforeseen"
    result.message = str(error) if isinstance(error, SubmitError | OSError) else f"{type(error).__name__}: {error}"
    say(f"error: {result.message}")
    say(f"verdict: {verdict}")


def verify(bundle: Path) -> int:
    """Print what is wrong with a bundle; 0 if nothing is."""
    result = Result(program="verify", verdict="verified", findings=check_bundle(bundle))
    print_findings(result.findings)
    if result.findings:
        result.verdict, result.reason = "refused", "bundle_damaged"
    else:
        result.manifest_sha256 = sha256(bundle / "manifest.json")
        say(f"bundle verified: {bundle}, manifest sha256 {result.manifest_sha256}")
    say(result.line())
    return 1 if result.findings else 0


def places(parser: argparse.ArgumentParser, budget_s: float) -> None:
    """Add the options for folders and time budget to a parser."""
    parser.add_argument("--input", type=Path, default=INPUT, help="where the inputs are mounted")
    parser.add_argument("--working", type=Path, default=WORKING, help="where the output goes")
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="where everything else goes")
    parser.add_argument("--budget-s", type=float, default=budget_s, help="time budget in seconds")


def parse(parser: argparse.ArgumentParser, words: list[str] | None) -> argparse.Namespace:
    """Parse a command line; its folders become absolute."""
    arguments = parser.parse_args(words)
    for name in ("input", "working", "scratch"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    return arguments


def main() -> int:
    """Read the command line and do what it says; returns the exit code."""
    started_s = time.monotonic()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold any bytes
    # A termination must pass through `finally`, or pip would continue alone. For the engine see `catch_signals`.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description="From a mounted bundle to submission.zip, offline.")
    places(parser, BUDGET_S)
    parser.add_argument("--verify", type=Path, metavar="BUNDLE", help="only check this bundle against its manifest")
    arguments = parse(parser, [] if "ipykernel" in sys.modules else None)  # a notebook's arguments are not ours
    if arguments.verify:
        return verify(arguments.verify)
    result = Result(program="submit", verdict="no submission")
    try:
        run(arguments, started_s, result)
    except (SubmitError, OSError) as error:
        refuse(result, "no submission", error)
    say(result.line())
    return 0 if result.files else 1


if __name__ == "__main__":
    exit_code = main()
    if exit_code:
        sys.exit(exit_code)

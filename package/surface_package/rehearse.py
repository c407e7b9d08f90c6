"""The rehearsal: submit.py exactly as pushed, in a tree like Kaggle's, offline and with only Kaggle's packages.

It runs twice. First with the competition's data, mounted in the nested way:

    /kaggle/input/datasets/<owner>/<slug>   /kaggle/input/competitions/<slug>

then, in the flat way, with one small volume made for it, from the same bundle through the same steps:

    /kaggle/input/<slug>                    /kaggle/input/<slug>
"""

import datetime
import json
import logging
import platform
import shutil
import tempfile
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from surface_kernel import volume
from surface_package import enclosure, image, manifest
from surface_package.stage import AUDIT_HOOK, NAMESPACES, Stage, check_masks

COMPETITION = "vesuvius-challenge-surface-detection"
SUBMISSION = "submission.zip"
REPORTS = ["run_report.json", "run_report.txt"]
SMALL_SHAPE_ZYX = (40, 48, 56)
log = logging.getLogger("surface_package")


class RehearsalError(ValueError):
    """A rehearsal that cannot begin; the message says what was found and what was wanted."""


@dataclass(frozen=True)
class Outcome:
    """What the run with the competition's data took, and what was found in both.

    wall_s: from submit.py's start to its end. peak_bytes: the largest memory of its process tree. volumes: how many
    masks it made.
    """

    wall_s: float
    peak_bytes: int
    volumes: int
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Record(Outcome):
    """A rehearsal, kept as BUNDLE.rehearsed.json. manifest_sha256: of which bundle. passed: nothing was found."""

    manifest_sha256: str
    passed: bool
    date: str
    isolation: str
    python: str

    def write(self, path: Path) -> None:
        """Write the record so that it appears complete or not at all."""
        _write(path, (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode())


def record_path(bundle: Path) -> Path:
    """Return where a bundle's record lies: beside it."""
    whole = bundle.resolve()
    return whole.with_name(whole.name + ".rehearsed.json")


def rehearse(bundle: Path, data: Path, out: Path | None = None, isolation: str | None = None) -> Record:
    """Run a bundle on a competition folder as Kaggle would, write its record beside it and return it.

    out: a folder for submission.zip (of a passed rehearsal only) and the run's report. isolation: NAMESPACES where
    the machine allows them, else AUDIT_HOOK. Raises RehearsalError, ManifestError, ImageError where it cannot begin.
    """
    if not (data / "test.csv").is_file() or not (data / "test_images").is_dir():
        raise RehearsalError(f"{data}: found no test.csv and test_images/, wanted a competition folder; see --data")
    digest = manifest.digest(bundle)
    isolation = isolation or (NAMESPACES if enclosure.possible() else AUDIT_HOOK)
    python = platform.python_version()
    log.info("rehearsing %s with Python %s, isolation: %s", bundle, python, isolation)
    if missing := image.absent():
        log.info("preinstalled on Kaggle, but not installed here: %s", ", ".join(missing))
    record_path(bundle).unlink(missing_ok=True)  # it tells of an earlier rehearsal, and this one may be interrupted
    whole, lines = manifest.verify(bundle)
    if whole:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            outcome = _both_runs(Path(folder).resolve(), bundle, data.resolve(), isolation, out)
    else:
        outcome = Outcome(0.0, 0, 0, tuple(lines))
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = Record(
        manifest_sha256=digest,
        passed=not outcome.findings,
        date=date,
        isolation=isolation,
        python=python,
        **asdict(outcome),
    )
    record.write(record_path(bundle))
    return record


def _both_runs(folder: Path, bundle: Path, data: Path, isolation: str, out: Path | None) -> Outcome:
    delivered = folder / "delivered"
    shutil.copytree(bundle, delivered, ignore=shutil.ignore_patterns("dataset-metadata.json"))
    small = make_small_competition(folder / "small")
    nested = {"datasets/owner/surface-bundle": delivered, f"competitions/{COMPETITION}": data}
    flat = {"surface-bundle": delivered, COMPETITION: small}

    first = Stage(folder / "nested", nested, isolation)
    outcome = _run(first, data, "with the data, below input/datasets and input/competitions")
    outcome = replace(outcome, findings=(*outcome.findings, *_uniform(first.working)))
    if not outcome.findings:
        second = _run(Stage(folder / "flat", flat, isolation), small, "with a small volume, flat below input")
        outcome = replace(outcome, findings=second.findings)
    if out is not None:
        _keep(first.working, out, passed=not outcome.findings)
    return outcome


def _run(stage: Stage, competition: Path, how: str) -> Outcome:
    log.info("a run %s", how)
    run = stage.run()
    findings = list(run.findings)
    masks = 0
    if run.exit_code == 0:  # submit.py vouches for the zip, not for what is in the masks
        with zipfile.ZipFile(stage.working / SUBMISSION) as archive:
            masks = len(archive.namelist())
        findings += check_masks(stage.working / SUBMISSION, competition)
    log.info("took %.1f s, %.0f MB at most", run.wall_s, run.peak_bytes / 1e6)
    return Outcome(round(run.wall_s, 3), run.peak_bytes, masks, tuple(f"{finding} ({how})" for finding in findings))


def _uniform(working: Path) -> list[str]:
    """Return a finding for every volume whose prediction says nothing, as the engine's own report warns of it."""
    report = working / REPORTS[0]
    told = json.loads(report.read_bytes()) if report.is_file() else {}
    volumes = told.get("volumes", []) if isinstance(told, dict) else []
    return [
        f"volume {volume['case']}: {volume['warning']}, wanted a prediction; run `surface_train audit` on the weights"
        for volume in volumes
        if volume["warning"]
    ]


def make_small_competition(folder: Path) -> Path:
    """Make a competition folder with one test volume of noise, smaller than most tiles and not a cube."""
    noise = np.random.default_rng(0).normal(90, 25, SMALL_SHAPE_ZYX).clip(0, 255).astype(np.uint8)
    (folder / "test_images").mkdir(parents=True)
    volume.write_lzw(folder / "test_images" / "1.tif", noise)
    (folder / "test.csv").write_text("id,scroll_id\n1,1\n")
    return folder


def _keep(working: Path, out: Path, passed: bool) -> None:
    """Leave what the run made in `out`; no zip of a rehearsal that failed, nor one from an earlier."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SUBMISSION).unlink(missing_ok=True)
    names = [*REPORTS, SUBMISSION] if passed else REPORTS
    for name in names:
        if (working / name).is_file():
            _write(out / name, (working / name).read_bytes())


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)

"""python -m surface_package init | build | verify | rehearse | publish | paperwork."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.inference.settings import SettingsError
from surface_kernel.interrupts import status_of, terminable
from surface_kernel.networks.weights import WeightsError
from surface_kernel.page import leave_page
from surface_kernel.volumes.header import VolumeError
from surface_package import paperwork
from surface_package.build import bundle, manifest
from surface_package.build.bundle import BundleError, BundleRequest
from surface_package.build.manifest import ManifestError
from surface_package.build.sources import SourceError
from surface_package.build.wheels import WheelError
from surface_package.kaggle import init, notebook, publish
from surface_package.kaggle.init import InitError
from surface_package.rehearsal import rehearse
from surface_package.rehearsal.image import ImageError
from surface_package.rehearsal.pythons import PythonError
from surface_package.rehearsal.rehearsal_record import record_path
from surface_package.rehearsal.rehearse import Rehearsal, RehearsalError
from surface_package.rehearsal.sandbox import SUBMISSION
from surface_package.target import DATASET_FILE, TargetError

_EXPECTED = (
    BundleError,
    ImageError,
    InitError,
    ManifestError,
    PythonError,
    RehearsalError,
    SettingsError,
    SourceError,
    TargetError,
    VolumeError,
    WeightsError,
    WheelError,
    OSError,
)
log = logging.getLogger("surface_package")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 0 if all went well."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries log what they do at this level too
    arguments = _parser().parse_args(words)
    try:
        with terminable():
            return int(arguments.run(arguments))
    except _EXPECTED as error:
        log.error("error: %s", " ".join(str(error).split()))
        return 1
    except KeyboardInterrupt as interrupt:
        log.error("interrupted")
        return status_of(interrupt)


def _build(arguments: argparse.Namespace) -> int:
    made = bundle.build(
        BundleRequest(
            weights=arguments.weights,
            settings=arguments.settings,
            out=arguments.out,
            wheels=arguments.wheels,
            offline=arguments.offline,
            half=arguments.half,
            uncommitted=arguments.uncommitted,
        )
    )
    contents = manifest.read(made)
    for name, entry in sorted(contents["files"].items()):
        log.info("%12d bytes  %s", entry["bytes"], name)
    total = sum(entry["bytes"] for entry in contents["files"].values())
    log.info("%12d bytes in %d files, commit %s", total, len(contents["files"]), contents["commit"] or "none")
    if not (made / DATASET_FILE).is_file():
        log.info("no %s: set an owner with `surface_package init`", DATASET_FILE)
    if arguments.notebook:
        log.info("notebook: %s", notebook.write(manifest.submit_script(), made.with_name(f"{made.name}.ipynb")))
    log.info("built %s, manifest sha256 %s", made, manifest.digest(made))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    findings = manifest.verify(arguments.bundle)
    for finding in findings:
        log.info("finding: %s", finding)
    if not findings:
        log.info("bundle verified: %s, manifest sha256 %s", arguments.bundle, manifest.digest(arguments.bundle))
    return 1 if findings else 0


def _rehearse(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="rehearsed-") as scratch:
        out = arguments.out or Path(scratch)  # the page needs what the run made even where nobody else does
        record = rehearse.rehearse(
            Rehearsal(
                bundle=arguments.bundle,
                data=arguments.data,
                out=out,
                others=arguments.python,
                full=arguments.full,
            )
        )
        said = _leave_page(arguments.bundle, data=arguments.data, submission=out / SUBMISSION)
    for finding in record.findings:
        log.info("finding: %s", finding)
    share = f", {record.wall_s / record.volumes:.1f} s each" if record.volumes else ""
    log.info("%d volumes in %.1f s%s; at most %.0f MB", record.volumes, record.wall_s, share, record.peak_bytes / 1e6)
    log.info("Python %s, isolation: %s", record.python, record.isolation)
    others = f" ({', '.join(record.pythons)})" if record.pythons else ""
    log.info("installed on %d other Pythons%s; %d other mounts tried", len(record.pythons), others, len(record.faults))
    log.info("rehearsal %s: %s", "passed" if record.passed else "failed", record_path(arguments.bundle))
    if said:
        log.info("%s", said)
    return 0 if record.passed else 1


def _leave_page(bundle: Path, *, data: Path, submission: Path) -> str:
    """Leave a page beside the rehearsal's record, of a passed one only. Return a line for the log, or nothing."""
    out = record_path(bundle).with_suffix(".html")
    out.unlink(missing_ok=True)  # of an earlier rehearsal
    return leave_page(out, submission=submission, images=data / "test_images") if submission.is_file() else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_package", description="From weights to a submission on Kaggle.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, help_text, add_arguments, run in (
        ("init", "set owner and slugs in kernel-metadata.json", init.add_arguments, init.run),
        ("build", "make a bundle", _add_build, _build),
        ("verify", "check a bundle against its manifest", _add_verify, _verify),
        ("rehearse", "run a bundle as Kaggle would", _add_rehearse, _rehearse),
        ("publish", "bring a rehearsed bundle to Kaggle", publish.add_arguments, publish.run),
        ("paperwork", "write what Kaggle asks of a winner beside the code", paperwork.add_arguments, paperwork.run),
    ):
        command = commands.add_parser(name, help=help_text)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


def _add_build(parser: argparse.ArgumentParser) -> None:
    weights_help = "the ensemble's members: weights files or run folders"
    parser.add_argument("--weights", type=Path, nargs="+", required=True, metavar="FILE", help=weights_help)
    settings_help = "views or stages, and post-processing (docs/inference.md)"
    parser.add_argument("--settings", "--config", type=Path, metavar="FILE.toml", help=settings_help)
    out_help = "the folder to make; a bundle there is replaced"
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help=out_help)
    wheels_help = "cache of the pinned wheels; missing ones are fetched to it"
    parser.add_argument("--wheels", type=Path, metavar="DIR", help=wheels_help)
    parser.add_argument("--offline", action="store_true", help="fail instead of fetching a wheel")
    half_help = "write weights in float16, and report what that changes on this volume"
    parser.add_argument("--half", type=Path, metavar="VOLUME.tif", help=half_help)
    uncommitted_help = "allow uncommitted changes; the manifest then names no commit"
    parser.add_argument("--uncommitted", action="store_true", help=uncommitted_help)
    parser.add_argument("--notebook", action="store_true", help="also write submit.py as a notebook, BUNDLE.ipynb")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")


def _add_rehearse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--data", "--data_dir", type=Path, required=True, metavar="DIR", help="a competition folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where submission.zip and run_report.* go")
    python_help = "another Python to try the bundle's installation on; may be repeated"
    parser.add_argument("--python", type=Path, action="append", default=[], metavar="PATH", help=python_help)
    full_help = "run inference for every supported mount layout, not just one"
    parser.add_argument("--full", action="store_true", help=full_help)


if __name__ == "__main__":
    sys.exit(main())

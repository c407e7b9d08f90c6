"""python -m surface_package build | verify | rehearse | publish."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.settings import SettingsError
from surface_kernel.weights import WeightsError
from surface_package import bundle, manifest, publish, rehearse
from surface_package.bundle import BundleError
from surface_package.image import ImageError
from surface_package.manifest import ManifestError
from surface_package.rehearse import RehearsalError
from surface_package.wheels import WheelError

_MEANT = (BundleError, ImageError, ManifestError, RehearsalError, SettingsError, WeightsError, WheelError, OSError)
log = logging.getLogger("surface_package")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 0 if all is well."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries tell what they do at this level too
    arguments = _parser().parse_args(words)
    try:
        return int(arguments.run(arguments))
    except _MEANT as error:
        log.error("error: %s", " ".join(str(error).split()))
        return 1


def _build(arguments: argparse.Namespace) -> int:
    made = bundle.build(arguments.weights, arguments.settings, arguments.out, arguments.wheels, arguments.offline)
    contents = manifest.read(made)
    for name, entry in sorted(contents["files"].items()):
        log.info("%12d bytes  %s", entry["bytes"], name)
    total = sum(entry["bytes"] for entry in contents["files"].values())
    log.info("%12d bytes in %d files, commit %s", total, len(contents["files"]), contents["commit"] or "none")
    log.info("built %s, manifest sha256 %s", made, manifest.digest(made))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    whole, lines = manifest.verify(arguments.bundle)
    for line in lines:
        log.info("%s", line)
    return 0 if whole else 1


def _rehearse(arguments: argparse.Namespace) -> int:
    record = rehearse.rehearse(arguments.bundle, arguments.data, arguments.out)
    for finding in record.findings:
        log.info("finding: %s", finding)
    share = f", {record.wall_s / record.volumes:.1f} s each" if record.volumes else ""
    log.info("%d volumes in %.1f s%s; %.0f MB at most", record.volumes, record.wall_s, share, record.peak_bytes / 1e6)
    log.info("Python %s, isolation: %s", record.python, record.isolation)
    log.info("rehearsal %s: %s", "passed" if record.passed else "failed", rehearse.record_path(arguments.bundle))
    return 0 if record.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_package", description="From weights to a submission on Kaggle.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="make a bundle")
    build.add_argument("--weights", type=Path, nargs="+", required=True, metavar="FILE", help="the members, in order")
    build.add_argument("--settings", "--config", type=Path, metavar="FILE.toml", help="views, threshold, dust")
    build.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the folder to make")
    build.add_argument("--wheels", type=Path, metavar="DIR", help="where pinned wheels lie or are fetched to")
    build.add_argument("--offline", action="store_true", help="fail rather than fetch a wheel")
    build.set_defaults(run=_build)

    verify = commands.add_parser("verify", help="check a bundle against its manifest")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.set_defaults(run=_verify)

    rehearsal = commands.add_parser("rehearse", help="run a bundle as Kaggle would")
    rehearsal.add_argument("bundle", type=Path, metavar="BUNDLE")
    rehearsal.add_argument("--data", "--data_dir", type=Path, required=True, metavar="DIR", help="a competition folder")
    rehearsal.add_argument("--out", type=Path, metavar="DIR", help="where to leave submission.zip and run_report.*")
    rehearsal.set_defaults(run=_rehearse)

    publishing = commands.add_parser("publish", help="bring a rehearsed bundle to Kaggle")
    publish.add_arguments(publishing)
    publishing.set_defaults(run=publish.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())

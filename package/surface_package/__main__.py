"""python -m surface_package init | build | verify | rehearse | publish | paperwork."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.inference.settings import SettingsError
from surface_kernel.networks.weights import WeightsError
from surface_kernel.volumes.header import VolumeError
from surface_package import paperwork
from surface_package.build import bundle, manifest
from surface_package.build.bundle import BundleError
from surface_package.build.manifest import ManifestError
from surface_package.build.sources import SourceError
from surface_package.build.wheels import WheelError
from surface_package.kaggle import init, notebook, publish
from surface_package.kaggle.init import InitError
from surface_package.rehearsal import rehearse
from surface_package.rehearsal.image import ImageError
from surface_package.rehearsal.pythons import PythonError
from surface_package.rehearsal.rehearse import RehearsalError
from surface_package.target import DATASET_FILE, TargetError

_MEANT = (
    *(BundleError, ImageError, InitError, ManifestError, PythonError, RehearsalError, SettingsError, SourceError),
    *(TargetError, VolumeError, WeightsError, WheelError, OSError),
)
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
    made = bundle.build(
        *(arguments.weights, arguments.settings, arguments.out, arguments.wheels),
        *(arguments.offline, arguments.half, arguments.uncommitted),
    )
    contents = manifest.read(made)
    for name, entry in sorted(contents["files"].items()):
        log.info("%12d bytes  %s", entry["bytes"], name)
    total = sum(entry["bytes"] for entry in contents["files"].values())
    log.info("%12d bytes in %d files, commit %s", total, len(contents["files"]), contents["commit"] or "none")
    if not (made / DATASET_FILE).is_file():
        log.info("no %s: nobody owns it yet, see `surface_package init`", DATASET_FILE)
    if arguments.notebook:
        log.info("notebook: %s", notebook.write(manifest.submit_script(), made.with_name(f"{made.name}.ipynb")))
    log.info("built %s, manifest sha256 %s", made, manifest.digest(made))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    whole, lines = manifest.verify(arguments.bundle)
    for line in lines:
        log.info("%s", line)
    return 0 if whole else 1


def _rehearse(arguments: argparse.Namespace) -> int:
    record = rehearse.rehearse(
        arguments.bundle, arguments.data, arguments.out, others=arguments.python, full=arguments.full
    )
    for finding in record.findings:
        log.info("finding: %s", finding)
    share = f", {record.wall_s / record.volumes:.1f} s each" if record.volumes else ""
    log.info("%d volumes in %.1f s%s; %.0f MB at most", record.volumes, record.wall_s, share, record.peak_bytes / 1e6)
    log.info("Python %s, isolation: %s", record.python, record.isolation)
    others = f" ({', '.join(record.pythons)})" if record.pythons else ""
    log.info("installed on %d other Pythons%s; %d other mounts tried", len(record.pythons), others, len(record.faults))
    log.info("rehearsal %s: %s", "passed" if record.passed else "failed", rehearse.record_path(arguments.bundle))
    return 0 if record.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_package", description="From weights to a submission on Kaggle.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    naming = commands.add_parser("init", help="set owner and slugs in kernel-metadata.json")
    init.add_arguments(naming)
    naming.set_defaults(run=init.run)

    build = commands.add_parser("build", help="make a bundle")
    build.add_argument(
        "--weights", type=Path, nargs="+", required=True, metavar="FILE", help="the members, in order, or their runs"
    )
    build.add_argument(
        "--settings",
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="views and post-processing; default: the kernel's",
    )
    build.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the folder to make")
    build.add_argument("--wheels", type=Path, metavar="DIR", help="where pinned wheels lie or are fetched to")
    build.add_argument("--offline", action="store_true", help="fail rather than fetch a wheel")
    half_help = "write weights in float16, and tell what that changes on this volume"
    build.add_argument("--half", type=Path, metavar="VOLUME.tif", help=half_help)
    build.add_argument("--uncommitted", action="store_true", help="take changed code as it is, and name no commit")
    build.add_argument("--notebook", action="store_true", help="also write submit.py as a notebook, BUNDLE.ipynb")
    build.set_defaults(run=_build)

    verify = commands.add_parser("verify", help="check a bundle against its manifest")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.set_defaults(run=_verify)

    rehearsal = commands.add_parser("rehearse", help="run a bundle as Kaggle would")
    rehearsal.add_argument("bundle", type=Path, metavar="BUNDLE")
    rehearsal.add_argument("--data", "--data_dir", type=Path, required=True, metavar="DIR", help="a competition folder")
    rehearsal.add_argument("--out", type=Path, metavar="DIR", help="where to leave submission.zip and run_report.*")
    python_help = "another Python to install the bundle on; may be given more than once"
    rehearsal.add_argument("--python", type=Path, action="append", default=[], metavar="PATH", help=python_help)
    rehearsal.add_argument("--full", action="store_true", help="predict in every good way of mounting, not in one")
    rehearsal.set_defaults(run=_rehearse)

    publishing = commands.add_parser("publish", help="bring a rehearsed bundle to Kaggle")
    publish.add_arguments(publishing)
    publishing.set_defaults(run=publish.run)

    papers = commands.add_parser("paperwork", help="write what Kaggle asks of a winner beside the code")
    paperwork.add_arguments(papers)
    papers.set_defaults(run=paperwork.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())

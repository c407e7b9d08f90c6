"""`python -m surface_package publish` for runs instead of a bundle: its options, and what it would do."""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from surface_package.build import manifest
from surface_package.kaggle import checkpoints, upload
from surface_package.kaggle.delivery import DeliveryError, Polling
from surface_package.kaggle.training import sessions, training_bundle
from surface_package.kaggle.training.job import TrainingJob
from surface_package.kaggle.waiting import say


def show_plan(job: TrainingJob) -> None:
    """Print every command and file of a training; nothing is asked of Kaggle, and only a temporary bundle is made."""
    target = checkpoints.target_of(job.run, job.root)
    step = job.progress().step
    say(f"Dry run: nothing is asked of Kaggle. {job.run} is at step {step}. Until the run is finished:")
    if step:
        upload.show_plan(target, checkpoints.files(job.run), f"step {step}")
    with tempfile.TemporaryDirectory(prefix="surface-training-") as temporary:
        files = training_bundle.make(Path(temporary), settings=job.settings, fold=job.fold, root=job.root)
        code = replace(target, dataset=sessions.code_dataset(target))
        upload.show_plan(code, files, sessions.version_words(files))
    say(f"  STAGED/kernel-metadata.json: {json.dumps(sessions.kernel_metadata(target, step))}")
    say(f"  STAGED/{sessions.CODE_FILE}: {len(training_bundle.script(job.root, step))} bytes")
    upload.show(target.push_kernel(Path("STAGED")))
    upload.show(target.ask_kernel(), "until COMPLETE")
    upload.show(target.fetch_output(job.beside(".output")), f"then moved into {job.run}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m surface_package publish` for runs instead of a bundle."""
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--checkpoints", type=Path, metavar="RUN", help="upload a run folder instead of a bundle")
    way.add_argument("--training", type=Path, metavar="FILE.toml", help="train on Kaggle, with these settings")
    parser.add_argument(
        "--fold", metavar="K|all", help="validation fold for --training, or 'all' to train on every case"
    )


def run(arguments: argparse.Namespace) -> None:
    """Bring a run to Kaggle, or train there, or show how. Raises what those raise."""
    if arguments.bundle or arguments.public or arguments.submit:
        raise DeliveryError("A run is published alone and privately: give no BUNDLE, --public or --submit with it.")
    if bool(arguments.training) != bool(arguments.fold):
        raise DeliveryError("--training FILE.toml and --fold K belong together: give both, K a fold's number or all.")
    polling = Polling(timeout_s=arguments.timeout_s)
    if arguments.training:
        job = TrainingJob(settings=arguments.training, fold=arguments.fold, polling=polling)
        (show_plan if arguments.dry_run else sessions.train)(job)
    elif arguments.dry_run:
        checkpoints.show_plan(arguments.checkpoints, manifest.ROOT)
    else:
        checkpoints.publish(arguments.checkpoints, manifest.ROOT, polling)

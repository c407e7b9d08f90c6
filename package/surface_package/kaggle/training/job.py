"""What to train on Kaggle, where it is kept here, and what has been done of it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from surface_kernel import disk
from surface_package.build import manifest
from surface_package.kaggle import checkpoints
from surface_package.kaggle.checkpoints import STATE, RunProgress
from surface_package.kaggle.delivery import Polling
from surface_package.kaggle.upload import SentDataset

SESSION = Polling(timeout_s=14 * 3600, poll_s=120)  # twelve hours, and some in Kaggle's queue


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train, and how patiently; the run comes to RUNS/SETTINGS/fold_K, as `fit` names it."""

    settings: Path
    """The TOML file that `fit` takes."""
    fold: str
    """The validation fold, or "all"."""
    runs: Path = Path("runs")
    """The folder of all runs."""
    root: Path = manifest.ROOT
    """The clone."""
    polling: Polling = field(default_factory=Polling)
    """For every step but the session."""
    session: Polling = SESSION
    """For the session."""

    @property
    def run(self) -> Path:
        """The run's folder; there is none before the first session came back."""
        return self.runs / self.settings.stem / f"fold_{self.fold}"

    def beside(self, ending: str) -> Path:
        """Return the path of what belongs to the run but is not in it."""
        return self.run.with_name(self.run.name + ending)

    def progress(self) -> RunProgress:
        """Return how far the run is here."""
        return checkpoints.progress(self.run) if (self.run / STATE).is_file() else RunProgress(0, False)


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What has been done, kept as RUN.training.json."""

    bundle: SentDataset = field(default_factory=SentDataset)
    """The dataset of code and settings."""
    kernel_version: int | None = None
    """Kaggle's number of the session that is on its way; None where none is."""
    manifest_sha256: str = ""
    """Of the code that it was given."""
    after_step: int = 0
    """Of the run that it was given."""

    @classmethod
    def read(cls, job: TrainingJob) -> "TrainingRecord":
        """Return the training's record; a fresh one where there is none."""
        try:
            kept = json.loads(job.beside(".training.json").read_bytes())
            return cls(**kept | {"bundle": SentDataset(**kept["bundle"])})
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, job: TrainingJob) -> "TrainingRecord":
        """Keep the record, complete or not at all."""
        path = job.beside(".training.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.put(path, (json.dumps(asdict(self), indent=2) + "\n").encode())
        return self

"""What is compared with what, at which size: the one place of the study's settings."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from surface_train.loss_weights import Preset

Label2 = Literal["ignored", "surface"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
CONVENTIONS: tuple[Label2, ...] = get_args(Label2)

# The share of labels 1 and 2 in the guide's data, its standard deviation over volumes, and the share of label 1 alone.
REFERENCE_BOTH, REFERENCE_BOTH_STD, REFERENCE_SURFACE = 0.577, 0.196, 0.053


@dataclass(frozen=True)
class Arm:
    """One training: a loss, a convention for label 2, a seed. The seed fixes the initial weights and every batch."""

    preset: Preset
    label_2: Label2
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the arm's folder."""
        return f"{self.preset}-{self.label_2}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Sizes. All trainings of a plan have the same budget, and those of one seed see the same batches."""

    volumes: int = 16
    """Training phantoms."""
    unseen: int = 4
    """Test phantoms."""
    size_zyx: tuple[int, int, int] = (128, 144, 144)
    """Of both, approximately, in voxels."""
    data_seed: int = 11
    big: int = 320
    """Side of one more test phantom, in voxels, for comparing ways of inference."""
    big_tile: int = 128
    """Side of the tiles it is predicted in, with an overlap of a quarter."""
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    steps_per_epoch: int = 16
    batch: int = 2
    patch: int = 64
    """Side of the training patches, in voxels."""
    decoder: str = "Unet"
    encoder: str = "resnet18"

    def arms(self) -> list[Arm]:
        """Return the trainings, seed by seed, so that an interrupted study is complete for its first seeds."""
        return [Arm(preset, label_2, seed) for seed in self.seeds for label_2 in CONVENTIONS for preset in PRESETS]

    def read_arms(self) -> list[Arm]:
        """Return the trainings whose networks are run in several ways of inference: those of the first seed."""
        return [arm for arm in self.arms() if arm.seed == self.seeds[0]]

    @property
    def digest(self) -> str:
        """Return a sha256 of all settings but the seeds: results of another plan are not reused."""
        entries = asdict(self)
        del entries["seeds"]
        return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()

    def settings_toml(self, arm: Arm) -> str:
        """Return the settings file of one training.

        Averaging begins with the last epoch: it takes the last state and recomputes the statistics of BatchNorm.
        """
        return f"""\
# One training of the study of the losses: {arm.name}.

epochs = {self.epochs}
steps_per_epoch = {self.steps_per_epoch}
seed = {arm.seed}
folds = "case"
overlap = 0.25
label_2 = "{arm.label_2}"

[network]
decoder = "{self.decoder}"
encoder = "{self.encoder}"

[patches]
shape_zyx = [{self.patch}, {self.patch}, {self.patch}]
batch = {self.batch}
resident = {self.volumes}
workers = 1

[loss]
preset = "{arm.preset}"

[optimiser]
learning_rate = 1e-3
warmup_steps = {self.steps_per_epoch}

[average]
start_epoch = {self.epochs}
learning_rate = 2e-4
batchnorm_steps = {self.steps_per_epoch // 2 or 1}
"""


FULL = StudyPlan()
QUICK = StudyPlan(
    volumes=4,
    unseen=1,
    size_zyx=(64, 64, 64),
    big=80,
    big_tile=32,
    seeds=(0,),
    epochs=2,
    steps_per_epoch=1,
    patch=32,
    decoder="Linknet",
    encoder="efficientnet-b0",
)

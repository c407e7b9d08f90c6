"""What is compared with what, at which size: the one place of the study's numbers."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from surface_train.loss_weights import Preset

Label2 = Literal["ignored", "surface"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
CONVENTIONS: tuple[Label2, ...] = get_args(Label2)

# The shares of labels 1 and 2 in the guide's data, their spread over volumes, and the share of label 1 alone.
REFERENCE_BOTH, REFERENCE_BOTH_SPREAD, REFERENCE_SURFACE = 0.577, 0.196, 0.053


@dataclass(frozen=True)
class Arm:
    """One training: a loss, a reading of label 2, a seed. The seed fixes the first weights and every batch."""

    preset: Preset
    label_2: Label2
    seed: int

    @property
    def name(self) -> str:
        """Give the name of the arm's folder."""
        return f"{self.preset}-{self.label_2}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Sizes. All trainings of a plan have the same budget, and those of one seed see the same batches.

    volumes, unseen: phantoms to learn from and to be judged on, of about `size_zyx` voxels. big: the side of one more,
    which is read in `big_tile` voxels at a time, a quarter of which neighbours share. An epoch is a line of log.csv.
    """

    volumes: int = 16
    unseen: int = 4
    size_zyx: tuple[int, int, int] = (128, 144, 144)
    data_seed: int = 11
    big: int = 320
    big_tile: int = 128
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    steps_per_epoch: int = 16
    batch: int = 2
    patch: int = 64
    decoder: str = "Unet"
    encoder: str = "resnet18"

    def arms(self) -> list[Arm]:
        """Give the trainings, seed by seed: what a study that was cut short has is whole for its first seeds."""
        return [Arm(preset, label_2, seed) for seed in self.seeds for label_2 in CONVENTIONS for preset in PRESETS]

    def read_arms(self) -> list[Arm]:
        """Give the trainings whose networks are read in several ways: those of the first seed."""
        return [arm for arm in self.arms() if arm.seed == self.seeds[0]]

    @property
    def digest(self) -> str:
        """Give a sha256 that changes with any number here but the seeds: results of another plan are not reused."""
        entries = asdict(self)
        del entries["seeds"]
        return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()

    def settings_toml(self, arm: Arm) -> str:
        """Write the settings of one training.

        Averaging begins with the last epoch: it takes the last state and gives BatchNorm its statistics anew.
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


FULL = Plan()
QUICK = Plan(
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

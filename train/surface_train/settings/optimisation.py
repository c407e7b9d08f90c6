"""Settings of the steps: how the weights move, and how they are averaged."""

from dataclasses import dataclass
from typing import Literal

from surface_train.settings.entries import require


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How the weights move."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov's momentum."""

    learning_rate: float = 1e-3
    """Learning rate after the warm-up. The schedule lowers it to average.learning_rate, which averaging keeps."""

    momentum: float = 0.99
    """Momentum of SGD; AdamW has its own."""

    weight_decay: float = 1e-2
    """Weight decay: decoupled in AdamW, an L2 penalty in SGD."""

    schedule: Literal["cosine", "poly", "plateau"] = "cosine"
    """Half a cosine; (1 - progress)^0.9, as nnU-Net; or a tenth after each plateau."""

    plateau_validations: int = 3
    """Validations in a row without a better score that make a plateau."""

    warmup_steps: int = 100
    """Steps at the beginning over which the learning rate rises linearly."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it."""

    accumulate: int = 1
    """Batches whose gradients are averaged into one step."""

    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of the network.

    "auto": on a GPU bfloat16 where it is fast (since Ampere), else float16; on a CPU bfloat16 where it has AMX, else
    float32.
    """

    most_skipped_steps: int = 20
    """Steps in a row that may be skipped because float16 overflowed; each halves the scale of the loss."""

    compile: bool = False
    """Whether the network runs through torch.compile."""

    sync_batchnorm: bool = False
    """Whether BatchNorm takes its statistics over all GPUs of a run instead of each GPU's own."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimiser.learning_rate", expected="a number > 0", got=self.learning_rate)
        require(0 <= self.momentum < 1, "optimiser.momentum", expected="a number >= 0 and < 1", got=self.momentum)
        require(self.weight_decay >= 0, "optimiser.weight_decay", expected="a number >= 0", got=self.weight_decay)
        count = self.plateau_validations
        require(count >= 1, "optimiser.plateau_validations", expected="a number >= 1", got=count)
        require(self.warmup_steps >= 0, "optimiser.warmup_steps", expected="a number >= 0", got=self.warmup_steps)
        require(self.clip_norm > 0, "optimiser.clip_norm", expected="a number > 0", got=self.clip_norm)
        count = self.most_skipped_steps
        require(count >= 0, "optimiser.most_skipped_steps", expected="a number >= 0", got=count)
        require(self.accumulate >= 1, "optimiser.accumulate", expected="a number >= 1", got=self.accumulate)


@dataclass(frozen=True, kw_only=True)
class Average:
    """Averaged weights, from an epoch to the end of the run, at a constant learning rate."""

    kind: Literal["swa", "ema"] = "swa"
    """Plain mean of several states of each epoch, or exponential mean of the states after every step."""

    start_epoch: int = 75
    """First epoch of the average, from 1.

    If validation.patience ends the epochs before it early, averaging begins then and lasts as many epochs as planned.
    """

    samples_per_epoch: int = 1
    """States of each epoch that "swa" averages."""

    learning_rate: float = 2e-4
    """Learning rate while weights are averaged."""

    decay: float = 0.999
    """Share of the mean that "ema" keeps at each step."""

    batchnorm_steps: int = 50
    """Batches on which BatchNorm's statistics are measured again for the averaged weights."""

    gate_margin: float = 0.0
    """How much lower than the best single weights the averaged ones may score in validation and still be shipped."""

    def __post_init__(self) -> None:
        require(self.start_epoch >= 1, "average.start_epoch", expected="an epoch >= 1", got=self.start_epoch)
        count = self.samples_per_epoch
        require(count >= 1, "average.samples_per_epoch", expected="a number >= 1", got=count)
        require(self.learning_rate > 0, "average.learning_rate", expected="a number > 0", got=self.learning_rate)
        require(0 < self.decay < 1, "average.decay", expected="a number > 0 and < 1", got=self.decay)
        count, margin = self.batchnorm_steps, self.gate_margin
        require(count >= 1, "average.batchnorm_steps", expected="a number >= 1", got=count)
        require(0 <= margin < 1, "average.gate_margin", expected="a difference of scores >= 0 and < 1", got=margin)

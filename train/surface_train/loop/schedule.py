"""The learning rate at every step: warm-up, decay, then constant while weights are averaged."""

import math

from surface_train.settings import TrainingSettings

_POLY_POWER = 0.9  # Chen et al. 2017, as nnU-Net has it
_PLATEAU_FACTOR = 0.1


def learning_rate(step: int, settings: TrainingSettings, *, averaging_from: int, drops: int = 0) -> float:
    """Return the learning rate of a step.

    While weights are averaged the rate is constant: averages need weights that keep moving (Izmailov et al. 2018).
    "cosine" and "poly" arrive at that constant at the planned epoch.

    Args:
        step: counted from 0 over the whole run.
        settings: the run's.
        averaging_from: the epoch, counted from 1, in which averaging begins.
        drops: how often a "plateau" was met; each divides the rate by ten, never below the constant.
    """
    optimiser, average = settings.optimiser, settings.average
    warmup = min(1.0, (step + 1) / optimiser.warmup_steps) if optimiser.warmup_steps else 1.0
    if step >= (averaging_from - 1) * settings.steps_per_epoch:
        return warmup * average.learning_rate
    low, high = average.learning_rate, optimiser.learning_rate
    if optimiser.schedule == "plateau":
        return warmup * max(low, high * _PLATEAU_FACTOR**drops)
    progress = step / ((average.start_epoch - 1) * settings.steps_per_epoch)
    left = 0.5 * (1 + math.cos(math.pi * progress)) if optimiser.schedule == "cosine" else (1 - progress) ** _POLY_POWER
    return warmup * (low + (high - low) * left)

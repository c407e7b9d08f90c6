"""The learning rate at every step: warm-up, half a cosine, then constant while weights are averaged."""

import math

from surface_train.settings import Settings


def learning_rate(step: int, settings: Settings) -> float:
    """Give the learning rate of step `step`, counted from 0 over the whole run.

    From the averaging's first epoch on it is constant: averages need weights that keep moving (Izmailov et al. 2018).
    """
    optimiser, average = settings.optimiser, settings.average
    averaging_from = (average.start_epoch - 1) * settings.steps_per_epoch
    warmup = min(1.0, (step + 1) / optimiser.warmup_steps) if optimiser.warmup_steps else 1.0
    if step >= averaging_from:
        return warmup * average.learning_rate
    low, high = min(average.learning_rate, optimiser.learning_rate), optimiser.learning_rate
    return warmup * (low + (high - low) * 0.5 * (1 + math.cos(math.pi * step / averaging_from)))

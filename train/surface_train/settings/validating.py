"""Settings of the checks during a training: validation on whole volumes, and the limits of a sound prediction."""

from dataclasses import dataclass

from surface_kernel.runs.report import LEAST_VARIANCE, UNIFORM_SHARES
from surface_train.settings.entries import require


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Validation on whole volumes, through the kernel's own prediction."""

    every_epochs: int = 5
    """Epochs from one validation to the next; the last epoch is always validated."""

    cases: int = 4
    """Cases of the validation fold that are predicted each time, spread over its scrolls."""

    whole_fold: bool = True
    """Whether the shipped weights are validated on the whole fold once, at the very end."""

    patience: int = 10
    """Validations in a row without a better score, after which averaging begins at once and the run ends with it."""

    def __post_init__(self) -> None:
        require(self.every_epochs >= 1, "validation.every_epochs", expected="a number >= 1", got=self.every_epochs)
        require(self.cases >= 1, "validation.cases", expected="a number >= 1", got=self.cases)
        require(self.patience >= 1, "validation.patience", expected="a number >= 1", got=self.patience)


@dataclass(frozen=True, kw_only=True)
class Sentinel:
    """Limits of a sound prediction: a run that keeps outside them has collapsed, and is stopped."""

    validations: int = 5
    """Validations in a row outside the limits that stop the run."""

    most_foreground: float = UNIFORM_SHARES[1]
    """Largest share of foreground."""

    least_foreground: float = UNIFORM_SHARES[0]
    """Smallest share of foreground."""

    least_variance: float = LEAST_VARIANCE
    """Smallest variance of the probabilities, which is 0.25 at most."""

    def __post_init__(self) -> None:
        require(self.validations >= 1, "sentinel.validations", expected="a number >= 1", got=self.validations)
        least, most = self.least_foreground, self.most_foreground
        if not 0 <= least < most <= 1:
            expected = f"a share from 0 to below most_foreground, {most:g}, which is at most 1"
            require(False, "sentinel.least_foreground", expected=expected, got=least)
        variance = self.least_variance
        require(0 <= variance < 0.25, "sentinel.least_variance", expected="a number >= 0 and < 0.25", got=variance)

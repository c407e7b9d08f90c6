"""What the demo is measured by: a mask that beats a threshold, and a training that added something to its start."""

from dataclasses import asdict, dataclass
from typing import Any

LEAST_LEAD = 0.15  # by how much the mean Dice must beat that of the best grey threshold
LARGEST_FACTOR = 2  # predicted surface lies between the truth's share divided and multiplied by this
LEAST_GAIN = 0.05  # what the training must add to the Dice of the weights that it began with
_AGAIN = "give the training more seconds, as in: PLAN_S=300 scripts/demo.sh"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The demo's means over its test cases, and whether they meet its bar."""

    dice: float
    """Of the submission's masks."""
    start_dice: float | None
    """Of the masks that the weights the training began with make, with the same settings; None: it began with none."""
    threshold_dice: float
    """Of the best single grey threshold, chosen with the labels at hand."""
    predicted_share: float
    """Of the labelled voxels, those that the submission calls surface."""
    truth_share: float
    """Of the labelled voxels, those that are surface."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Return what keeps the bar from being met, each in a sentence that ends with what to do; none: it is met."""
        faults = []
        # NaN compares as False with everything: each test asks for what is wanted, and not for its opposite.
        if not self.dice >= self.threshold_dice + LEAST_LEAD:
            faults.append(
                f"expected a mean Dice of at least {self.threshold_dice + LEAST_LEAD:.3f}, {LEAST_LEAD} above the best "
                f"grey threshold, got {self.dice:.3f}; {_AGAIN}"
            )
        low, high = self.truth_share / LARGEST_FACTOR, self.truth_share * LARGEST_FACTOR
        if not low <= self.predicted_share <= high:
            faults.append(
                f"expected {low:.1%} to {high:.1%} of the voxels predicted as surface, got {self.predicted_share:.1%}; "
                f"{_AGAIN}"
            )
        if self.start_dice is not None and not self.dice >= self.start_dice + LEAST_GAIN:
            faults.append(
                f"expected the training to add at least {LEAST_GAIN} of Dice to its start's {self.start_dice:.3f}, got "
                f"{self.dice:.3f}; {_AGAIN}"
            )
        return tuple(faults)

    def to_entries(self) -> dict[str, Any]:
        """Return the numbers, the bar and the faults, as verdict.json has them."""
        bar = {"least_lead": LEAST_LEAD, "largest_factor": LARGEST_FACTOR, "least_gain": LEAST_GAIN}
        return asdict(self) | {"bar": bar, "met": not self.faults, "faults": list(self.faults)}

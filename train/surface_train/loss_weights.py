"""Weights of the loss: one for each term, the terms' own numbers, and the presets that they come from.

Three presets hold the numbers of the guide that the loss comes from, the fourth is ours. Where that guide contradicts
itself or arithmetic, this is what is true:
- Its "original" weights sum to 0.8, its column "Old" is another set and sums to 1.10, not to 1.00. Of that column
  clDice and connectivity have 0.2 of 1.1, not 60 %, and variance 0.1 of 1.1, not 20 %. Its new weights do sum to 1.
- Its focal alpha of 0.25 "weights foreground", its 0.75 "weights background": read so, both are one and the same loss.
  Here `focal_background` weights the background in every preset, 0.25 before and 0.75 after. Its background is the
  minority because unlabelled voxels were counted as surface; of all voxels, about 5 % are labelled as surface.
- Numbers from 0 to 1 vary by 0.25 at most, so (1 − variance)² is never below 0.5625, and together with
  max(0.5 − H, 0) the term is never below 0.827 (half of the voxels at 0.2, half at 0.8). "0.05–0.10 at epoch 100"
  cannot be, nor a total below a quarter of that: a prediction that is the label, with 5.3 % surface, costs 0.376.
- A healthy variance "0.15–0.25" is that of a world with 18 to 82 % surface; labels with 5.3 % surface vary by 0.05.
- Its gradient of −2 is one by the variance. By the logits it is 0 where the prediction is uniform, as with the clamp.
- Entropy is punished twice, inside variance and as a term: 0.30 of the rebalanced weights in all.
- Misprints: at variance 0.001 the clamped loss is 0.90 (0.99 belongs to 0.0001) and the new one 0.998 (0.980 belongs to
  0.01); at 0.0001 the new one is 0.9998. Focal's weight went down from 0.2 to 0.15 where it says "increased".
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

Preset = Literal["original", "topology_first", "rebalanced", "calibrated"]
VarianceKind = Literal["exponential", "clamped", "matched"]
_WEIGHT = "_weight"

# original: Part 1, "Original Loss Configuration". topology_first: Part 3, column "Old". rebalanced: Part 1, "Fixed",
# which is Part 3's column "New", and the defaults of LossWeights. calibrated, ours: rebalanced, but the variance is
# matched to the truth's and the entropy term is off, so that the label itself is the optimum; its weights sum to 0.95.
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "original": {
        "dice_weight": 0.4,
        "focal_weight": 0.2,
        "boundary_weight": 0.0,
        "cldice_weight": 0.0,
        "connectivity_weight": 0.0,
        "variance_weight": 0.2,
        "entropy_weight": 0.0,
        "focal_background": 0.25,
        "variance_kind": "clamped",
    },
    "topology_first": {
        "dice_weight": 0.4,
        "focal_weight": 0.2,
        "boundary_weight": 0.2,
        "cldice_weight": 0.1,
        "connectivity_weight": 0.1,
        "variance_weight": 0.1,
        "entropy_weight": 0.0,
        "focal_background": 0.25,
        "variance_kind": "clamped",
    },
    "rebalanced": {},
    "calibrated": {"variance_kind": "matched", "entropy_weight": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of each term of the loss, 0 for off, and the terms' own numbers.

    Settings files go through `from_preset`. Raises ValueError, by the name of the entry, for what cannot be used.
    """

    preset: Preset = "rebalanced"
    """Preset that the numbers below come from where nothing else is given."""

    dice_weight: float = 0.30
    """Weight of soft Dice."""

    focal_weight: float = 0.15
    """Weight of the focal loss."""

    boundary_weight: float = 0.15
    """Weight of the cross-entropy that counts more near the surface's boundary."""

    cldice_weight: float = 0.05
    """Weight of clDice, the overlap with skeletons."""

    connectivity_weight: float = 0.05
    """Weight of the squared difference of dilated prediction and dilated truth."""

    variance_weight: float = 0.25
    """Weight of the penalty on the variance of the probabilities."""

    entropy_weight: float = 0.05
    """Weight of the penalty on predictions of low entropy."""

    focal_background: float = 0.75
    """Weight of background voxels in the focal loss; surface voxels have the rest."""

    focal_gamma: float = 2.0
    """Exponent of the focal loss: how much less voxels count that are predicted right."""

    boundary_theta0: float = 3.0
    """Additional weight of a voxel at the boundary."""

    boundary_theta_voxels: float = 5.0
    """Distance to the boundary, in voxels, over which that weight falls to 61 % (a Gaussian's standard deviation)."""

    cldice_iterations: int = 3
    """Erosions that thin to a skeleton, at half resolution; what is thicker than twice as many voxels keeps a core."""

    variance_kind: VarianceKind = "exponential"
    """Formula of the variance term, see `losses.terms.variance`."""

    entropy_target: float = 0.5
    """Mean entropy in nats below which a prediction is penalised."""

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in asdict(self).items() if not isinstance(value, str)}
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"loss.{name}: expected a finite number >= 0, got {value:g}")
        if not any(self.by_term.values()):
            raise ValueError("loss: expected a weight > 0 for at least one term, got 0 for all")
        if self.focal_background > 1:
            raise ValueError(f"loss.focal_background: expected a share from 0 to 1, got {self.focal_background:g}")
        if not self.boundary_theta_voxels > 0:
            raise ValueError(f"loss.boundary_theta_voxels: expected a number > 0, got {self.boundary_theta_voxels:g}")
        for name, kinds in (("preset", get_args(Preset)), ("variance_kind", get_args(VarianceKind))):
            if (given := getattr(self, name)) not in kinds:
                raise ValueError(f"loss.{name}: expected {' or '.join(map(repr, kinds))}, got {given!r}")

    @property
    def by_term(self) -> dict[str, float]:
        """Return the weight of each term by the term's name, as the table of terms (`losses.terms.TERMS`) has it."""
        names = [field.name for field in fields(self) if field.name.endswith(_WEIGHT)]
        return {name.removesuffix(_WEIGHT): getattr(self, name) for name in names}

    @classmethod
    def from_preset(cls, preset: Preset, entries: Mapping[str, Any]) -> Self:
        """Return a preset's numbers, those named in `entries` replaced."""
        return cls(preset=preset, **{**PRESETS[preset], **entries})

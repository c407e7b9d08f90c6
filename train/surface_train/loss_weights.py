"""What the loss weighs: one weight a term, the terms' own numbers, and the presets that they come from.

Three presets hold the numbers of the guide that the loss comes from, the fourth is ours. Where that guide is at odds
with itself or with arithmetic, this is what is true:
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
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Preset = Literal["original", "topology_first", "rebalanced", "calibrated"]
VarianceKind = Literal["exponential", "clamped", "matched"]

# original: Part 1, "Original Loss Configuration". topology_first: Part 3, column "Old". rebalanced: Part 1, "Fixed",
# which is Part 3's column "New", and the defaults of LossWeights. calibrated, ours: rebalanced, but the variance is
# matched to the truth's and entropy is let go, so that the label itself is the optimum; its weights sum to 0.95.
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


@dataclass(frozen=True)
class LossWeights:
    """The weight of each term, and the terms' own numbers. Made by `from_preset`, which a settings file goes through.

    focal_background: weight of background voxels in the focal term, surface has the rest. boundary_theta0: how much
    heavier a voxel at the boundary is; boundary_theta_voxels: how far that reaches. cldice_iterations: how often a
    skeleton is thinned, at half resolution; what is thicker than twice that is not thinned to the end. variance_kind:
    which formula of `loss.variance`. entropy_target: nats. Raises ValueError for what cannot be meant.
    """

    preset: Preset = "rebalanced"
    dice_weight: float = 0.30
    focal_weight: float = 0.15
    boundary_weight: float = 0.15
    cldice_weight: float = 0.05
    connectivity_weight: float = 0.05
    variance_weight: float = 0.25
    entropy_weight: float = 0.05
    focal_background: float = 0.75
    focal_gamma: float = 2.0
    boundary_theta0: float = 3.0
    boundary_theta_voxels: float = 5.0
    cldice_iterations: int = 3
    variance_kind: VarianceKind = "exponential"
    entropy_target: float = 0.5

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in asdict(self).items() if not isinstance(value, str)}
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"loss.{name}: found {value}, wanted a finite number, 0 or more")
        if not any(value > 0 for name, value in numbers.items() if name.endswith("_weight")):
            raise ValueError("loss: found no weight above 0, wanted at least one term to learn from")
        if self.focal_background > 1:
            raise ValueError(f"loss.focal_background: found {self.focal_background}, wanted a share from 0 to 1")
        if not self.boundary_theta_voxels > 0:
            raise ValueError(f"loss.boundary_theta_voxels: found {self.boundary_theta_voxels}, wanted above 0")
        for name, kinds in (("preset", get_args(Preset)), ("variance_kind", get_args(VarianceKind))):
            if getattr(self, name) not in kinds:
                raise ValueError(f"loss.{name}: found {getattr(self, name)!r}, wanted {' or '.join(map(repr, kinds))}")

    @classmethod
    def from_preset(cls, preset: Preset, entries: Mapping[str, Any]) -> "LossWeights":
        """Give a preset's numbers, with `entries` in the place of those that they name."""
        return cls(preset=preset, **{**PRESETS[preset], **entries})

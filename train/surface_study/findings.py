"""Everything that the study's page is made from, read from the study's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_study import arm, measure, phantoms
from surface_study.arm import ArmResult
from surface_study.expectations import EVERYTHING
from surface_study.measure import Measured
from surface_study.phantoms import LabelledPhantom, LabelShares
from surface_study.plan import StudyPlan
from surface_study.reading import Reading
from surface_study.table import Key


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All results of a study."""

    plan: StudyPlan
    shares: LabelShares
    results: Sequence[ArmResult]
    readings: Mapping[Key, tuple[Reading, float]]
    """With the seconds that each took."""
    trivial: Mapping[str, Sequence[Measured]]
    """Predictions that need no network, by name."""


def load(work: Path, plan: StudyPlan, unseen: Sequence[LabelledPhantom]) -> Findings:
    """Return the results in the folder of a complete study; `unseen` are its test volumes."""
    return Findings(
        plan=plan,
        shares=phantoms.shares(work),
        results=[arm.load_result(work, one) for one in plan.arms()],
        readings={(one.preset, one.label_2): arm.load_reading(work, one) for one in plan.read_arms()},
        trivial=trivial(unseen),
    )


def trivial(unseen: Sequence[LabelledPhantom]) -> dict[str, list[Measured]]:
    """Return the measurements of predictions that need no network, on each volume."""
    masks = {
        EVERYTHING: [np.ones(phantom.label.shape, bool) for phantom in unseen],
        "nothing is": [np.zeros(phantom.label.shape, bool) for phantom in unseen],
        "the best grey threshold": [measure.best_grey_mask(phantom.image, phantom.label) for phantom in unseen],
    }
    return {
        name: [measure.of_mask(phantom.name, mask, phantom.label) for phantom, mask in zip(unseen, of_all, strict=True)]
        for name, of_all in masks.items()
    }

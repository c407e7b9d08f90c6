import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from surface_phantom.hardness import Hardness, measure


def by_hand(image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> float:
    """Try every threshold."""
    seen, truth = label != 2, label == 1
    dices = []
    for t in range(256):
        found = (image >= t) & seen
        dices.append(2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
    return max(dices)


def test_measure_by_hand() -> None:
    image = np.array([[[10, 20, 30, 40, 250]]], np.uint8)
    label = np.array([[[0, 1, 0, 1, 2]]], np.uint8)
    # t = 20 finds 20, 30, 40: 2 * 2 / (3 + 2); t = 40 finds 40 alone: 2 * 1 / (1 + 2). The 250 is not looked at.
    assert measure(image, label) == Hardness(gap=10.0, threshold_dice=0.8, surface_share=0.4)


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.uint8, (2, 3, 4)),
    arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 2)),
)
def test_measure_agrees_with_trying_every_threshold(image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> None:
    label.flat[:2] = (0, 1)
    assert measure(image, label).threshold_dice == pytest.approx(by_hand(image, label))


@pytest.mark.parametrize("only", [0, 1, 2])
def test_without_both_labels_nothing_is_real(only: int) -> None:
    shape = (2, 2, 2)
    hardness = measure(np.zeros(shape, np.uint8), np.full(shape, only, np.uint8))
    assert np.isnan(hardness.gap)
    assert not hardness.is_real


@pytest.mark.parametrize(
    ("gap", "dice", "share", "real"),
    [
        (20.0, 0.30, 0.05, True),
        (9.9, 0.30, 0.05, False),
        (30.1, 0.30, 0.05, False),
        (20.0, 0.351, 0.05, False),
        (20.0, 0.30, 0.0089, False),
        (20.0, 0.30, 0.171, False),
    ],
)
def test_real_is_what_the_competition_shows(gap: float, dice: float, share: float, real: bool) -> None:
    assert Hardness(gap, dice, share).is_real is real

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from surface_train import loss
from surface_train.loss import TERMS, Truth
from surface_train.settings import LossWeights

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = LossWeights()
every_term = pytest.mark.parametrize("name", TERMS)


def row(values: list[float]) -> Tensor:
    """A sample of one line along x: (1, 1, 1, x)."""
    return torch.tensor(values)[None, None, None]


def logits_of(probabilities: list[float]) -> Tensor:
    return torch.logit(row(probabilities).double()).float().clamp(-40, 40)


def truth_of(labels: list[int]) -> Truth:
    return Truth(row(labels).to(torch.uint8))


def term(name: str, logits: Tensor, truth: Truth, weights: LossWeights = WEIGHTS) -> Tensor:
    return TERMS[name](logits, truth, weights)


def number(name: str, probabilities: list[float], labels: list[int], weights: LossWeights = WEIGHTS) -> float:
    (value,) = term(name, logits_of(probabilities), truth_of(labels), weights)
    return float(value)


def bernoulli_entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def sheets(seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Random logits over a slab of surface that runs into unlabelled voxels, with a hole of them in its middle."""
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (batch, 8, 10, 12))).float()
    labels = torch.zeros(logits.shape, dtype=torch.uint8)
    labels[:, 3:6] = 1
    labels[:, :, :2] = 2
    labels[:, 4, 5:7, 5:7] = 2
    labels[:, 7, 8] = 2
    return logits, labels


# --- every term against numbers worked out by hand; label 2 stands at the end of each row and changes nothing


def test_dice_by_hand() -> None:
    # Σ p y = 0.8 + 0.4, Σ p + Σ y = 1.7 + 2
    assert number("dice", [0.8, 0.4, 0.5, 0.9], [1, 1, 0, 2]) == pytest.approx(1 - 2.4 / 3.7, abs=1e-5)


def test_focal_by_hand_and_its_three_quarters_weigh_the_background() -> None:
    surface = 0.25 * 0.2**2 * -math.log(0.8)
    background = 0.75 * 0.5**2 * math.log(2)
    assert number("focal", [0.8, 0.5, 0.9], [1, 0, 2]) == pytest.approx((surface + background) / 2, rel=1e-5)
    assert number("focal", [0.5], [0]) == pytest.approx(3 * number("focal", [0.5], [1]), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
def test_focal_by_its_formula_at_every_gamma(gamma: float) -> None:
    weights = LossWeights(focal_gamma=gamma, focal_background=0.6)
    found = number("focal", [0.7, 0.1], [1, 0], weights)
    by_hand = 0.4 * 0.3**gamma * -math.log(0.7) + 0.6 * 0.1**gamma * -math.log(0.9)
    assert found == pytest.approx(by_hand / 2, rel=1e-5)


def test_boundary_by_hand() -> None:
    distances, probabilities = [2, 1, 1, 2], [0.1, 0.4, 0.8, 0.7]
    cross = [-math.log(p) for p in (0.9, 0.6, 0.8, 0.7)]
    weights = [1 + 3 * math.exp(-(d**2) / (2 * 25)) for d in distances]
    wanted = sum(w * c for w, c in zip(weights, cross, strict=True)) / sum(weights)
    assert number("boundary", [*probabilities, 0.5], [0, 0, 1, 1, 2]) == pytest.approx(wanted, rel=1e-5)


def test_the_end_of_the_annotation_is_no_boundary() -> None:
    # The surface runs on into the unlabelled voxels: its distance is to the background on the left.
    (distance,) = truth_of([0, 1, 1, 1, 2, 2]).boundary_distance
    assert distance[0, 0, :4].tolist() == [1, 1, 2, 3]
    # Background behind unlabelled voxels looks for surface, and finds it at their far side.
    (distance,) = truth_of([0, 2, 2, 1]).boundary_distance
    assert distance[0, 0, [0, 3]].tolist() == [3, 3]


def test_without_the_other_kind_the_boundary_is_far_and_the_term_plain_cross_entropy() -> None:
    assert number("boundary", [0.8, 0.8], [0, 2]) == pytest.approx(-math.log(0.2), rel=1e-5)
    assert number("boundary", [0.8, 0.8], [1, 2]) == pytest.approx(-math.log(0.8), rel=1e-5)


def test_distance_is_in_voxels_along_every_axis() -> None:
    labels = torch.zeros((1, 5, 5, 5), dtype=torch.uint8)
    labels[0, 2, 2, 2] = 1
    (distance,) = Truth(labels).boundary_distance
    assert distance[2, 2, 2] == 1
    for z, y, x in product(range(5), repeat=3):
        if (z, y, x) != (2, 2, 2):
            assert distance[z, y, x] == pytest.approx(math.dist((z, y, x), (2, 2, 2)))


def test_cldice_by_hand_half_of_a_sheet() -> None:
    # Two voxels thick, one at half resolution, where it is its own skeleton. Half of it is found:
    # precision 1, sensitivity 1/2, so 1 − 2 · 1 · ½ / 1½.
    labels = torch.zeros((1, 8, 8, 8), dtype=torch.uint8)
    labels[:, 4:6] = 1
    logits = torch.full((1, 8, 8, 8), -40.0)
    logits[:, 4:6, :, :4] = 40
    assert term("cldice", logits, Truth(labels)).item() == pytest.approx(1 / 3, abs=1e-5)
    logits[:, 4:6] = 40
    assert term("cldice", logits, Truth(labels)).item() == pytest.approx(0, abs=1e-5)
    logits = torch.full((1, 8, 8, 8), -40.0)
    logits[:, 0:2] = 40
    assert term("cldice", logits, Truth(labels)).item() == pytest.approx(1, abs=1e-4)


def test_connectivity_by_hand() -> None:
    # widened truth 0 1 1 1 0 0, widened prediction ½ ½ ½ 0.9 0.9 0.9
    squares = [0.25, 0.25, 0.25, 0.01, 0.81, 0.81]
    found = number("connectivity", [0, 0.5, 0, 0, 0.9, 0], [0, 0, 1, 0, 0, 0])
    assert found == pytest.approx(sum(squares) / 6, rel=1e-5)


def test_connectivity_forgives_a_gap_of_two_voxels_and_not_one_of_four() -> None:
    labels = [1] * 12
    two, four = ([1.0] * (12 - gap) for gap in (2, 4))
    two[5:5], four[4:4] = [0.0] * 2, [0.0] * 4
    assert number("connectivity", two, labels) == pytest.approx(0, abs=1e-6)
    assert number("connectivity", four, labels) == pytest.approx(2 / 12, rel=1e-5)


@pytest.mark.parametrize(
    ("spread", "loss_of_spread"), [(0.001, 0.998), (0.01, 0.9801), (0.05, 0.9025), (0.1, 0.81), (0.2, 0.64)]
)
def test_variance_at_the_points_of_the_guides_table(spread: float, loss_of_spread: float) -> None:
    low, high = 0.5 - math.sqrt(spread), 0.5 + math.sqrt(spread)  # half of the voxels each: their variance is `spread`
    shortfall = max(0.5 - bernoulli_entropy(high), 0)
    found = number("variance", [low, high, 0.5], [0, 1, 2])
    assert found - shortfall == pytest.approx(loss_of_spread, abs=2e-5)
    logits = logits_of([low, high, 0.5])
    assert loss.probability_variance(logits, truth_of([0, 1, 2])).item() == pytest.approx(spread, rel=1e-4)


def test_the_loss_of_the_spread_cannot_fall_below_nine_sixteenths() -> None:
    # The most that numbers from 0 to 1 can vary is 0.25, when they are sure: then the entropy falls short by all of ½.
    assert number("variance", [0, 1], [0, 1]) == pytest.approx(0.5625 + 0.5, abs=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 0.97])
def test_entropy_by_its_formula(p: float) -> None:
    weights = LossWeights(entropy_target=0.6)
    assert number("entropy", [p, p, 0.5], [0, 1, 2], weights) == pytest.approx(
        max(0.6 - bernoulli_entropy(p), 0), abs=1e-5
    )


# --- what holds for every term


@every_term
def test_what_is_predicted_under_label_2_counts_nowhere(name: str) -> None:
    logits, labels = sheets(0)
    unlabelled = labels == 2
    changed = logits.clone()
    changed[unlabelled] = torch.linspace(-1e4, 1e4, int(unlabelled.sum()))
    first, second = logits.requires_grad_(True), changed.requires_grad_(True)
    one, other = term(name, first, Truth(labels)), term(name, second, Truth(labels))
    assert torch.equal(one, other)
    for value, given in ((one, first), (other, second)):
        (gradient,) = torch.autograd.grad(value.sum(), given)
        assert (gradient[unlabelled] == 0).all()
        assert (gradient[~unlabelled] != 0).any()


@every_term
def test_a_sample_without_a_label_gives_zero_and_no_gradient(name: str) -> None:
    logits, labels = sheets(1)
    labels[1] = 2
    logits[1, 0, 0, :3] = torch.tensor([-1e4, 0, 1e4])
    value = term(name, logits.requires_grad_(True), Truth(labels))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value[0] > 0
    assert value[1] == 0
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
    assert gradient.isfinite().all()


@every_term
@pytest.mark.parametrize("kind", [0, 1])
def test_a_sample_of_one_kind_is_finite(name: str, kind: int) -> None:
    logits = torch.randn((1, 4, 4, 4)).requires_grad_(True)
    value = term(name, logits, Truth(torch.full((1, 4, 4, 4), kind, dtype=torch.uint8)))
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@every_term
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extreme_logits_give_finite_losses_and_gradients(name: str, gamma: float) -> None:
    logits, labels = sheets(2)
    logits = (logits.sign() * 1e4).requires_grad_(True)
    value = term(name, logits, Truth(labels), LossWeights(focal_gamma=gamma))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["dice", "focal", "boundary", "variance", "entropy"])
def test_gradients_are_those_of_the_formula(name: str) -> None:
    logits, labels = sheets(3, batch=1)
    logits, labels = logits[:, 2:6, 1:4, 4:7].double() / 3, labels[:, 2:6, 1:4, 4:7]
    truth = Truth(labels)
    for part in ("labelled", "surface", "boundary_distance"):
        truth.__dict__[part] = getattr(truth, part).double()  # in single precision differences say little
    weights = LossWeights(entropy_target=0.68)
    assert torch.autograd.gradcheck(lambda given: term(name, given, truth, weights), logits.requires_grad_(True))


@every_term
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_no_direction_is_preferred(name: str, axis: int) -> None:
    logits, labels = sheets(4)
    there = term(name, logits, Truth(labels))
    back = term(name, logits.flip(axis), Truth(labels.flip(axis)))
    torch.testing.assert_close(there, back)


@every_term
def test_a_batch_is_its_samples_one_by_one(name: str) -> None:
    logits, labels = sheets(5, batch=3)
    labels[1, :, 4:] = 2  # the samples differ in how much of them is labelled
    together = term(name, logits, Truth(labels))
    alone = torch.cat([term(name, logits[n : n + 1], Truth(labels[n : n + 1])) for n in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"variance", "entropy"}))
def test_the_truth_costs_nothing(name: str) -> None:
    _, labels = sheets(6)
    perfect = torch.where(labels == 1, 40.0, -40.0)
    torch.testing.assert_close(term(name, perfect, Truth(labels)), torch.zeros(2), atol=1e-4, rtol=0)


# --- the sum


def test_the_default_weights_are_the_rebalanced_ones_and_sum_to_one() -> None:
    wanted = {"dice": 0.30, "focal": 0.15, "boundary": 0.15, "cldice": 0.05, "connectivity": 0.05}
    wanted |= {"variance": 0.25, "entropy": 0.05}
    assert {name: getattr(WEIGHTS, f"{name}_weight") for name in TERMS} == wanted
    assert sum(wanted.values()) == pytest.approx(1)
    assert (WEIGHTS.focal_background, WEIGHTS.entropy_target) == (0.75, 0.5)


def test_the_total_is_the_weighted_sum_of_the_samples_means() -> None:
    logits, labels = sheets(7, batch=3)
    value, parts = loss.total(logits[:, None].requires_grad_(True), labels, WEIGHTS)
    by_hand = {name: term(name, logits, Truth(labels)).mean().item() for name in TERMS}
    assert list(parts) == list(TERMS)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(by_hand)
    assert value.item() == pytest.approx(sum(getattr(WEIGHTS, f"{name}_weight") * by_hand[name] for name in TERMS))
    assert value.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    one_by_one = [loss.total(logits[n : n + 1, None], labels[n : n + 1], WEIGHTS)[0].item() for n in range(3)]
    assert value.item() == pytest.approx(np.mean(one_by_one))


@every_term
def test_a_weight_of_zero_drops_the_term(name: str) -> None:
    logits, labels = sheets(8)
    only = LossWeights(**{f"{other}_weight": float(other == name) for other in TERMS})
    value, parts = loss.total(logits[:, None], labels, only)
    assert list(parts) == [name]
    assert value.item() == pytest.approx(parts[name].item())


def test_half_precision_logits_are_widened_first() -> None:
    logits, labels = sheets(9)
    half = logits[:, None].bfloat16()
    value, _ = loss.total(half, labels, WEIGHTS)
    assert value.dtype == torch.float32
    assert value == loss.total(half.float(), labels, WEIGHTS)[0]


# --- the skeleton


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("iterations", [0, 3])
def test_the_skeleton_of_a_plane_one_voxel_thick_is_the_plane(axis: int, iterations: int) -> None:
    plane = torch.zeros((1, 7, 7, 7))
    plane.select(axis, 3).fill_(1)
    assert torch.equal(loss.soft_skeleton(plane, iterations), plane)


def test_the_skeleton_of_a_slab_is_its_middle() -> None:
    slab, middle = torch.zeros((1, 9, 9, 9)), torch.zeros((1, 9, 9, 9))
    slab[:, 2:7], middle[:, 4] = 1, 1
    assert torch.equal(loss.soft_skeleton(slab, 2), middle)
    assert not loss.soft_skeleton(slab, 1).any()  # five voxels need two rounds


def test_no_skeleton_where_there_is_nothing() -> None:
    assert not loss.soft_skeleton(torch.zeros((1, 5, 5, 5)), 3).any()

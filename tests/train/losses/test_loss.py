import math
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from surface_train.data.maps import DISTANCE, boundary_distance, skeleton, skeleton_map
from surface_train.data.truth import Truth
from surface_train.loss_weights import LossWeights, Preset, VarianceKind
from surface_train.losses import loss, terms
from surface_train.losses.compared import Compared
from surface_train.losses.terms import TERMS, label_maps

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = LossWeights()
KINDS: tuple[VarianceKind, ...] = get_args(VarianceKind)
PRESETS = [LossWeights.from_preset(preset, {}) for preset in get_args(Preset)]
# The seven terms, and the variance in each of its kinds: name and weights.
VARIANTS = [(name, WEIGHTS) for name in TERMS] + [("variance", LossWeights(variance_kind=kind)) for kind in KINDS[1:]]
every_term = pytest.mark.parametrize("name", TERMS)
every_variant = pytest.mark.parametrize(
    ("name", "weights"), VARIANTS, ids=[*TERMS, *(f"variance-{k}" for k in KINDS[1:])]
)
every_preset = pytest.mark.parametrize("weights", PRESETS, ids=lambda weights: weights.preset)


def row(values: list[float]) -> Tensor:
    """A sample of one line along x: (1, 1, 1, x)."""
    return torch.tensor(values)[None, None, None]


def logits_of(probabilities: list[float]) -> Tensor:
    return torch.logit(row(probabilities).double()).float().clamp(-40, 40)


def truth_of(labels: list[int]) -> Truth:
    return Truth(row(labels).to(torch.uint8))


def term(name: str, logits: Tensor, truth: Truth, weights: LossWeights = WEIGHTS) -> Tensor:
    return TERMS[name].value(Compared(logits, truth), weights)


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


def test_without_the_other_kind_the_boundary_is_far_and_the_term_plain_cross_entropy() -> None:
    assert number("boundary", [0.8, 0.8], [0, 2]) == pytest.approx(-math.log(0.2), rel=1e-5)
    assert number("boundary", [0.8, 0.8], [1, 2]) == pytest.approx(-math.log(0.8), rel=1e-5)


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
    logits[:, 0:2] = 40  # a second sheet where there is none: precision 1/2, sensitivity 1
    assert term("cldice", logits, Truth(labels)).item() == pytest.approx(1 / 3, abs=1e-5)
    logits = torch.full((1, 8, 8, 8), -40.0)
    logits[:, 0:2] = 40
    assert term("cldice", logits, Truth(labels)).item() == pytest.approx(1, abs=1e-4)


def test_connectivity_by_hand() -> None:
    # dilated truth 0 1 1 1 0 0, dilated prediction ½ ½ ½ 0.9 0.9 0.9
    squares = [0.25, 0.25, 0.25, 0.01, 0.81, 0.81]
    found = number("connectivity", [0, 0.5, 0, 0, 0.9, 0], [0, 0, 1, 0, 0, 0])
    assert found == pytest.approx(sum(squares) / 6, rel=1e-5)


def test_connectivity_forgives_a_gap_of_two_voxels_and_not_one_of_four() -> None:
    labels = [1] * 12
    two, four = ([1.0] * (12 - gap) for gap in (2, 4))
    two[5:5], four[4:4] = [0.0] * 2, [0.0] * 4
    assert number("connectivity", two, labels) == pytest.approx(0, abs=1e-6)
    assert number("connectivity", four, labels) == pytest.approx(2 / 12, rel=1e-5)


# --- the spread, against the guide's tables and beyond them

SPREADS = [0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5]


def test_both_formulas_at_the_points_of_the_guides_table() -> None:
    # 0.5 is a point of the formulas alone: nothing between 0 and 1 varies by more than 0.25.
    spreads = torch.tensor(SPREADS, dtype=torch.float64)
    new = [0.99980001, 0.998001, 0.9801, 0.9025, 0.81, 0.64, 0.25]
    assert terms.exponential_penalty(spreads).tolist() == pytest.approx(new, rel=1e-12)
    assert terms.clamped_penalty(spreads).tolist() == pytest.approx([0.99, 0.9, 0, 0, 0, 0, 0], rel=1e-12)


def test_both_slopes_at_the_points_of_the_guides_derivation() -> None:
    spreads = torch.tensor([0.001, 0.5, 0.99, 0.02, 0.2], dtype=torch.float64, requires_grad=True)
    (new,) = torch.autograd.grad(terms.exponential_penalty(spreads).sum(), spreads)
    (old,) = torch.autograd.grad(terms.clamped_penalty(spreads).sum(), spreads)
    assert new.tolist() == pytest.approx([-1.998, -1.0, -0.02, -1.96, -1.6])
    assert old.tolist() == [-100, 0, 0, 0, 0]


@pytest.mark.parametrize("spread", SPREADS[:-1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_term_is_its_formula_of_a_worlds_variance(spread: float, kind: VarianceKind) -> None:
    low, high = 0.5 - math.sqrt(spread), 0.5 + math.sqrt(spread)  # half of the voxels each: their variance is `spread`
    wanted = {
        "exponential": (1 - spread) ** 2 + max(0.5 - bernoulli_entropy(high), 0),
        "clamped": max(0.01 - spread, 0) / 0.01,
        "matched": ((spread - 0.25) / 0.25) ** 2,
    }
    found = number("variance", [low, high, 0.5], [0, 1, 2], LossWeights(variance_kind=kind))
    assert found == pytest.approx(wanted[kind], abs=2e-5)
    raw = loss.probability_variance(logits_of([low, high, 0.5]), truth_of([0, 1, 2]))
    assert raw.item() == pytest.approx(spread, rel=1e-3)


def test_the_variance_is_that_of_each_sample_and_not_of_the_batch() -> None:
    logits = torch.cat([logits_of([0.1, 0.1, 0.5]), logits_of([0.9, 0.9, 0.5]), logits_of([0.2, 0.6, 0.9])])
    truth = Truth(torch.tensor([0, 1, 2], dtype=torch.uint8).expand(3, 1, 1, 3))
    assert loss.probability_variance(logits, truth).tolist() == pytest.approx([0, 0, 0.04], abs=1e-6)
    clamped = term("variance", logits, truth, LossWeights(variance_kind="clamped"))
    assert clamped.tolist() == pytest.approx([1, 1, 0], abs=1e-4)


def test_the_loss_of_the_spread_cannot_fall_below_nine_sixteenths() -> None:
    # The most that numbers from 0 to 1 can vary is 0.25, when they are sure: then the entropy falls short by all of ½.
    assert number("variance", [0, 1], [0, 1]) == pytest.approx(0.5625 + 0.5, abs=1e-5)


def test_the_guides_variance_term_is_least_on_two_unsure_halves_and_punishes_the_truth() -> None:
    # One voxel in 19 is surface (5.3 %). The term is 1 where nothing is known, 0.83 on halves at 0.2 and 0.8, and
    # (1 − 0.05)² + 0.5 on the label itself.
    labels = [1] + [0] * 18
    assert number("variance", [0.5] * 19, labels) == pytest.approx(1, abs=1e-5)
    halves = {p: number("variance", [p, 1 - p] * 9 + [0.5], [0, 0] * 9 + [2]) for p in np.linspace(0.01, 0.5, 50)}
    assert min(halves, key=halves.__getitem__) == pytest.approx(0.2)
    assert min(halves.values()) == pytest.approx(0.828, abs=1e-3)
    spread = 1 / 19 * 18 / 19
    assert number("variance", [float(label) for label in labels], labels) == pytest.approx((1 - spread) ** 2 + 0.5)


def test_the_label_is_not_the_optimum_of_the_rebalanced_loss_but_of_the_calibrated_one() -> None:
    # The label with 5.3 % surface costs 0.25 (1.4022) + 0.05 · 0.5 in the rebalanced loss.
    labels = torch.zeros((1, 38, 8, 8), dtype=torch.uint8)
    labels[:, 18:20] = 1
    perfect = torch.where(labels == 1, 40.0, -40.0)[:, None]
    costs = {weights.preset: loss.total(perfect, Truth(labels), weights)[0].item() for weights in PRESETS}
    spread = 1 / 19 * 18 / 19
    assert costs["rebalanced"] == pytest.approx(0.25 * ((1 - spread) ** 2 + 0.5) + 0.025, abs=1e-4)
    assert costs["calibrated"] == pytest.approx(0, abs=1e-4)
    softer = (perfect / 20).requires_grad_(True)  # right, and sure to 88 %
    slopes = {}
    for kind in KINDS:
        value = term("variance", softer[:, 0], Truth(labels), LossWeights(variance_kind=kind)).sum()
        slopes[kind] = (torch.autograd.grad(value, softer)[0] * softer.sign()).sum().item()
    assert slopes["exponential"] > 0  # the guide's term makes a right answer less sure
    assert slopes["matched"] < 0  # ours makes it surer
    assert slopes["clamped"] == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 20), st.floats(0.02, 0.98))
def test_no_prediction_costs_less_than_the_label_when_calibrated(seed: int, size: float, share: float) -> None:
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.choice(3, (2, 4, 6, 6), p=[0.8 * (1 - share), 0.8 * share, 0.2]).astype(np.uint8))
    logits = torch.from_numpy(rng.normal(0, size, (2, 1, 4, 6, 6)).astype(np.float32))
    perfect = torch.where(labels == 1, 40.0, -40.0)[:, None].requires_grad_(True)
    weights = LossWeights.from_preset("calibrated", {})
    guessed, guessed_parts = loss.total(logits, Truth(labels), weights)
    value, parts = loss.total(perfect, Truth(labels), weights)
    assert all(part >= 0 for part in guessed_parts.values())
    # A prediction of zeros and ones still pays one crumb where a skeleton vanishes: ε over a handful of voxels.
    assert value.item() == pytest.approx(0, abs=1e-4)
    assert guessed > value
    assert parts["variance"] < 1e-12
    matched = term("variance", perfect[:, 0], Truth(labels), weights).sum()
    assert torch.autograd.grad(matched, perfect)[0].abs().max() < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_a_uniform_prediction_feels_no_pull_from_its_variance_whatever_the_formula(kind: VarianceKind) -> None:
    logits = torch.full((1, 2, 4, 4), 0.25, requires_grad=True)  # unsure enough for its entropy
    labels = torch.zeros((1, 2, 4, 4), dtype=torch.uint8)
    labels[:, 0] = 1
    value = term("variance", logits, Truth(labels), LossWeights(variance_kind=kind)).sum()
    assert value.item() == pytest.approx(1, abs=1e-5)
    assert torch.autograd.grad(value, logits)[0].abs().max() < 1e-7


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 0.97])
def test_entropy_by_its_formula(p: float) -> None:
    weights = LossWeights(entropy_target=0.6)
    assert number("entropy", [p, p, 0.5], [0, 1, 2], weights) == pytest.approx(
        max(0.6 - bernoulli_entropy(p), 0), abs=1e-5
    )


def test_entropy_is_nothing_when_sure_and_log_2_when_not() -> None:
    for p, wanted in ((0.0, 0.0), (0.5, math.log(2)), (1.0, 0.0)):
        found = Compared(logits_of([p, p, 0.3]), truth_of([0, 1, 2])).entropy
        assert found.item() == pytest.approx(wanted, abs=1e-6)
    assert number("entropy", [0, 1], [1, 0]) == pytest.approx(0.5)  # the target, missed by all of it
    assert number("entropy", [0.5, 0.5], [1, 0]) == 0


# --- what holds for every term, and for the sum of every preset


@every_variant
def test_what_is_predicted_under_label_2_counts_nowhere(name: str, weights: LossWeights) -> None:
    logits, labels = sheets(0)
    unlabelled = labels == 2
    weights = LossWeights(**{**vars(weights), "entropy_target": 0.6})
    logits = logits / 30 if weights.variance_kind == "clamped" else logits  # uniform enough to be punished
    changed = logits.clone()
    changed[unlabelled] = torch.linspace(-1e4, 1e4, int(unlabelled.sum()))
    first, second = logits.requires_grad_(True), changed.requires_grad_(True)
    one, other = term(name, first, Truth(labels), weights), term(name, second, Truth(labels), weights)
    assert torch.equal(one, other)
    for value, given_logits in ((one, first), (other, second)):
        (gradient,) = torch.autograd.grad(value.sum(), given_logits)
        assert (gradient[unlabelled] == 0).all()
        assert (gradient[~unlabelled] != 0).any()


@every_preset
def test_no_preset_sees_what_is_predicted_under_label_2(weights: LossWeights) -> None:
    logits, labels = sheets(0)
    unlabelled = labels == 2
    changed = torch.where(unlabelled, 1e4, logits)
    values, gradients = [], []
    for asked in (logits, changed):
        values.append(loss.total(asked[:, None].requires_grad_(True), Truth(labels), weights)[0])
        leaf = asked.detach().clone().requires_grad_(True)
        gradients += torch.autograd.grad(loss.total(leaf[:, None], Truth(labels), weights)[0], leaf)
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0][unlabelled] == 0).all()


@every_variant
def test_a_sample_without_a_label_gives_zero_and_no_gradient(name: str, weights: LossWeights) -> None:
    logits, labels = sheets(1)
    logits = logits / 30 if weights.variance_kind == "clamped" else logits
    labels[1] = 2
    logits[1, 0, 0, :3] = torch.tensor([-1e4, 0, 1e4])
    value = term(name, logits.requires_grad_(True), Truth(labels), weights)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value[0] > 0
    assert value[1] == 0
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
    assert gradient.isfinite().all()


@every_preset
def test_a_batch_without_a_label_costs_nothing_and_moves_nothing(weights: LossWeights) -> None:
    logits, labels = sheets(1)
    leaf = logits.requires_grad_(True)
    value, parts = loss.total(leaf[:, None], Truth(torch.full_like(labels, 2)), weights)
    assert value == 0
    assert not any(parts.values())
    assert not torch.autograd.grad(value, leaf)[0].any()


@every_variant
@pytest.mark.parametrize("kind", [0, 1])
def test_a_sample_of_one_kind_is_finite(name: str, weights: LossWeights, kind: int) -> None:
    logits = torch.randn((1, 4, 4, 4)).requires_grad_(True)
    value = term(name, logits, Truth(torch.full((1, 4, 4, 4), kind, dtype=torch.uint8)), weights)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@every_variant
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extreme_logits_give_finite_losses_and_gradients(name: str, weights: LossWeights, gamma: float) -> None:
    logits, labels = sheets(2)
    logits = (logits.sign() * 1e4).requires_grad_(True)
    value = term(name, logits, Truth(labels), LossWeights(**{**vars(weights), "focal_gamma": gamma}))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@every_preset
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_dilated_first(weights: LossWeights, dtype: torch.dtype) -> None:
    logits, labels = sheets(9)
    for half in (logits[:, None].to(dtype), 1e4 * logits[:, None].sign().to(dtype)):
        leaf = half.requires_grad_(True)
        value, _ = loss.total(leaf, Truth(labels), weights)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert value.dtype == torch.float32
        assert value == loss.total(leaf.float(), Truth(labels), weights)[0]
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()


@every_variant
def test_gradients_are_those_of_the_formula(name: str, weights: LossWeights) -> None:
    logits, labels = sheets(3, batch=1)
    logits, labels = logits[:, 2:6, 1:5, 4:8].double() / 3, labels[:, 2:6, 1:5, 4:8]
    if weights.variance_kind == "clamped":
        logits = logits / 10
    truth = Truth(labels)
    chosen = LossWeights(**{**vars(weights), "entropy_target": 0.68})
    assert torch.autograd.gradcheck(
        lambda asked: term(name, asked, truth, chosen), logits.requires_grad_(True), nondet_tol=0
    )


@every_variant
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_no_direction_is_preferred(name: str, weights: LossWeights, axis: int) -> None:
    logits, labels = sheets(4)
    there = term(name, logits, Truth(labels), weights)
    back = term(name, logits.flip(axis), Truth(labels.flip(axis)), weights)
    torch.testing.assert_close(there, back)


@every_variant
@pytest.mark.parametrize("step", [(2, 0, 0), (0, 4, 0), (-2, 4, 6)])
def test_no_place_is_preferred(name: str, weights: LossWeights, step: tuple[int, ...]) -> None:
    # By even steps, since the skeleton lives on every second voxel; what is around is unlabelled.
    logits, labels = torch.zeros((2, 20, 24, 28)), torch.full((2, 20, 24, 28), 2, dtype=torch.uint8)
    logits[:, 6:14, 6:16, 8:20], labels[:, 6:14, 6:16, 8:20] = sheets(4)
    there = term(name, logits, Truth(labels), weights)
    moved = (tensor.roll(step, (1, 2, 3)) for tensor in (logits, labels))
    torch.testing.assert_close(there, term(name, next(moved), Truth(next(moved)), weights))


@every_variant
def test_a_batch_is_its_samples_one_by_one_in_any_order(name: str, weights: LossWeights) -> None:
    logits, labels = sheets(5, batch=3)
    labels[1, :, 4:] = 2  # the samples differ in how much of them is labelled
    together = term(name, logits, Truth(labels), weights)
    order = [2, 0, 1]
    torch.testing.assert_close(together[order], term(name, logits[order], Truth(labels[order]), weights))
    alone = torch.cat([term(name, logits[n : n + 1], Truth(labels[n : n + 1]), weights) for n in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"variance", "entropy"}))
def test_the_truth_costs_nothing(name: str) -> None:
    _, labels = sheets(6)
    perfect = torch.where(labels == 1, 40.0, -40.0)
    torch.testing.assert_close(term(name, perfect, Truth(labels)), torch.zeros(2), atol=1e-4, rtol=0)


# --- the sum


@every_preset
def test_the_total_is_the_weighted_sum_of_the_samples_means(weights: LossWeights) -> None:
    logits, labels = sheets(7, batch=3)
    value, parts = loss.total(logits[:, None].requires_grad_(True), Truth(labels), weights)
    wanted = {name: getattr(weights, f"{name}_weight") for name in TERMS if getattr(weights, f"{name}_weight")}
    by_hand = {name: term(name, logits, Truth(labels), weights).mean().item() for name in wanted}
    assert list(parts) == list(wanted)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(by_hand)
    assert value.item() == pytest.approx(sum(wanted[name] * by_hand[name] for name in wanted))
    assert value.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    one_by_one = [loss.total(logits[n : n + 1, None], Truth(labels[n : n + 1]), weights)[0].item() for n in range(3)]
    assert value.item() == pytest.approx(np.mean(one_by_one))


@pytest.mark.parametrize(
    ("preset", "value", "slopes", "slope"),
    [
        ("original", 0.3419364, 0.0822581, -0.0421575),
        ("topology_first", 0.7289839, 0.1835748, -0.0440200),
        ("rebalanced", 0.7692899, 0.1375708, 0.0028431),
        ("calibrated", 0.5509931, 0.1360868, 0.0031000),
    ],
)
def test_a_preset_costs_and_pulls_as_it_always_did(preset: Preset, value: float, slopes: float, slope: float) -> None:
    """The loss, the sum of its gradient's absolute values and that of its gradient, as commit c58b484 gave them."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.integers(-60, 61, (2, 1, 16, 16, 16)).astype(np.float32) / 10)
    blocks = rng.integers(0, 3, (2, 4, 4, 4), np.uint8)
    labels = torch.from_numpy(blocks.repeat(4, 1).repeat(4, 2).repeat(4, 3))
    found, _ = loss.total(logits.requires_grad_(True), Truth(labels), LossWeights.from_preset(preset, {}))
    gradient = torch.autograd.grad(found, logits)[0].double()
    assert found.item() == pytest.approx(value, rel=1e-5)
    assert gradient.abs().sum().item() == pytest.approx(slopes, rel=1e-4)
    assert gradient.sum().item() == pytest.approx(slope, abs=1e-5)


@every_term
def test_a_weight_of_zero_drops_the_term(name: str) -> None:
    logits, labels = sheets(8)
    only = LossWeights(**{f"{other}_weight": float(other == name) for other in TERMS})
    truth = Truth(labels)
    value, parts = loss.total(logits[:, None], truth, only)
    assert list(parts) == [name]
    assert value.item() == pytest.approx(parts[name].item())
    # A term reads the maps that its row lists, which are those the loader makes, and no others.
    assert set(truth.made) == {kind.name for kind in label_maps(only)}


def test_the_maps_of_a_loss_are_those_of_its_terms() -> None:
    def names(weights: LossWeights) -> list[str]:
        return [kind.name for kind in label_maps(weights)]

    assert names(WEIGHTS) == ["distance", "skeleton_3"]
    assert names(LossWeights(boundary_weight=0, cldice_iterations=5)) == ["skeleton_5"]
    assert names(LossWeights(cldice_weight=0)) == ["distance"]
    assert names(LossWeights.from_preset("original", {})) == []


def test_a_map_that_several_terms_read_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TERMS, "dice", replace(TERMS["dice"], maps=lambda weights: (DISTANCE,)))
    assert [kind.name for kind in label_maps(WEIGHTS)] == ["distance", "skeleton_3"]


def test_every_term_has_a_weight_and_every_weight_a_term() -> None:
    assert list(WEIGHTS.by_term) == list(TERMS)


@every_preset
def test_maps_from_the_loader_change_nothing(weights: LossWeights) -> None:
    logits, labels = sheets(10)
    distances = torch.from_numpy(np.stack([boundary_distance(sample) for sample in labels.numpy()]))
    skeletons = torch.from_numpy(np.stack([skeleton(sample, 3) for sample in labels.numpy()]))
    made = loss.total(logits[:, None], Truth(labels), weights)
    maps = {"distance": distances, "skeleton_3": skeletons}
    assert loss.total(logits[:, None], Truth(labels, maps), weights) == made


def test_maps_of_another_loss_than_the_loaders_are_refused() -> None:
    logits, labels = sheets(10)
    distances = torch.from_numpy(np.stack([boundary_distance(sample) for sample in labels.numpy()]))
    maps = {"distance": distances, skeleton_map(2).name: torch.zeros((2, 4, 5, 6), dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"maps: expected skeleton_3, got distance, skeleton_2$"):
        loss.total(logits[:, None], Truth(labels, maps), WEIGHTS)


def test_logits_of_another_shape_are_refused() -> None:
    logits, labels = sheets(10)
    with pytest.raises(
        ValueError, match=r"logits: expected \(2, 1, 8, 10, 12\) for these labels, got \(2, 8, 10, 12\)"
    ):
        loss.total(logits, Truth(labels), WEIGHTS)


# --- deep supervision


def deep(seed: int, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [
        torch.from_numpy(rng.normal(0, 2, (2, 1, *shape)).astype(np.float32)).requires_grad_(True) for shape in shapes
    ]


def coarse_by_hand(logits: Tensor, labels: Tensor) -> float:
    values = []
    for sample, label in zip(logits[:, 0].detach().double().numpy(), labels.numpy(), strict=True):
        p, y = 1 / (1 + np.exp(-sample[label != 2])), (label[label != 2] == 1).astype(float)
        if y.size:
            cross = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
            values.append(0.5 * (1 - 2 * (p * y).sum() / (p + y).sum()) + 0.5 * cross)
        else:
            values.append(0.0)
    return float(np.mean(values))


def test_one_output_is_the_total() -> None:
    logits, labels = sheets(11)
    assert loss.deep_total([logits[:, None]], Truth(labels), WEIGHTS) == loss.total(
        logits[:, None], Truth(labels), WEIGHTS
    )


def test_coarser_outputs_weigh_a_half_and_a_quarter_against_every_second_and_fourth_label() -> None:
    _, labels = sheets(12)
    outputs = deep(12, [(8, 10, 12), (4, 5, 6), (2, 3, 3)])
    value, parts = loss.deep_total(outputs, Truth(labels), WEIGHTS)
    full, full_parts = loss.total(outputs[0], Truth(labels), WEIGHTS)
    half = coarse_by_hand(outputs[1], labels[:, ::2, ::2, ::2])
    quarter = coarse_by_hand(outputs[2], labels[:, ::4, ::4, ::4])
    assert value.item() == pytest.approx((full.item() + half / 2 + quarter / 4) / 1.75, rel=1e-5)
    assert parts == full_parts
    gradients = torch.autograd.grad(value, outputs)
    assert all(gradient.any() for gradient in gradients)
    for step, gradient in ((2, gradients[1]), (4, gradients[2])):
        assert not gradient[:, 0][labels[:, ::step, ::step, ::step] == 2].any()


def test_an_axis_may_be_coarsened_later_than_the_others() -> None:
    _, labels = sheets(13)
    outputs = deep(13, [(8, 10, 12), (8, 5, 6)])
    value, _ = loss.deep_total(outputs, Truth(labels), WEIGHTS)
    full, _ = loss.total(outputs[0], Truth(labels), WEIGHTS)
    wanted = (full.item() + coarse_by_hand(outputs[1], labels[:, :, ::2, ::2]) / 2) / 1.5
    assert value.item() == pytest.approx(wanted, rel=1e-5)


def test_deep_outputs_over_no_label_cost_nothing() -> None:
    outputs = deep(14, [(8, 10, 12), (4, 5, 6)])
    value, _ = loss.deep_total(outputs, Truth(torch.full((2, 8, 10, 12), 2, dtype=torch.uint8)), WEIGHTS)
    assert value == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(value, outputs))


def test_a_coarse_output_that_no_stride_gives_is_refused() -> None:
    _, labels = sheets(15)
    with pytest.raises(ValueError, match=r"logits: expected \(2, 1, 4, 5, 6\) for these labels, got \(2, 1, 4, 7, 6\)"):
        loss.deep_total(deep(15, [(8, 10, 12), (4, 7, 6)]), Truth(labels), WEIGHTS)

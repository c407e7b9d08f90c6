"""Every row of the guide: where it is built, and the test or the measurement that shows it."""

from dataclasses import dataclass

from surface_study.markdown import grid

HERE = "above"  # evidence that is a table of this page


@dataclass(frozen=True)
class Row:
    """A row of the guide. shown: tests as FILE::NAME below tests/train, or HERE with the table's name; or what is not.

    remark: what has to be said about the row, such as where it cannot be true.
    """

    part: str
    what: str
    built: str
    shown: tuple[str, ...]
    remark: str = ""


_WEIGHTS = ("test_loss_weights.py::test_the_presets_hold_the_guides_numbers",)
_POINTS = ("test_loss.py::test_both_formulas_at_the_points_of_the_guides_table",)
_SLOPES = ("test_loss.py::test_both_slopes_at_the_points_of_the_guides_derivation",)
_LINE = ("test_fit.py::test_it_says_the_guides_line_with_every_term_in_order",)
_AUDIT = ("test_audit.py::test_probabilities_are_judged_by_share_and_spread",)
_LEAST = ("test_loss.py::test_the_guides_variance_term_is_least_on_two_unsure_halves_and_punishes_the_truth",)
_EVIDENCE = ("test_fit.py::test_a_run_leaves_its_evidence",)
_PROGRESS, _LOSSES, _READINGS, _DATA = (
    f"{HERE}: {name}" for name in ("the guide's expected results", "the losses", "the readings", "the data")
)

ROWS = (
    Row("1", "training data 57.70 % ± 19.62 % foreground", "`fit`, `label_2`", (_DATA,), "label 2 counted as surface"),
    Row("1", "the model predicts 99.88 % foreground", "`surface_study.reference`", (_READINGS,), "its reading"),
    Row("1", "Dice weight 0.4 makes everything foreground", "preset `original`", (_LOSSES,)),
    Row("1", "original weights, seven of them", "preset `original`", _WEIGHTS, "they sum to 0.8"),
    Row("1", "fixed weights, seven of them", "preset `rebalanced`", _WEIGHTS),
    Row(
        *("1", "focal alpha 0.25 → 0.75", "`focal_background`"),
        ("test_loss.py::test_focal_by_hand_and_its_three_quarters_weigh_the_background",),
        "0.75 weighs the background",
    ),
    Row("2", "clamped variance loss: 0.99, 0.90, 0, 0", "`variance_kind` clamped", _POINTS, "at 0.001 it is 0.90"),
    Row("2", "new loss: 0.998 … 0.250, seven points", "`variance_kind` exponential", _POINTS, "0.998 belongs to 0.001"),
    Row(
        *("2", "`variance_regularization(pred)`, the listing", "`loss.variance`"),
        ("test_loss.py::test_the_term_is_its_formula_of_a_worlds_variance",),
        "on logits, a sample at a time, label 2 ignored",
    ),
    Row(
        *("2", "the new loss always has a gradient", "`loss.variance`"),
        ("test_loss.py::test_a_uniform_prediction_feels_no_pull_from_its_variance_whatever_the_formula",),
        "by the variance; by the logits it is 0 where p is uniform",
    ),
    Row("2", "table old against new, six rows", "`loss.variance`", _POINTS, "old at 0.001 is 0.90, not 0.99"),
    Row("3", "column Old", "preset `topology_first`", _WEIGHTS, "sums to 1.10, not 1.00"),
    Row("3", "column New", "preset `rebalanced`", _WEIGHTS),
    Row("3", "perfect topology was 60 % of the loss", "preset `topology_first`", _WEIGHTS, "0.2 of 1.1"),
    Row("3", "old weights make a single blob of 99.88 %", "preset `topology_first`", (_LOSSES,)),
    Row("4", "initial weights", "`LossWeights`", _WEIGHTS),
    Row(
        *("4", "`forward`: the sum of seven weighted terms", "`loss.total`"),
        ("test_loss.py::test_the_total_is_the_weighted_sum_of_the_samples_means",),
    ),
    Row("4", "Dice", "`loss.dice`", ("test_loss.py::test_dice_by_hand",)),
    Row("4", "boundary", "`loss.boundary`", ("test_loss.py::test_boundary_by_hand",)),
    Row("4", "clDice", "`loss.cldice`", ("test_loss.py::test_cldice_by_hand_half_of_a_sheet",)),
    Row("4", "connectivity", "`loss.connectivity`", ("test_loss.py::test_connectivity_by_hand",)),
    Row("4", "entropy", "`loss.entropy`", ("test_loss.py::test_entropy_by_its_formula",), "punished twice"),
    Row(
        *("5", "fixes in place, old checkpoints gone, environment", "`fit`: settings, commit and environment"),
        ("test_fit.py::test_a_folder_with_a_run_is_not_overwritten", *_EVIDENCE),
    ),
    Row(
        *("5", "start: `--config`, `--fold`, `--data_dir`", "`surface_train fit`"),
        ("test_main.py::test_a_run_is_asked_for_in_either_spelling",),
    ),
    Row("5", 'watch `grep -E "variance:\\|entropy:"` and `Epoch.*Val`', "`fit`", _LINE),
    Row(
        *("5", "early stopping not before the end", "`validation.patience`"),
        ("test_settings.py::test_averaging_lasts_from_its_first_epoch_to_the_runs_last",),
        "when patience ends, the averaging still runs",
    ),
    Row("5", "expected log lines, epochs 1, 10, 50", "`fit`", (*_LINE, _PROGRESS)),
    Row("6", "`swa_model.pth` exists", "`swa.safetensors`", _EVIDENCE),
    Row(
        *("6", "inference on a test image", "`surface_kernel predict`"),
        ("test_fit.py::test_a_real_network_is_trained_and_the_kernel_runs_it_as_the_validation_would",),
    ),
    Row("6", "foreground, min, max, mean, std, verdict above 95 %", "`surface_train audit`", _AUDIT),
    Row(
        *("6", "variance and entropy not near 0 while training", "`log.csv`, sentinel"),
        ("test_sentinel.py::test_the_fifth_strike_in_a_row_stops_the_run",),
    ),
    Row("6", "Dice, total loss, epochs: the checklist's numbers", "`log.csv`", (_PROGRESS,)),
    Row(
        *("6", "predictions not 99.88 %", "`surface_train audit`, sentinel"),
        ("test_audit.py::test_probabilities_that_went_through_a_sigmoid_twice_are_found_out",),
    ),
    Row("7", "variance loss 0.80 → 0.05", "`log.csv`", (_PROGRESS, *_LEAST), "never below 0.827"),
    Row("7", "entropy loss, Dice, total loss, foreground", "`log.csv`", (_PROGRESS,)),
    Row("7", "before: variance 0.0001, Dice 0.56–0.57", "preset `original`", (_PROGRESS,)),
    Row("7", "after: variance 0.15–0.25, Dice 0.65–0.75", "preset `rebalanced`", (_PROGRESS,)),
    Row("8", "gradients −1.998, −1.0, −0.02", "`loss.variance`", _SLOPES, "a variance above 0.25 cannot be"),
    Row(
        *("8", "H(0), H(0.5), H(1)", "`loss.entropy`"),
        ("test_loss.py::test_entropy_is_nothing_when_sure_and_log_2_when_not",),
    ),
    Row("8", "penalty max(0.5 − H, 0)", "`loss.entropy`", ("test_loss.py::test_entropy_by_its_formula",)),
)


def text() -> list[str]:
    """Write the table."""
    told = (
        "Tests are named below `tests/train`. The guide's paths, its conda environment, nohup and its greps in the "
        "source are not part of it."
    )
    lines = [[row.part, row.what, row.built, "<br>".join(_shown(one) for one in row.shown), row.remark] for row in ROWS]
    return [told, grid(["part", "row", "built in", "shown by", "remark"], lines)]


def _shown(one: str) -> str:
    return one if one.startswith(HERE) else f"`{one}`"

"""Every row of the guide: where it is implemented, and the test or measurement that shows it."""

from dataclasses import dataclass

from surface_study.expectations import grid

HERE = "above"  # evidence that is a table of this page


@dataclass(frozen=True, kw_only=True)
class GuideRow:
    """A row of the guide."""

    part: str
    what: str
    built: str
    """Where it is implemented."""
    shown: tuple[str, ...]
    """Tests, as FILE::NAME of a file below tests/train, or HERE and the name of a table of this page."""
    remark: str = ""
    """Such as where the row cannot be true."""


_WEIGHTS = ("test_loss_weights.py::test_the_presets_hold_the_guides_numbers",)
_POINTS = ("test_loss.py::test_both_formulas_at_the_points_of_the_guides_table",)
_SLOPES = ("test_loss.py::test_both_slopes_at_the_points_of_the_guides_derivation",)
_LINE = ("test_fit.py::test_it_says_the_guides_line_with_every_term_in_order",)
_AUDIT = ("test_audit.py::test_probabilities_are_judged_by_share_and_spread",)
_LEAST = ("test_loss.py::test_the_guides_variance_term_is_least_on_two_unsure_halves_and_punishes_the_truth",)
_EVIDENCE = ("test_fit.py::test_a_run_leaves_its_evidence",)
_PROGRESS, _LOSSES, _READINGS, _DATA = (
    f"{HERE}: {name}" for name in ("the guide's expected results", "the losses", "the ways of inference", "the data")
)

ROWS = (
    GuideRow(
        part="1",
        what="training data 57.70 % ± 19.62 % foreground",
        built="`fit`, `label_2`",
        shown=(_DATA,),
        remark="label 2 counted as surface",
    ),
    GuideRow(
        part="1",
        what="the model predicts 99.88 % foreground",
        built="`surface_study.reference`",
        shown=(_READINGS,),
        remark="of the reference's inference",
    ),
    GuideRow(part="1", what="Dice weight 0.4 makes everything foreground", built="preset `original`", shown=(_LOSSES,)),
    GuideRow(
        part="1",
        what="original weights, seven of them",
        built="preset `original`",
        shown=_WEIGHTS,
        remark="they sum to 0.8",
    ),
    GuideRow(part="1", what="fixed weights, seven of them", built="preset `rebalanced`", shown=_WEIGHTS),
    GuideRow(
        part="1",
        what="focal alpha 0.25 → 0.75",
        built="`focal_background`",
        shown=("test_loss.py::test_focal_by_hand_and_its_three_quarters_weigh_the_background",),
        remark="0.75 weighs the background",
    ),
    GuideRow(
        part="2",
        what="clamped variance loss: 0.99, 0.90, 0, 0",
        built="`variance_kind` clamped",
        shown=_POINTS,
        remark="at 0.001 it is 0.90",
    ),
    GuideRow(
        part="2",
        what="new loss: 0.998 … 0.250, seven points",
        built="`variance_kind` exponential",
        shown=_POINTS,
        remark="0.998 belongs to 0.001",
    ),
    GuideRow(
        part="2",
        what="`variance_regularization(pred)`, the listing",
        built="`terms.variance`",
        shown=("test_loss.py::test_the_term_is_its_formula_of_a_worlds_variance",),
        remark="on logits, a sample at a time, label 2 ignored",
    ),
    GuideRow(
        part="2",
        what="the new loss always has a gradient",
        built="`terms.variance`",
        shown=("test_loss.py::test_a_uniform_prediction_feels_no_pull_from_its_variance_whatever_the_formula",),
        remark="by the variance; by the logits it is 0 where p is uniform",
    ),
    GuideRow(
        part="2",
        what="table old against new, six rows",
        built="`terms.variance`",
        shown=_POINTS,
        remark="old at 0.001 is 0.90, not 0.99",
    ),
    GuideRow(
        part="3", what="column Old", built="preset `topology_first`", shown=_WEIGHTS, remark="sums to 1.10, not 1.00"
    ),
    GuideRow(part="3", what="column New", built="preset `rebalanced`", shown=_WEIGHTS),
    GuideRow(
        part="3",
        what="perfect topology was 60 % of the loss",
        built="preset `topology_first`",
        shown=_WEIGHTS,
        remark="0.2 of 1.1",
    ),
    GuideRow(
        part="3", what="old weights make a single blob of 99.88 %", built="preset `topology_first`", shown=(_LOSSES,)
    ),
    GuideRow(part="4", what="initial weights", built="`LossWeights`", shown=_WEIGHTS),
    GuideRow(
        part="4",
        what="`forward`: the sum of seven weighted terms",
        built="`loss.total`",
        shown=("test_loss.py::test_the_total_is_the_weighted_sum_of_the_samples_means",),
    ),
    GuideRow(part="4", what="Dice", built="`terms.dice`", shown=("test_loss.py::test_dice_by_hand",)),
    GuideRow(part="4", what="boundary", built="`terms.boundary`", shown=("test_loss.py::test_boundary_by_hand",)),
    GuideRow(
        part="4", what="clDice", built="`terms.cldice`", shown=("test_loss.py::test_cldice_by_hand_half_of_a_sheet",)
    ),
    GuideRow(
        part="4", what="connectivity", built="`terms.connectivity`", shown=("test_loss.py::test_connectivity_by_hand",)
    ),
    GuideRow(
        part="4",
        what="entropy",
        built="`terms.entropy`",
        shown=("test_loss.py::test_entropy_by_its_formula",),
        remark="punished twice",
    ),
    GuideRow(
        part="5",
        what="fixes in place, old checkpoints gone, environment",
        built="`fit`: settings, commit and environment",
        shown=("test_fit.py::test_a_folder_with_a_run_is_not_overwritten", *_EVIDENCE),
    ),
    GuideRow(
        part="5",
        what="start: `--config`, `--fold`, `--data_dir`",
        built="`surface_train fit`",
        shown=("test_main.py::test_a_run_is_asked_for_in_either_spelling",),
    ),
    GuideRow(part="5", what='watch `grep -E "variance:\\|entropy:"` and `Epoch.*Val`', built="`fit`", shown=_LINE),
    GuideRow(
        part="5",
        what="early stopping not before the end",
        built="`validation.patience`",
        shown=("test_settings.py::test_averaging_lasts_from_its_first_epoch_to_the_runs_last",),
        remark="after patience is exhausted, averaging still runs",
    ),
    GuideRow(part="5", what="expected log lines, epochs 1, 10, 50", built="`fit`", shown=(*_LINE, _PROGRESS)),
    GuideRow(part="6", what="`swa_model.pth` exists", built="`swa.safetensors`", shown=_EVIDENCE),
    GuideRow(
        part="6",
        what="inference on a test image",
        built="`surface_kernel predict`",
        shown=("test_fit.py::test_a_real_network_is_trained_and_the_kernel_runs_it_as_the_validation_would",),
    ),
    GuideRow(
        part="6",
        what="foreground, min, max, mean, std, verdict above 95 %",
        built="`surface_train audit`",
        shown=_AUDIT,
    ),
    GuideRow(
        part="6",
        what="variance and entropy not near 0 while training",
        built="`log.csv`, sentinel",
        shown=("test_sentinel.py::test_the_fifth_strike_in_a_row_stops_the_run",),
    ),
    GuideRow(part="6", what="Dice, total loss, epochs: the checklist's numbers", built="`log.csv`", shown=(_PROGRESS,)),
    GuideRow(
        part="6",
        what="predictions not 99.88 %",
        built="`surface_train audit`, sentinel",
        shown=("test_audit.py::test_probabilities_that_went_through_a_sigmoid_twice_are_found_out",),
    ),
    GuideRow(
        part="7",
        what="variance loss 0.80 → 0.05",
        built="`log.csv`",
        shown=(_PROGRESS, *_LEAST),
        remark="never below 0.827",
    ),
    GuideRow(part="7", what="entropy loss, Dice, total loss, foreground", built="`log.csv`", shown=(_PROGRESS,)),
    GuideRow(part="7", what="before: variance 0.0001, Dice 0.56–0.57", built="preset `original`", shown=(_PROGRESS,)),
    GuideRow(
        part="7", what="after: variance 0.15–0.25, Dice 0.65–0.75", built="preset `rebalanced`", shown=(_PROGRESS,)
    ),
    GuideRow(
        part="8",
        what="gradients −1.998, −1.0, −0.02",
        built="`terms.variance`",
        shown=_SLOPES,
        remark="a variance above 0.25 is impossible",
    ),
    GuideRow(
        part="8",
        what="H(0), H(0.5), H(1)",
        built="`terms.entropy`",
        shown=("test_loss.py::test_entropy_is_nothing_when_sure_and_log_2_when_not",),
    ),
    GuideRow(
        part="8",
        what="penalty max(0.5 − H, 0)",
        built="`terms.entropy`",
        shown=("test_loss.py::test_entropy_by_its_formula",),
    ),
)


def text() -> list[str]:
    """Return the table and its caption."""
    caption = (
        "Tests are given by file, below `tests/train`, and name. The guide's paths, its conda environment, nohup and "
        "its greps in the source are left out."
    )
    lines = [[row.part, row.what, row.built, "<br>".join(_shown(one) for one in row.shown), row.remark] for row in ROWS]
    return [caption, grid(["part", "row", "implemented in", "shown by", "remark"], lines)]


def _shown(one: str) -> str:
    return one if one.startswith(HERE) else f"`{one}`"

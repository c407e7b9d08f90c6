"""What a run decided, and by which numbers: the weights that ship, and their threshold."""

from collections.abc import Mapping
from typing import Any

from surface_report.training.run_files import RunFiles

_SHIPPED = {"swa": "the averaged weights", "best": "the best single weights", "last": "the latest weights"}


def decisions(run: RunFiles) -> list[str]:
    """Return a sentence for each decision, with its numbers; none while the run has no weights to ship."""
    shipped = run.shipped
    if not shipped:
        return ["No weights have shipped yet: the run is under way, or was stopped."]
    said = [f"Shipped: {_SHIPPED.get(str(shipped.get('shipped')), str(shipped.get('shipped')))}{_epochs(shipped)}."]
    averaged, best = score_in(run.averaged), score_in(run.best)
    if averaged is not None and best is not None:
        margin = run.settings.get("average", {}).get("gate_margin", 0.0)
        said.append(
            f"Gate: {averaged:.4f} averaged, {best:.4f} best single, difference {averaged - best:+.4f}; "
            f"the averaged ones ship unless they are worse by more than {margin}."
        )
    if isinstance(validation := shipped.get("validation"), Mapping):
        tried = shipped.get("score_by_threshold")
        how = f"chosen among {len(tried)}" if isinstance(tried, Mapping) else "named by the settings, or not searched"
        said.append(f"Threshold: {validation.get('threshold')}, {how}.")
    else:
        said.append("The weights are ungated: they were not validated.")
    if not shipped.get("finished", True):
        said.append("The run is not finished: its time limit stopped it, and --resume continues it.")
    return said


def score_in(provenance: Mapping[str, Any]) -> float | None:
    """Return the validation score that a weights file names; None where it was not validated."""
    validation = provenance.get("validation")
    score = validation.get("score") if isinstance(validation, Mapping) else None
    return float(score) if isinstance(score, int | float) else None


def _epochs(shipped: Mapping[str, Any]) -> str:
    count = shipped.get("n_averaged")
    averaged = f", the mean of {count} epochs" if count else ""
    return f"{averaged}, after epoch {shipped.get('epoch')} of {shipped.get('epochs')}"

"""What the scorer wrote, read back: its JSON of all cases, and its breakdown of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from surface_kernel.message import shown
from surface_report.inputs import Inputs, PageError
from surface_score.betti import DIMENSION_WEIGHTS, Matching
from surface_score.leaderboard import SURFACE_DICE_WEIGHT, TOPO_WEIGHT, VOI_WEIGHT

DIMENSIONS = ("components", "tunnels", "cavities")
CAUSES = (*DIMENSIONS, "surface", "split", "merge")


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """The scores of one case, as `surface_score --json` names them."""

    score: float
    topo_score: float
    surface_dice: float
    voi_score: float
    voi_split: float
    voi_merge: float
    dice: float
    predicted_share: float
    truth_share: float
    features: tuple[Matching, ...]
    """Components, tunnels and cavities; empty for a mean."""

    @property
    def lost(self) -> dict[str, float]:
        """Return the points that each cause loses; together with the score they sum to 1.

        The dimensions of topology lose what their F1 lacks, by their weights; the bits of splits and of merges share
        what the VOI score loses in proportion.
        """
        bits = self.voi_split + self.voi_merge
        voi = VOI_WEIGHT * (1 - self.voi_score)
        return self._topology() | {
            "surface": SURFACE_DICE_WEIGHT * (1 - self.surface_dice),
            "split": voi * self.voi_split / bits if bits else 0.0,
            "merge": voi * self.voi_merge / bits if bits else 0.0,
        }

    def _topology(self) -> dict[str, float]:
        pairs = zip(DIMENSIONS, DIMENSION_WEIGHTS, self.features, strict=False)
        missing = {name: weight * (1 - f.f1) for name, weight, f in pairs if f.f1 is not None}
        total = sum(missing.values())
        points = TOPO_WEIGHT * (1 - self.topo_score)
        return {name: points * missing.get(name, 0.0) / total if total else 0.0 for name in DIMENSIONS}


def scores_of(inputs: Inputs, number: int) -> dict[str, ScoreRow] | None:
    """Return the scores of the submission (0) or of what it is compared with (1) by id; None where there are none.

    Raises:
        PageError: for a file that is not what `surface_score` writes.
    """
    if number < len(inputs.score):
        return _read_scores(inputs.score[number])
    if number < len(inputs.explain):
        files = sorted(inputs.explain[number].glob("*.json"))
        return {path.stem: _row(_read(path).get("score"), path) for path in files} or None
    return None


def breakdown_of(inputs: Inputs, number: int, id_: str) -> dict[str, Any] | None:
    """Return the breakdown of a case of the submission (0) or of what it is compared with (1); None if there is none.

    Raises:
        PageError: for a file that is no JSON object.
    """
    if number >= len(inputs.explain):
        return None
    path = inputs.explain[number] / f"{id_}.json"
    return _read(path) if path.is_file() else None


def _read_scores(path: Path) -> dict[str, ScoreRow]:
    cases = _read(path).get("cases")
    if not isinstance(cases, dict) or not cases:
        raise PageError(f"{path}: expected what `surface_score --json` writes, got no table of cases")
    return {str(id_): _row(row, path) for id_, row in cases.items()}


def _row(row: object, path: Path) -> ScoreRow:
    try:
        if not isinstance(row, Mapping):
            raise TypeError(row)
        numbers = {field.name: float(row[field.name]) for field in fields(ScoreRow) if field.name != "features"}
        counts = [row["betti"][str(dimension)] for dimension in range(len(DIMENSIONS))]
        features = tuple(Matching(int(matched), int(predicted), int(true)) for matched, predicted, true in counts)
    except (KeyError, TypeError, ValueError) as error:
        raise PageError(f"{path}: expected scores as `surface_score` writes them, got {shown(row)}") from error
    return ScoreRow(features=features, **numbers)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PageError(f"{path}: expected JSON, got a file that is none ({error})") from error
    if not isinstance(content, dict):
        raise PageError(f"{path}: expected a JSON object, got {shown(content)}")
    return content

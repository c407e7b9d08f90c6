"""What a choice leaves in its folder: table.md, chain.toml, picture.png."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surface_kernel import disk
from surface_tune.choice import LeftOut, Scores, interval
from surface_tune.grid import Candidate

_SHOWN = 15  # chains in the table and the picture, the best by their mean


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A finished choice."""

    candidates: Sequence[Candidate]
    scores: Scores
    """(chains, volumes)."""
    groups: Sequence[str]
    """Of each volume."""
    left_out: Sequence[LeftOut]
    chosen: int
    by: str
    """"scroll" or "case"."""

    @property
    def best(self) -> int:
        """The chain with the best mean over all volumes."""
        return int(self.scores.mean(axis=1).argmax())

    @property
    def nested(self) -> float:
        """The mean score of what was chosen without the volumes that it is reported on."""
        return float(np.average([row.score for row in self.left_out], weights=[row.volumes for row in self.left_out]))

    @property
    def shown(self) -> list[int]:
        """The chains that a person is shown: the best, the chosen one among them."""
        ordered = [int(chain) for chain in np.argsort(-self.scores.mean(axis=1), kind="stable")[:_SHOWN]]
        return ordered if self.chosen in ordered else [*ordered, self.chosen]


def summary(result: Choice) -> list[str]:
    """Return what was chosen, and what that is worth, in lines."""
    names, means = [each.name for each in result.candidates], result.scores.mean(axis=1)
    low, high = interval(result.scores[result.chosen])
    hindsight = float(
        np.average([row.best_score for row in result.left_out], weights=[row.volumes for row in result.left_out])
    )
    lines = [
        f"chosen: {names[result.chosen]}: {means[result.chosen]:.4f}, 95 % of resamples {low:.4f} to {high:.4f}",
        f"left out by {result.by}: {result.nested:.4f}; the best there in hindsight {hindsight:.4f}, "
        f"gap {hindsight - result.nested:.4f}",
    ]
    if result.best != result.chosen:
        lines.append(
            f"the best mean has: {names[result.best]}: {means[result.best]:.4f}; the chosen one is simpler, and within "
            "one standard error of it"
        )
    return lines


def table(result: Choice) -> str:
    """Return table.md: what was chosen, every left-out scroll, and the best chains."""
    names, groups = [each.name for each in result.candidates], list(dict.fromkeys(result.groups))
    lines = ["# Post-processing, chosen on held-out volumes", "", *(f"- {line}" for line in summary(result)), ""]
    lines += [
        "| left out | volumes | chosen on the others | score | best in hindsight | score |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.group} | {row.volumes} | {names[row.chosen]} | {row.score:.4f} "
        f"| {names[row.best]} | {row.best_score:.4f} |"
        for row in result.left_out
    ]
    lines += ["", f"| chain | {' | '.join(groups)} | mean | 95 % |", f"|---|{'---|' * len(groups)}---|---|"]
    for chain in result.shown:
        scores = result.scores[chain]
        by_group = [scores[[each == group for each in result.groups]].mean() for group in groups]
        low, high = interval(scores)
        cells = " | ".join(f"{mean:.4f}" for mean in (*by_group, scores.mean()))
        lines.append(f"| {names[chain]} | {cells} | {low:.4f} to {high:.4f} |")
    return "\n".join(lines) + "\n"


def chain_toml(result: Choice, base: Path | None) -> str:
    """Return chain.toml for `build --settings`: the chosen steps, beside what `base` says of all else."""
    entries: dict[str, Any] = tomllib.loads(base.read_text(encoding="utf-8")) if base else {}
    for name in ("postprocess", "threshold", "dust_voxels"):
        entries.pop(name, None)
    lines = [f"# {line}" for line in summary(result)]
    lines += ["", *(f"{name} = {json.dumps(value)}" for name, value in entries.items())]
    for step in result.candidates[result.chosen].settings.to_tables():
        lines += ["", "[[postprocess]]", *(f"{name} = {json.dumps(value)}" for name, value in step.items())]
    return "\n".join(lines) + "\n"


def write(result: Choice, out: Path, base: Path | None) -> None:
    """Write table.md, chain.toml and picture.png."""
    disk.put(out / "table.md", table(result).encode())
    disk.put(out / "chain.toml", chain_toml(result, base).encode())
    _draw(result, out / "picture.png")


def _draw(result: Choice, path: Path) -> None:
    """Draw the best chains' scores: a dot a scroll, the mean with its interval."""
    from matplotlib.figure import Figure

    chains, groups = result.shown, list(dict.fromkeys(result.groups))
    figure = Figure(figsize=(10, 1 + 0.35 * len(chains)), layout="constrained")
    axes = figure.add_subplot()
    for place, chain in enumerate(chains):
        scores, (low, high) = result.scores[chain], interval(result.scores[chain])
        axes.plot([low, high], [place, place], color="0.6", linewidth=4, zorder=1)
        axes.plot([scores.mean()], [place], "k|", markersize=12, zorder=3)
        for number, group in enumerate(groups):
            mean = scores[[each == group for each in result.groups]].mean()
            axes.plot([mean], [place], "o", color=f"C{number}", label=group if place == 0 else None, zorder=2)
    labels = [result.candidates[chain].name + (" (chosen)" if chain == result.chosen else "") for chain in chains]
    axes.set_yticks(range(len(chains)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("score; bar: 95 % of resampled volumes")
    axes.legend(fontsize="small")
    with disk.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=100)

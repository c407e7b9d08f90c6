"""What a page is made from."""

from dataclasses import dataclass
from pathlib import Path


class PageError(ValueError):
    """A page that cannot be made from its inputs; the message names the file, what was expected and what to do."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files and folders that a page is made from; at least one is set."""

    run: Path | None = None
    """A run folder of `surface_train fit`."""
    submission: Path | None = None
    """Predicted masks: a submission.zip, a folder or one .tif."""
    compare: Path | None = None
    """Masks to compare with those of `submission`, in the same forms."""
    truth: Path | None = None
    """The labels, a folder with {id}.tif or one .tif."""
    images: Path | None = None
    """The CT, a folder with {id}.tif or one .tif."""
    data: Path | None = None
    """A competition folder, with train.csv."""
    score: tuple[Path, ...] = ()
    """What `surface_score --json` wrote of `submission`, and of `compare`."""
    explain: tuple[Path, ...] = ()
    """What `surface_score --explain` wrote of `submission`, and of `compare`."""
    fields: tuple[Path, ...] = ()
    """Two folders or more with logits of `submission`'s cases, {id}.npy: one for each member or view."""
    warnings: tuple[str, ...] = ()
    """What the scorer warned of, where the score was made for the page."""

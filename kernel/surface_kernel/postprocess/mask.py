"""The one way to a mask: from a field of logits and the settings of a mask.

Validation, the gate, the choice of the threshold, `build --half`, `predict` and the engine behind a submission all make
masks here: a mask is chosen as it will be submitted. The engine applies the threshold to the sums while it stitches, so
that no field is kept; what follows, `finish_mask`, is the same code.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from surface_kernel.message import one_line
from surface_kernel.postprocess.drop_small_components import drop_small_components
from surface_kernel.postprocess.field_steps import hysteresis, smooth
from surface_kernel.postprocess.majority import majority
from surface_kernel.postprocess.mask_settings import MaskSettings, MaskSettingsError
from surface_kernel.postprocess.morphology import close_gaps, open_gaps
from surface_kernel.postprocess.plug import plug
from surface_kernel.postprocess.slit import slit
from surface_kernel.postprocess.steps import (
    Close,
    DropSmallComponents,
    Hysteresis,
    Majority,
    Open,
    Plug,
    Slit,
    Smooth,
    Step,
)
from surface_kernel.probability import above
from surface_kernel.volumes.scanned import clear_unscanned, fill_unscanned

Mask = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
OnFailure = Callable[[str], object]


def make_mask(
    field: Field, scanned: Mask | None, settings: MaskSettings, *, on_failure: OnFailure | None = None
) -> Mask:
    """Return the mask of a field.

    Args:
        field: mean logits, float32 (z, y, x).
        scanned: `volumes.scanned.scanned_bits` of the volume; None where there is no CT.
        settings: the chain; its threshold must be a number.
        on_failure: as `run_mask_steps` has it.

    Returns:
        A new mask: uint8 {0, 1}, (z, y, x).

    Raises:
        MaskSettingsError: for settings that leave the threshold to the weights.
    """
    mask = threshold_field(field, scanned, settings)
    finish_mask(mask, scanned, settings, on_failure=on_failure)
    return mask


def threshold_field(field: Field, scanned: Mask | None, settings: MaskSettings) -> Mask:
    """Return the mask of the steps that read a field, as `make_mask` does before it runs those that read a mask."""
    if settings.threshold is None:
        raise MaskSettingsError("threshold: expected a number, got none: take the weights' own first")
    if settings.field_steps and scanned is not None and settings.clear_unscanned:
        field = field.copy()
        fill_unscanned(field, scanned)  # before anything looks beyond its own voxel
    for step in settings.steps:
        match step:
            case Smooth():
                field = smooth(field, step.sigma)
            case Hysteresis():
                return hysteresis(field, step.low, step.high)
    return above(field, settings.threshold)


def finish_mask(
    mask: Mask, scanned: Mask | None, settings: MaskSettings, *, on_failure: OnFailure | None = None
) -> float:
    """Run what follows the threshold, in place.

    Args:
        mask: uint8 {0, 1} (z, y, x), an array or a memory map: where the field is above the threshold.
        scanned: `volumes.scanned.scanned_bits` of the volume; None where there is no CT.
        settings: the chain.
        on_failure: as `run_mask_steps` has it.

    Returns:
        The share of the mask's voxels that were not scanned and are gone.
    """
    share = clear(mask, scanned, settings)
    run_mask_steps(mask, scanned, settings, on_failure=on_failure)
    return share


def clear(mask: Mask, scanned: Mask | None, settings: MaskSettings) -> float:
    """Set unscanned voxels to 0, in place, where the settings say so; return the share of the mask that is gone."""
    if scanned is None or not settings.clear_unscanned:
        return 0.0
    before, gone = clear_unscanned(mask, scanned)
    return gone / before if before else 0.0


def run_mask_steps(
    mask: Mask, scanned: Mask | None, settings: MaskSettings, *, on_failure: OnFailure | None = None
) -> None:
    """Run the steps that read a mask, in place; what a step sets where nothing was scanned is cleared after it.

    Args:
        mask: uint8 {0, 1} (z, y, x), an array or a memory map, its unscanned voxels cleared.
        scanned: as `finish_mask` has it.
        settings: the chain.
        on_failure: where a step fails, the mask before it is put back, this is called with the step's name and error,
            and the next step runs; None: what the step raises is raised.
    """
    for step in settings.steps:
        if step.reads == "field":
            continue
        before = np.packbits(mask, axis=-1) if on_failure else None  # an eighth: a copy of a large map would not fit
        try:
            run_mask_step(mask, step)
        except Exception as error:  # whatever it is: a mask without one of its steps is better than none
            if on_failure is None or before is None:
                raise
            for plane, bits in zip(mask, before, strict=True):
                plane[:] = np.unpackbits(bits, axis=-1, count=plane.shape[-1])
            on_failure(f"{step.name} failed, the mask before it was kept: {one_line(error)}")
        if step.adds:
            clear(mask, scanned, settings)


def run_mask_step(mask: Mask, step: Step) -> None:
    """Run one step that reads a mask, in place."""
    match step:
        case DropSmallComponents():
            kept = step.keep_touching_faces
            drop_small_components(mask, step.least_voxels, step.connectivity, keep_touching_faces=kept)
        case Majority():
            majority(mask, step.rounds)
        case Close():
            close_gaps(mask, step.radius_z, step.radius_yx)
        case Open():
            open_gaps(mask, step.radius_z, step.radius_yx)
        case Plug():
            plug(mask)
        case Slit():
            slit(mask)

"""The slices of one case, packed for the page's viewer."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_report.html import data_url
from surface_report.slices import grey, kinds
from surface_report.slices.cells import Shape, cell_of, cells_of, middle_voxels
from surface_report.slices.grey import Grey
from surface_report.slices.kinds import Kinds, Mask, Voxel
from surface_report.slices.places import Place, marks, places
from surface_report.slices.planes import Plane, exact_planes
from surface_score.leaderboard import IGNORED
from surface_score.masks import MaskFile, read

_ZLIB_LEVEL = 6  # level 9 takes an eighth off, in ten times the time
_EXACT_QUALITY = 36
_URL_OVERHEAD = 4 / 3  # base64


class SlicesError(ValueError):
    """A case without slices; the message says what was expected."""


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Where a case's volumes are."""

    id: str
    predictions: tuple[MaskFile, ...]
    """Of the submission, and of what it is compared with."""
    truth: MaskFile | None
    image: Path | None
    breakdowns: tuple[Mapping[str, Any] | None, ...]
    """One a prediction: a case's JSON of `surface_score --explain`."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How large a case may get on the page."""

    cells: int
    """On each axis, at most."""
    planes: int
    """At full resolution, at most."""
    bytes: int
    """Of all of it; only the CT's quality gives way."""


@dataclass(frozen=True)
class _Masks:
    predicted: tuple[Mask, ...]
    label: npt.NDArray[np.generic] | None
    grey: Grey | None


def case_slices(files: CaseFiles, room: Room) -> dict[str, object]:
    """Return a case as the viewer reads it.

    Raises:
        SlicesError: if its volumes differ in shape.
        MaskError, VolumeError, OSError: for a file that cannot be read.
    """
    masks = _read_masks(files)
    shape = _shape(masks)
    cells = cells_of(shape, room.cells)
    named = [_named(breakdown, shape, files.id) for breakdown in files.breakdowns]
    listed = [(number, place) for number, (of_one, _) in enumerate(named) for place in of_one]
    changed = [_marked(mask, masks.label, of_one) for mask, (_, of_one) in zip(masks.predicted, named, strict=True)]
    planes = _planes(masks, [place.at for _, place in listed], room.planes) if cells != shape else []
    packed = {
        "id": files.id,
        "shape": shape,
        "cells": cells,
        "columns": grey.columns(cells),
        "kinds": [
            _pack(_reduced(mask, masks.label, cells_zyx=cells, changed=one))
            for mask, one in zip(masks.predicted, changed, strict=True)
        ],
        "hasTruth": masks.label is not None,
        "exact": [_exact(masks, plane, changed) for plane in planes],
        "places": [{"kind": place.kind, "text": place.text, "at": place.at, "of": number} for number, place in listed],
        "ct": None,
    }
    if masks.grey is not None:
        left = room.bytes / _URL_OVERHEAD - _text_bytes(packed) / _URL_OVERHEAD
        small = grey.atlas(grey.reduce(masks.grey, cells))
        packed["ct"] = data_url(grey.webp_within(small, int(left)), "image/webp")
    return packed


def _text_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_text_bytes, value.values()))
    return sum(map(_text_bytes, value)) if isinstance(value, list | tuple) else 8


def _read_masks(files: CaseFiles) -> _Masks:
    return _Masks(
        predicted=tuple(_numbers(file) != 0 for file in files.predictions),
        label=None if files.truth is None else _numbers(files.truth),
        grey=None if files.image is None else volume.read(files.image),
    )


def _numbers(file: MaskFile) -> npt.NDArray[np.generic]:
    """Return a mask as the score reads it: NaN is background."""
    found = read(file)
    return np.nan_to_num(found) if np.issubdtype(found.dtype, np.inexact) else found


def _shape(masks: _Masks) -> Shape:
    arrays = [*masks.predicted, *(array for array in (masks.label, masks.grey) if array is not None)]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise SlicesError(f"expected volumes of one shape, got {' and '.join(map(str, sorted(shapes)))}")
    z, y, x = arrays[0].shape
    return z, y, x


def _named(breakdown: Mapping[str, Any] | None, shape: Shape, id_: str) -> tuple[list[Place], list[kinds.Mark]]:
    if breakdown is None:
        return [], []
    if tuple(breakdown.get("shape_zyx", ())) != shape:
        raise SlicesError(f"expected the breakdown of a volume of {shape}, got one of {breakdown.get('shape_zyx')}")
    try:
        return places(breakdown), marks(breakdown)
    except (KeyError, TypeError, ValueError) as error:
        raise SlicesError(f"expected a breakdown as `surface_score --explain` writes it, got {error!r}") from error


Changed = tuple[npt.NDArray[np.int64], Kinds]


def _marked(mask: Mask, label: npt.NDArray[np.generic] | None, asked: Sequence[kinds.Mark]) -> Changed:
    if label is None:
        return np.empty((0, 3), np.int64), np.empty(0, np.uint8)
    return kinds.marked(mask, label, asked)


def _reduced(mask: Mask, label: npt.NDArray[np.generic] | None, *, cells_zyx: Shape, changed: Changed) -> Kinds:
    """Return the kind of the voxel in each cell's middle; a marked voxel anywhere in it goes before."""
    z, y, x = mask.shape
    axes = zip(mask.shape, cells_zyx, strict=True)
    middles = np.ix_(*(middle_voxels(length, cells) for length, cells in axes))
    small = kinds.kinds_of(mask[middles], None if label is None else label[middles])
    at, values = changed
    cells = cell_of(at, shape_zyx=(z, y, x), cells_zyx=cells_zyx)
    small[tuple(cells.T)] = values
    return small


def _planes(masks: _Masks, named: Sequence[Voxel], most: int) -> list[Plane]:
    if masks.label is None:
        return []
    errors = (masks.predicted[0] != (masks.label != 0)) & (masks.label != IGNORED)
    return exact_planes(errors, named, most)


def _exact(masks: _Masks, plane: Plane, changed: Sequence[Changed]) -> dict[str, object]:
    """Return a plane of a case at full resolution: kinds voxel for voxel, and the CT, compressed."""
    axis, index = plane
    label = None if masks.label is None else np.take(masks.label, index, axis)
    of_each = []
    for mask, (at, values) in zip(masks.predicted, changed, strict=True):
        shown = kinds.kinds_of(np.take(mask, index, axis), label)
        here = at[:, axis] == index
        shown[tuple(np.delete(at[here], axis, axis=1).T)] = values[here]
        of_each.append(_pack(shown))
    ct = None if masks.grey is None else np.ascontiguousarray(np.take(masks.grey, index, axis))
    return {
        "axis": axis,
        "at": index,
        "kinds": of_each,
        "ct": None if ct is None else data_url(grey.webp(ct, _EXACT_QUALITY), "image/webp"),
    }


def _pack(array: Kinds) -> str:
    """Return kinds deflated, in base64: each plane of the first axis as what changes from the one before."""
    changes = array.copy()
    changes[1:] ^= array[:-1]
    return base64.b64encode(zlib.compress(changes.tobytes(), _ZLIB_LEVEL)).decode()

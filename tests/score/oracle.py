"""The official scorer's parts, for those who have them installed: topolosses 0.2.0, surface-distance 0.1, scikit-image.

topolosses carries the compiled Betti matching module that the competition's scorer builds from source. The module is
loaded by its path: the package itself would import torch.
"""

import importlib.util
import itertools
from pathlib import Path

import numpy as np

SPACING = (1.0, 1.0, 1.0)
TOLERANCE = 2.0


def missing():
    """Names the first package that is not installed, None where all are."""
    names = ("topolosses", "surface_distance", "skimage", "cc3d")
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


def betti_module():
    found = importlib.util.find_spec("topolosses")
    [path] = Path(found.submodule_search_locations[0]).glob("losses/betti_matching/src/betti_matching.*.so")
    spec = importlib.util.spec_from_file_location("betti_matching", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def match(predicted, truth):
    """Gives [matched, predicted, true] for the dimensions 0, 1 and 2 of two bool masks; foreground is 0, as there."""
    inverted = [np.ascontiguousarray(~mask).astype(np.uint8) for mask in (predicted, truth)]
    result = betti_module().compute_matching(*inverted)
    matched = [len(found) for found in result.input1_matched_birth_coordinates]
    only_predicted = [len(found) for found in result.input1_unmatched_birth_coordinates]
    only_true = [len(found) for found in result.input2_unmatched_birth_coordinates]
    return [[m, m + p, m + g] for m, p, g in zip(matched, only_predicted, only_true, strict=True)]


def halves(length):
    """Cuts an axis in two, the first part the longer one; an axis of 1 stays whole."""
    return [slice(0, (length + 1) // 2), slice((length + 1) // 2, length)] if length > 1 else [slice(0, length)]


def match_octants(predicted, truth):
    counts = np.zeros((3, 3), int)
    for box in itertools.product(*map(halves, truth.shape)):
        counts += match(predicted[box], truth[box])
    return counts.tolist()


def topo_score(counts):
    weighed = []
    for weight, (m, p, g) in zip((0.34, 0.33, 0.33), counts, strict=True):
        if p + g:
            weighed.append((weight, 2 * m / (p + g) if g else 0.5 / (p + 0.5)))
    return sum(w * f1 for w, f1 in weighed) / sum(w for w, _ in weighed) if weighed else 1.0


def surface_dice(predicted, truth):
    from surface_distance import metrics

    if not predicted.any() or not truth.any():
        return float(predicted.any() == truth.any())
    distances = metrics.compute_surface_distances(truth, predicted, SPACING)
    return float(metrics.compute_surface_dice_at_tolerance(distances, TOLERANCE))


def split_and_merge(predicted, truth):
    import cc3d
    from skimage.metrics import variation_of_information

    either = predicted | truth
    if not either.any():
        return 0.0, 0.0
    sheets = [cc3d.connected_components(mask.astype(np.uint8), connectivity=26)[either] for mask in (truth, predicted)]
    split, merge = variation_of_information(*sheets)
    return float(split), float(merge)


def score(prediction, label):
    """Gives the row of a case as the official scorer does, and its counts."""
    ignored = label == 2
    predicted, truth = (prediction != 0) & ~ignored, (label != 0) & ~ignored
    counts = match_octants(predicted, truth)
    split, merge = split_and_merge(predicted, truth)
    row = {"topo_score": topo_score(counts), "surface_dice": surface_dice(predicted, truth)}
    row |= {"voi_split": split, "voi_merge": merge, "voi_score": 1 / (1 + 0.3 * (split + merge))}
    total = 0.30 * row["topo_score"] + 0.35 * row["surface_dice"] + 0.35 * row["voi_score"]
    return row | {"score": min(max(total, 0.0), 1.0), "betti": counts}

"""What would have helped a case: the points it would gain if one kind of fault were gone, all else as it is."""

from surface_score.betti import Matching, topo_score, total
from surface_score.leaderboard import TOPO_WEIGHT, VOI_WEIGHT, CaseScore
from surface_score.voi import VariationOfInformation

HOLES, SMALL_COMPONENTS, MERGES = "no holes", "no false components", "no merges"
STEPS = {HOLES: "slit", SMALL_COMPONENTS: "drop_small_components", MERGES: "a higher threshold, or open"}
"""The steps of post-processing that aim at each."""


def remedies(score: CaseScore) -> dict[str, float]:
    """Return the points that a case would gain, the most first; what would cost points is negative.

    Bounds, not forecasts: a step that removes faults removes something else too. Without tunnels and cavities those
    that match are lost as well. Components that match none of the truth's are false, whatever their size.

    Args:
        score: of a case, with its octants; for a mean over cases nothing is returned.
    """
    if not score.octants:
        return {}
    components, tunnels, cavities = total(score.octants)
    whole = topo_score((components, tunnels, cavities))
    holeless = components, Matching(0, 0, tunnels.true), Matching(0, 0, cavities.true)
    matched = Matching(components.matched, components.matched, components.true)
    kept_apart = VariationOfInformation(split_bits=score.voi_split, merge_bits=0.0)
    points = {
        HOLES: TOPO_WEIGHT * (topo_score(holeless) - whole),
        SMALL_COMPONENTS: TOPO_WEIGHT * (topo_score((matched, tunnels, cavities)) - whole),
        MERGES: VOI_WEIGHT * (kept_apart.score - score.voi_score),
    }
    return dict(sorted(points.items(), key=lambda entry: -entry[1]))

import json

import numpy as np
import pytest

from surface_score.breakdown import as_dict, as_text, worst_first
from surface_score.explain import explain
from surface_score.leaderboard import masks_of, score_masks
from surface_score.picture import draw

SHAPE = (24, 40, 40)


def explained(prediction, label):
    masks = masks_of(prediction, label)
    return explain(masks, score_masks(masks, 1), 1), masks


@pytest.fixture
def world():
    """Two sheets; in the prediction they are bridged, the one has a hole and the other is short of a corner."""
    label = np.zeros(SHAPE, np.uint8)
    label[[4, 5, 16, 17]] = 1
    label[:, :, 38:] = 2
    prediction = (label == 1).astype(np.uint8)
    prediction[6:16, 3, 3] = 1
    prediction[16:18, 30:32, 10:12] = 0
    prediction[16:18, 20:30, 28:] = 0
    return prediction, label


def test_octants(world):
    found, _ = explained(*world)
    boxes = {tuple(side.start for side in loss.box): loss.matchings for loss in found.octants}
    assert set(boxes) == {(12, 20, 0)}  # the bridge and the bay change no octant's features, only the hole does
    assert [(m.matched, m.predicted, m.true) for m in boxes[12, 20, 0]] == [(0, 0, 0), (0, 1, 0), (0, 0, 0)]
    [loss] = found.octants
    assert loss.points == pytest.approx(found.score.lost["topo"]) == pytest.approx(0.3 * (1 - 0.5 / 1.5))


def test_holes(world):
    found, _ = explained(*world)
    [hole] = found.false_holes
    assert hole.kind == "tunnel"
    assert hole.voxels == 8
    assert 29 <= hole.at[1] <= 32
    assert 9 <= hole.at[2] <= 12
    assert found.lost_holes == ()


def test_a_filled_cavity_is_a_lost_hole():
    label = np.zeros((9, 9, 9), np.uint8)
    label[:4, :4, :4] = 1
    label[1:3, 1:3, 1:3] = 0
    found, _ = explained(np.minimum(label + (np.indices(label.shape) < 4).all(axis=0), 1), label)
    [hole] = found.lost_holes
    assert (hole.kind, hole.voxels) == ("cavity", 8)
    assert all(1 <= at <= 2 for at in hole.at)


def test_sheets_and_surfaces(world):
    found, _ = explained(*world)
    [merge] = found.sheets.merges
    assert merge.contacts[0].at in [(z, 3, 3) for z in range(9, 13)]
    # The middle of the bridge is five steps from either sheet, the inner corner of the bay ten from its rims.
    assert found.predicted_surface.worst_at[1:] == (3, 3)
    assert found.predicted_surface.worst_distance == pytest.approx(5, abs=1)
    assert found.true_surface.worst_distance == pytest.approx(5, abs=1)
    z, y, x = found.true_surface.worst_at
    assert z in (16, 17)
    assert 20 <= y < 30
    assert x >= 28
    assert sum(region.points for region in found.regions) == pytest.approx(found.score.lost["surface dice"])
    assert all(
        side.start <= at < side.stop for region in found.regions for side, at in zip(region.box, region.at, strict=True)
    )


def test_a_perfect_case_has_nothing_to_break_down(world):
    _, label = world
    found, masks = explained(label == 1, label)
    assert found.octants == found.regions == found.false_holes == found.lost_holes == ()
    assert found.predicted_surface.worst_at is None
    assert as_text("7", found).count("none") == 4
    assert draw("7", found, masks).startswith(b"\x89PNG")


@pytest.mark.parametrize(("prediction", "label"), [(0, 1), (1, 0), (0, 0), (1, 2)])
def test_one_or_both_empty(prediction, label):
    found, masks = explained(np.full((5, 6, 7), prediction), np.full((5, 6, 7), label))
    text = as_text("7", found)
    assert ("the other is empty" in text) == ({prediction, label} == {0, 1})
    json.dumps(as_dict(found), allow_nan=False)
    assert draw("7", found, masks).startswith(b"\x89PNG")


def test_the_report_gives_the_places(world):
    found, masks = explained(*world)
    text = as_text("7", found)
    assert text.startswith(f"case 7: score {found.score.score:.4f}, ")
    for words in ("[12:24, 20:40, 0:20]", "merge", "1 and 2 meet over 1 voxels", "tunnel at (", "up to 5"):
        assert words in text
    record = as_dict(found)
    assert record["merges"][0]["contacts"][0]["at"] == list(found.sheets.merges[0].contacts[0].at)
    assert record["octants"][0]["tunnels"] == [0, 1, 0]
    assert record["octants"][0]["box"] == {"start": [12, 20, 0], "stop": [24, 40, 20]}
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert len(draw("7", found, masks)) > 20_000


def test_worst_first(world):
    prediction, label = world
    scores = {"good": score_masks(masks_of(label == 1, label)), "bad": score_masks(masks_of(prediction, label))}
    bad, good = worst_first(scores).splitlines()
    assert bad.startswith(f"bad   {scores['bad'].score:.4f}  lost: topo 0.2")
    assert good.startswith("good  1.0000")

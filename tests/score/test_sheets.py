import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_score.sheets import Contact, UnmatchedSheet, compare_sheets
from surface_score.voi import variation_of_information

SHAPE = (12, 20, 20)


def sheets(*planes):
    mask = np.zeros(SHAPE, bool)
    mask[list(planes)] = True
    return mask


def test_a_bridge_merges_two_sheets():
    truth = sheets(2, 8)
    prediction = truth.copy()
    prediction[3:8, 5, 6:8] = True
    found = compare_sheets(prediction, truth)
    assert (found.true_sheets, found.predicted_components) == (2, 1)
    [merge] = found.merges
    assert (merge.number, merge.voxels, merge.stray_voxels) == (1, 810, 10)
    assert [(part.number, part.voxels, part.shared_voxels) for part in merge.parts] == [(1, 400, 400), (2, 400, 400)]
    [contact] = merge.contacts
    assert contact.numbers == (1, 2)
    assert contact.voxels == 2
    assert contact.at in [(5, 5, 6), (5, 5, 7)]  # halfway
    assert found.splits == found.missed == found.spurious == ()
    assert found.missed_bits == 0
    bits = variation_of_information(prediction, truth)
    assert merge.bits == pytest.approx(bits.merge_bits)
    assert found.false_bits == pytest.approx(bits.split_bits)  # all of it is the bridge, one more part of background


def test_a_cut_splits_a_sheet():
    truth = sheets(4)
    prediction = truth.copy()
    prediction[4, :, 9:11] = False
    [split] = compare_sheets(prediction, truth).splits
    assert (split.voxels, split.stray_voxels) == (400, 40)
    assert [part.shared_voxels for part in split.parts] == [180, 180]
    [contact] = split.contacts
    assert contact == Contact((1, 2), 20, (4, contact.at[1], 9))


def test_narrow_contacts_come_first():
    truth = sheets(1, 5, 9)
    prediction = truth.copy()
    prediction[2:5, 2:8, 2:8] = True
    prediction[6:9, 15, 15] = True
    [merge] = compare_sheets(prediction, truth).merges
    assert [(contact.numbers, contact.voxels) for contact in merge.contacts] == [((2, 3), 1), ((1, 2), 36)]


def test_a_scratch_is_no_part():
    truth = sheets(2, 8)
    prediction = sheets(2)
    prediction[3:8, 5, 5] = True
    prediction[8, 5, :7] = True  # 7 of 400: less than a fiftieth
    assert compare_sheets(prediction, truth).merges == ()
    prediction[8, 5, :8] = True
    assert len(compare_sheets(prediction, truth).merges) == 1


def test_missed_and_spurious():
    truth, prediction = sheets(2, 8), sheets(2)
    truth[5, 4, 4:7] = True
    prediction[11, 0, :2] = prediction[11, 9, 9] = True
    found = compare_sheets(prediction, truth)
    assert found.missed == (UnmatchedSheet(3, 400, (8, 0, 0)), UnmatchedSheet(2, 3, (5, 4, 4)))
    assert found.spurious == (UnmatchedSheet(2, 2, (11, 0, 0)), UnmatchedSheet(3, 1, (11, 9, 9)))


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full(value):
    mask, other = np.full(SHAPE, value), np.zeros(SHAPE, bool)
    for found in (compare_sheets(mask, other), compare_sheets(other, mask), compare_sheets(mask, mask)):
        assert found.merges == found.splits == ()
        assert found.false_bits == found.missed_bits == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.02, 0.1, 0.3]))
def test_bits_are_parts_of_the_whole(seed, density):
    rng = np.random.default_rng(seed)
    prediction, truth = (rng.random((9, 9, 9)) < density for _ in range(2))
    found, bits = compare_sheets(prediction, truth), variation_of_information(prediction, truth)
    assert found.false_bits + sum(split.bits for split in found.splits) <= bits.split_bits + 1e-9
    assert found.missed_bits + sum(merge.bits for merge in found.merges) <= bits.merge_bits + 1e-9

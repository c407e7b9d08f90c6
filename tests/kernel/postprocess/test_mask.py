import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from masks import mask_settings
from scipy import ndimage

from surface_kernel.postprocess import mask as postprocess_mask
from surface_kernel.postprocess.majority import majority
from surface_kernel.postprocess.mask import clear, finish_mask, make_mask, run_mask_steps
from surface_kernel.postprocess.mask_settings import MaskSettings, MaskSettingsError
from surface_kernel.postprocess.steps import (
    STEPS,
    Close,
    DropSmallComponents,
    Hysteresis,
    Majority,
    Open,
    Plug,
    Slit,
    Smooth,
    StepError,
    Threshold,
    step_from_table,
    step_to_table,
)
from surface_kernel.probability import above, probabilities
from surface_kernel.volumes.scanned import scanned_bits, unpacked

fields = arrays(np.float32, st.tuples(*[st.integers(1, 12)] * 3), elements=st.floats(-9, 9, width=32))


def test_a_mask_by_hand():
    """Along x: a component of two, one of one that is dropped, and one of two where nothing was scanned."""
    field = np.full((1, 1, 16), -3, np.float32)
    field[0, 0, [1, 2, 5, 12, 13]] = 3
    volume = np.full((1, 1, 16), 9, np.uint8)
    volume[0, 0, 11:] = 0
    chosen = mask_settings(threshold=0.5, least_voxels=2)
    found = make_mask(field, scanned_bits(volume), chosen)
    assert found.dtype == np.uint8
    assert np.flatnonzero(found).tolist() == [1, 2]
    assert np.flatnonzero(make_mask(field, None, chosen)).tolist() == [1, 2, 12, 13]
    off = mask_settings(threshold=0.5, least_voxels=2, clear_unscanned=False)
    assert np.flatnonzero(make_mask(field, scanned_bits(volume), off)).tolist() == [1, 2, 12, 13]


@settings(deadline=None, max_examples=60)
@given(fields, st.floats(0.01, 0.99), st.integers(0, 9), st.sampled_from([6, 26]), st.booleans(), st.integers(0, 9))
def test_make_mask_is_its_parts_by_definition(field, threshold, least, connectivity, rule, seed):
    volume = np.random.default_rng(seed).integers(0, 2, field.shape, np.uint8)
    volume[: len(volume) // 2] = 0
    chosen = mask_settings(threshold, least, connectivity, rule)
    scanned = scanned_bits(volume)
    expected = above(field, threshold)
    if rule:
        expected *= unpacked(scanned, field.shape[2])
    parts, _ = ndimage.label(expected, ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    expected = expected * (sizes >= least)[parts]
    before = field.copy()
    np.testing.assert_array_equal(make_mask(field, scanned, chosen), expected)
    np.testing.assert_array_equal(field, before)


@settings(deadline=None, max_examples=60)
@given(fields, st.integers(0, 9), st.integers(0, 9))
def test_a_threshold_in_the_sums_and_the_rest_later_is_the_same(field, least, seed):
    """As the engine does: the threshold while it stitches, finish_mask elsewhere."""
    volume = np.random.default_rng(seed).integers(0, 2, field.shape, np.uint8)
    scanned, chosen = scanned_bits(volume), mask_settings(threshold=0.3, least_voxels=least)
    mask = above(field, 0.3)
    seen = unpacked(scanned, field.shape[2])
    gone = finish_mask(mask, scanned, chosen)
    np.testing.assert_array_equal(mask, make_mask(field, scanned, chosen))
    raw = above(field, 0.3)
    assert gone == pytest.approx(raw[~seen].sum() / max(1, raw.sum()))


def test_the_share_that_is_gone_by_hand():
    volume, mask = np.full((6, 8, 8), 9, np.uint8), np.zeros((6, 8, 8), np.uint8)
    volume[:, :3] = 0
    mask[0, 0, :4] = 1
    mask[0, 7, :6] = 1
    assert clear(mask.copy(), scanned_bits(volume), mask_settings()) == 0.4
    assert clear(mask.copy(), None, mask_settings()) == 0.0
    assert clear(mask.copy(), scanned_bits(volume), mask_settings(clear_unscanned=False)) == 0.0
    assert clear(mask * 0, scanned_bits(volume), mask_settings()) == 0.0


def test_a_threshold_that_is_left_to_the_weights_is_no_mask_yet():
    with pytest.raises(MaskSettingsError, match="threshold: expected a number, got none"):
        make_mask(np.zeros((1, 1, 1), np.float32), None, mask_settings())
    assert mask_settings().with_threshold(0.25) == mask_settings(threshold=0.25)


def test_chains_are_compared_without_their_thresholds():
    assert mask_settings(0.3).same_but_threshold(mask_settings())
    assert not mask_settings(0.3).same_but_threshold(mask_settings(0.3, least_voxels=1))
    assert not mask_settings(0.3).same_but_threshold(mask_settings(0.3, clear_unscanned=False))


def test_every_step_says_what_it_reads_and_how_far():
    made = [
        Threshold(),
        Hysteresis(low=0.3, high=0.85),
        Smooth(sigma=1.5),
        DropSmallComponents(least_voxels=1, connectivity=6),
        Majority(rounds=6),
        Close(radius_z=1, radius_yx=3),
        Open(radius_z=2, radius_yx=0),
        Plug(),
        Slit(),
    ]
    assert {step.name: (step.reads, step.adds, step.reach_voxels) for step in made} == {
        "threshold": ("field", False, 0),
        "hysteresis": ("field", False, None),
        "smooth": ("field", False, 5),
        "drop_small_components": ("mask", False, None),
        "majority": ("mask", True, 6),
        "close": ("mask", True, 6),
        "open": ("mask", False, 4),
        "plug": ("mask", True, None),
        "slit": ("mask", False, None),
    }
    assert {step.name: type(step) for step in made} == STEPS
    for step in made:
        assert step_from_table(step_to_table(step)) == step


def test_what_a_step_adds_where_nothing_was_scanned_is_cleared_after_it():
    """A vote fills the edges of the box that was not scanned: 15 of 27 voxels around them are set."""
    volume, field = np.full((12, 12, 12), 9, np.uint8), np.full((12, 12, 12), 3, np.float32)
    volume[3:8, 3:8, 3:8] = 0
    chain = MaskSettings(steps=(Threshold(threshold=0.5), Majority(rounds=1)))
    expected = (volume > 0).astype(np.uint8)
    voted = expected.copy()
    majority(voted, 1)
    assert voted.sum() == expected.sum() + 8 + 12 * 3
    np.testing.assert_array_equal(make_mask(field, scanned_bits(volume), chain), expected)
    off = MaskSettings(steps=chain.steps, clear_unscanned=False)
    assert make_mask(field, scanned_bits(volume), off).all()


def test_steps_run_in_order():
    """A vote closes the tunnel, and slit finds nothing to cut; the cut that slit makes is more than a vote mends."""
    field = np.full((12, 24, 24), -3, np.float32)
    field[1:4, 1:9, 1:9] = 3
    field[:, 4, 4] = -3
    closed, cut = ((Majority(rounds=1), Slit()), (Slit(), Majority(rounds=1)))
    made = [make_mask(field, None, MaskSettings(steps=(Threshold(threshold=0.5), *steps))) for steps in (closed, cut)]
    assert made[0][1:4, 2:8, 2:8].all()
    assert not made[1][1:4, 2:8, 2:8].all()


def test_a_step_that_fails_is_left_out_by_name_or_raises(monkeypatch):
    mask = np.random.default_rng(0).integers(0, 2, (5, 6, 7), np.uint8)
    before, said = mask.copy(), []

    def fails(mask):
        mask[:] = 0
        raise RuntimeError("no\nmore")

    monkeypatch.setattr(postprocess_mask, "slit", fails)
    chain = MaskSettings(steps=(Threshold(), Slit()))
    run_mask_steps(mask, None, chain, on_failure=said.append)
    np.testing.assert_array_equal(mask, before)
    assert said == ["slit failed, the mask before it was kept: RuntimeError: no more"]
    with pytest.raises(RuntimeError, match="no"):
        run_mask_steps(mask, None, chain)


def test_tables_come_back():
    tables = [{"step": "threshold"}, {"step": "drop_small_components", "least_voxels": 7, "connectivity": 6}]
    chosen = MaskSettings.from_entries({"postprocess": tables})
    assert chosen.steps == (Threshold(), DropSmallComponents(least_voxels=7, connectivity=6))
    assert chosen.to_tables() == tables
    assert MaskSettings.from_entries({}) == MaskSettings()
    assert MaskSettings.from_entries(chosen.to_entries()) == chosen


DROP = {"step": "drop_small_components", "least_voxels": 7, "connectivity": 6}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"postprocess": [DROP]}, "postprocess: expected exactly one threshold or hysteresis, got 0"),
        ({"postprocess": []}, "postprocess: expected exactly one threshold or hysteresis, got 0"),
        (
            {"postprocess": [{"step": "threshold"}] * 2},
            "postprocess: expected exactly one threshold or hysteresis, got 2",
        ),
        ({"postprocess": [DROP, {"step": "threshold"}]}, "drop_small_components reads a mask; expected it after"),
        ({"postprocess": "threshold"}, r"postprocess: expected \[\[postprocess\]\] tables, got 'threshold'"),
        ({"postprocess": [], "threshold": 0.5}, r"threshold beside \[\[postprocess\]\]: expected it in a step"),
        ({"postprocess": [], "threshold": 0.5, "dust_voxels": 1}, r"threshold and dust_voxels beside"),
        ({"postprocess": [{"step": "melt"}]}, "step 1: step: expected one of threshold, .*drop_.*, got 'melt'"),
        ({"postprocess": [{}]}, "postprocess, step 1: step: expected one of .*, got None"),
        ({"postprocess": [{"step": ["threshold"]}]}, "step 1: step: expected one of"),
        ({"postprocess": [3]}, "postprocess, step 1: step: expected one of .*, got 3"),
        ({"postprocess": [{"step": "threshold", "level": 1}]}, "threshold: unknown entry 'level'; it has threshold"),
        ({"postprocess": [{"step": "threshold", "threshold": 1}]}, "step 1: threshold: threshold: expected a prob"),
        (
            {"postprocess": [{"step": "threshold"}, DROP | {"connectivity": 18}]},
            "step 2: drop_small_components: connectivity: expected 6 or 26, got 18",
        ),
        (
            {"postprocess": [{"step": "threshold"}, DROP | {"connectivity": 26.0}]},
            r"connectivity: expected 6 or 26, got 26\.0",
        ),
        (
            {"postprocess": [{"step": "threshold"}, {"step": "drop_small_components", "least_voxels": 3}]},
            "drop_small_components: expected the entry connectivity, which has no default",
        ),
        (
            {"postprocess": [{"step": "threshold"}, DROP | {"least_voxels": True}]},
            r"least_voxels: expected a whole number of voxels from 0 to 2\*\*40, got True",
        ),
        (
            {"postprocess": [{"step": "threshold"}, {"step": "slit", "deep": 1}]},
            "slit: unknown entry 'deep'; it has none",
        ),
        (
            {"postprocess": [{"step": "slit"}, {"step": "threshold"}]},
            "slit reads a mask; expected it after the threshold",
        ),
        (
            {"postprocess": [{"step": "threshold"}, {"step": "majority", "rounds": 0}]},
            "step 2: majority: rounds: expected a whole number from 1 to 100, got 0",
        ),
        (
            {"postprocess": [{"step": "threshold"}, {"step": "smooth", "sigma": 1}]},
            "smooth reads the field; expected it before the threshold",
        ),
        (
            {"postprocess": [{"step": "threshold"}, {"step": "hysteresis", "low": 0.3, "high": 0.8}]},
            r"expected exactly one threshold or hysteresis, got 2 \(hysteresis, threshold\)",
        ),
        (
            {"postprocess": [{"step": "hysteresis", "low": 0.8, "high": 0.3}]},
            "low: expected less than high = 0.3, got 0",
        ),
        ({"postprocess": [{"step": "hysteresis", "low": 0.8}]}, "hysteresis: expected the entry high"),
        ({"postprocess": [{"step": "hysteresis", "low": 0, "high": 1}]}, "low: expected a probability .*, got 0"),
        ({"postprocess": [{"step": "smooth", "sigma": 0}]}, "sigma: expected a number above 0, at most 16, got 0"),
        ({"postprocess": [{"step": "smooth", "sigma": "1"}]}, "sigma: expected a number above 0, at most 16, got '1'"),
        (
            {"postprocess": [{"step": "threshold"}, {"step": "close", "radius_z": 1, "radius_yx": 17}]},
            "close: radius_yx: expected a whole number from 0 to 16, got 17",
        ),
        (
            {"postprocess": [{"step": "threshold"}, DROP | {"keep_touching_faces": 1}]},
            "keep_touching_faces: expected true or false, got 1",
        ),
        ({"postprocess": [{"step": "threshold"}, {"step": "majority"}]}, "majority: expected the entry rounds"),
        ({"clear_unscanned": 1}, "clear_unscanned: expected true or false, got 1"),
    ],
)
def test_a_chain_that_cannot_be_meant_is_refused_by_name(entries, expected):
    with pytest.raises(MaskSettingsError, match=expected):
        MaskSettings.from_entries(entries)


def test_a_hysteresis_is_no_threshold_to_be_searched():
    chosen = MaskSettings(steps=(Hysteresis(low=0.25, high=0.75), Plug()))
    assert (chosen.threshold, chosen.with_threshold(0.5)) == (0.25, chosen)
    assert [step.name for step in chosen.field_steps] == ["hysteresis"]
    assert MaskSettings().field_steps == ()


def test_a_step_is_judged_where_it_is_made():
    with pytest.raises(StepError, match="threshold: expected a probability between 0 and 1, got 0"):
        Threshold(threshold=0)
    assert step_from_table({"step": "threshold", "threshold": 0.25}) == Threshold(threshold=0.25)


def test_background_is_below_every_threshold_that_can_be_asked_for_in_float32():
    assert probabilities(np.array([-20], np.float32))[0] < 1e-8

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from masks import mask_settings

from surface_kernel.inference.settings import ENTRIES, Settings, SettingsError, from_json, from_toml, to_json

flips = st.lists(st.sampled_from(["z", "y", "x", "zy", "zx", "xy", "yzx"]), unique=True)


masks = st.builds(
    mask_settings, st.none() | st.floats(0.01, 0.99), st.integers(0, 10**6), st.sampled_from([6, 26]), st.booleans()
)


@hypothesis_settings(deadline=None)
@given(flips, masks)
def test_json_comes_back(views, mask):
    chosen = Settings(views=("none", *views), mask=mask)
    assert from_json(to_json(chosen).encode(), "settings.json") == chosen


STEPS = """
[[postprocess]]
step = "threshold"
threshold = 0.4

[[postprocess]]
step = "drop_small_components"
least_voxels = 20_000
connectivity = 6
"""


def test_toml_is_read(tmp_path, caplog):
    path = tmp_path / "settings.toml"
    path.write_text('# a run\nviews = ["none", "x", "zy"]\nclear_unscanned = false\n' + STEPS)
    expected = mask_settings(threshold=0.4, least_voxels=20_000, connectivity=6, clear_unscanned=False)
    assert from_toml(path) == Settings(views=("none", "x", "zy"), mask=expected)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "mask", "advice"),
    [
        (
            "threshold = 0.4\ndust_voxels = 20_000",
            mask_settings(threshold=0.4, least_voxels=20_000),
            'threshold and dust_voxels: an older form, still read; write postprocess = [{step = "threshold", '
            'threshold = 0.4}, {step = "drop_small_components", least_voxels = 20000, connectivity = 26}]',
        ),
        (
            "dust_voxels = 0",
            mask_settings(),
            'dust_voxels: an older form, still read; write postprocess = [{step = "threshold"}, {step = '
            '"drop_small_components", least_voxels = 0, connectivity = 26}]',
        ),
        (
            "threshold = 0.25",
            mask_settings(threshold=0.25, least_voxels=1000),
            'threshold: an older form, still read; write postprocess = [{step = "threshold", threshold = 0.25}, '
            '{step = "drop_small_components", least_voxels = 1000, connectivity = 26}]',
        ),
    ],
)
def test_the_older_form_is_read_and_told_how_to_say_it_today(tmp_path, caplog, text, mask, advice):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    assert from_toml(path) == Settings(mask=mask)
    assert caplog.messages == [f"{path}: {advice}"]
    path.write_text(advice.partition("write ")[2])  # which is TOML that says the same
    assert from_toml(path) == Settings(mask=mask)
    assert len(caplog.messages) == 1


def test_a_bundle_of_before_is_read():
    content = b'{"compiled": false, "dust_voxels": 20000, "stages": null, "threshold": null, "views": ["none", "x"]}'
    expected = Settings(views=("none", "x"), mask=mask_settings(least_voxels=20_000))
    assert from_json(content, "settings.json") == expected


def test_what_is_not_said_is_the_default(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    assert from_toml(tmp_path / "empty.toml") == from_json(b"{}", "settings.json") == Settings()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tresh = 0.5", "unknown entry 'tresh'; expected only compiled, purpose, stages, views, postprocess, clear_un"),
        ('views = "none"', "views: expected a list of words, got 'none'"),
        ("views = [1]", r"views: expected a list of words, got \[1\]"),
        ("views = []", r'expected a list that begins with "none", got \[\]'),
        ('views = ["x", "none"]', 'expected a list that begins with "none"'),
        ('views = ["none", "a"]', 'expected "none", axes to flip .*, got "a"'),
        ('views = ["none", ""]', 'expected "none", axes to flip .*, got ""'),
        ('views = ["none", "xx"]', 'expected "none", axes to flip .*, got "xx"'),
        ('views = ["none", "xy", "yx"]', 'expected every view once, got "yx", which is the same as "xy"'),
        ('views = ["none", "none"]', 'expected every view once, got "none"'),
        ("compiled = 1", "compiled: expected true or false, got 1"),
        ('purpose = "fun"', "purpose: expected competition or segmentation, got 'fun'"),
        ("purpose = [1]", r"purpose: expected competition or segmentation, got \[1\]"),
        ('threshold = "0.5"', "threshold: expected a probability between 0 and 1, got '0.5'"),
        ("threshold = true", "threshold: expected a probability between 0 and 1, got True"),
        ("threshold = 0", "threshold: expected a probability between 0 and 1, got 0"),
        ("threshold = 1.0", "threshold: expected a probability between 0 and 1, got 1.0"),
        ("threshold = nan", "threshold: expected a probability .*, got nan"),
        ("dust_voxels = 1.5", "dust_voxels: expected a whole number of voxels >= 0, got 1.5"),
        ("dust_voxels = false", "dust_voxels: expected a whole number of voxels >= 0, got False"),
        ("dust_voxels = -1", "dust_voxels: expected a whole number of voxels >= 0, got -1"),
        ("dust_voxels = 2_000_000_000_000", "expected a whole number of voxels from 0 to .*, got 2000000000000"),
        (f"dust_voxels = 0x{'f' * 5000}", "expected a whole number of voxels from 0 to .*, got a huge int"),
        (f"threshold = {'9' * 5000}", "expected a settings file in TOML, which this is not"),
        ("threshold = inf", "threshold: expected a probability .*, got inf"),
        (f"views = {'[' * 2000}{']' * 2000}", "expected a settings file in TOML, which this is not"),
        ('views = ["none", "\\n"]', r"views: expected a list of words, got \['none', '\\n'\]"),
        ('stages = "0 none"', "stages: expected lists such as .*, got '0 none'"),
        ('stages = ["0 none"]', r"stages: expected lists such as .*, got \['0 none'\]"),
        ("stages = [[0]]", 'stages: expected a member and a view such as "0 none", got 0'),
        ('stages = [["0 none"], ["1"]]', "stages: expected a member and a view .*, got '1'"),
        ('stages = [["0 none"], ["-1 x"]]', "stages: expected a member and a view .*, got '-1 x'"),
        ('stages = [["0 none"], ["1.0 x"]]', r"stages: expected a member and a view .*, got '1\.0 x'"),
        ('stages = [["0 none"], ["1  x"]]', "stages: expected a member and a view .*, got '1  x'"),
        ('stages = [["0 none"], ["1 a"]]', 'stages: expected "none", axes to flip .*, got "a"'),
        ('stages = [["0 none"], ["99999 x"]]', "stages: expected a member and a view .*, got '99999 x'"),
        ("stages = []", r'stages: expected \["0 none"\] as the first, got \[\]'),
        ('stages = [["0 x"]]', r"stages: expected .* as the first, got \[\['0 x'\]\]"),
        ('stages = [["1 none"], ["0 none"]]', r"stages: expected .* as the first, got \[\['1 none'\]\]"),
        ('stages = [["0 none", "1 none"]]', r"stages: expected .* as the first, got \[\['0 none', '1 none'\]\]"),
        ('stages = [["0 none"], []]', "stages: expected a member and a view in every stage, got none in stage 1"),
        ('stages = [["0 none"], ["1 none", "0 none"]]', 'stages: expected every pair once, got "0 none" a second time'),
        ('stages = [["0 none"], ["0 xy"], ["0 yx"]]', 'stages: expected every pair once, got "0 yx" a second time'),
        ('views = ["none", "x"]\nstages = [["0 none"]]', r"views: \['none', 'x'\] beside stages; expected one"),
        ("views = [", "expected a settings file in TOML, which this is not"),
    ],
)
def test_what_cannot_be_meant_names_the_file_the_entry_and_what_is_wanted(tmp_path, text, found):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=found) as caught:
        from_toml(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"[]", "expected a JSON object, got a list"),
        (b"{", "in JSON, which this is not"),
        (b"\xff{}", "in JSON, which this is not"),
        (b"[" * 100_000, "in JSON, which this is not"),
        (b'{"\\ud800": 1}', r"unknown entry '\\ud800'; expected only"),
        (b'{"views": ["none", "\\ud800"]}', "views: expected a list of words"),
    ],
)
def test_json_that_cannot_be_meant_is_refused_in_one_line_that_can_be_printed(text, found):
    with pytest.raises(SettingsError, match=found) as caught:
        from_json(text, "settings.json")
    assert str(caught.value).startswith("settings.json: ")
    assert str(caught.value).isprintable()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere: expected a settings file in TOML"):
        from_toml(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("members", "views", "stages"),
    [
        (1, ("none",), [[(0, "none")]]),
        (1, ("none", "x"), [[(0, "none")], [(0, "x")]]),
        (3, ("none",), [[(0, "none")], [(1, "none"), (2, "none")]]),
        (2, ("none", "x", "zy"), [[(0, "none")], [(1, "none")], [(0, "x"), (1, "x")], [(0, "zy"), (1, "zy")]]),
    ],
)
def test_stages_by_hand(members, views, stages):
    assert [list(stage) for stage in Settings(views=views).stages(members)] == stages


STAGED = 'stages = [["0 none"], ["1 none"], ["0 x", "1 xy", "1 yx90"]]\n'


def test_stages_can_be_given(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(STAGED + STEPS)
    chosen = from_toml(path)
    assert chosen.stages(2) == [((0, "none"),), ((1, "none"),), ((0, "x"), (1, "xy"), (1, "yx90"))]
    assert json.loads(to_json(chosen))["stages"] == [["0 none"], ["1 none"], ["0 x", "1 xy", "1 yx90"]]
    assert from_json(to_json(chosen).encode(), "settings.json") == chosen
    assert json.loads(to_json(Settings()))["stages"] is None


@pytest.mark.parametrize("members", [1, 3])
def test_given_stages_use_every_member_and_no_other(tmp_path, members):
    (tmp_path / "settings.toml").write_text(STAGED)
    found = f"stages: expected the members 0 to {members - 1}, as there are weights, got 0, 1"
    with pytest.raises(SettingsError, match=found):
        from_toml(tmp_path / "settings.toml").stages(members)


@hypothesis_settings(deadline=None)
@given(st.integers(1, 4), st.data())
def test_whatever_stages_are_given_come_back_in_their_order(members, data):
    pairs = [(member, view) for member in range(members) for view in ("none", "x", "zy", "yx90")][1:]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True) if pairs else st.just([]))
    cuts = data.draw(st.sets(st.integers(1, len(chosen) - 1))) if len(chosen) > 1 else set()
    edges = [0, *sorted(cuts), len(chosen)]
    later = [chosen[first:last] for first, last in pairwise(edges) if first < last]
    words = [["0 none"], *([f"{member} {view}" for member, view in stage] for stage in later)]
    given = from_json(json.dumps({"stages": words}).encode(), "settings.json")
    assert from_json(to_json(given).encode(), "settings.json") == given
    if {member for member, _ in chosen} | {0} == set(range(members)):
        assert [list(stage) for stage in given.stages(members)] == [[(0, "none")], *later]
    else:
        with pytest.raises(SettingsError, match="stages: expected the members"):
            given.stages(members)


words = st.text("0123none xyz90+\n\ud800", max_size=6) | st.sampled_from(["0 none", "1 x", "none", "x"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=6,
)


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from(ENTRIES) | words, values))
def test_no_value_gets_past_the_door_but_as_what_it_is(entries):
    chosen, refusal = Settings(), ""
    try:
        chosen = from_json(json.dumps(entries).encode(), "settings.json")
    except SettingsError as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert chosen.mask.threshold is None or 0 < chosen.mask.threshold < 1
    assert type(chosen.mask.clear_unscanned) is bool
    assert type(chosen.compiled) is bool
    assert from_json(to_json(chosen).encode(), "settings.json") == chosen


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "s.toml").write_text('views = ["none", "z"]', encoding="utf-8-sig")
    assert from_toml(tmp_path / "s.toml").views == ("none", "z")

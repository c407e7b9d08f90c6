import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from surface_kernel.inference.settings import Settings, SettingsError, from_json, from_toml, to_json

flips = st.lists(st.sampled_from(["z", "y", "x", "zy", "zx", "xy", "yzx"]), unique=True)


@hypothesis_settings(deadline=None)
@given(flips, st.none() | st.floats(0.01, 0.99), st.integers(0, 10**6))
def test_json_comes_back(views, threshold, dust_voxels):
    chosen = Settings(("none", *views), threshold, dust_voxels)
    assert from_json(to_json(chosen).encode(), "settings.json") == chosen


def test_toml_is_read(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('# a run\nviews = ["none", "x", "zy"]\nthreshold = 0.4\ndust_voxels = 20_000\n')
    assert from_toml(path) == Settings(("none", "x", "zy"), 0.4, 20_000)


def test_what_is_not_said_is_the_default(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    assert from_toml(tmp_path / "empty.toml") == from_json(b"{}", "settings.json") == Settings()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tresh = 0.5", "found 'tresh', wanted only compiled, dust_voxels, stages, threshold, views"),
        ('views = "none"', "found views = 'none', wanted a list of words"),
        ("views = [1]", r"found views = \[1\], wanted a list of words"),
        ("views = []", r'found \[\], wanted a list that begins with "none"'),
        ('views = ["x", "none"]', 'wanted a list that begins with "none"'),
        ('views = ["none", "a"]', 'expected "none", axes to flip .*, got "a"'),
        ('views = ["none", ""]', 'expected "none", axes to flip .*, got ""'),
        ('views = ["none", "xx"]', 'expected "none", axes to flip .*, got "xx"'),
        ('views = ["none", "xy", "yx"]', 'expected every view once, got "yx", which is the same as "xy"'),
        ('views = ["none", "none"]', 'expected every view once, got "none"'),
        ("compiled = 1", "found compiled = 1, wanted true or false"),
        ('threshold = "0.5"', "found threshold = '0.5', wanted a number"),
        ("threshold = true", "found threshold = True, wanted a number"),
        ("threshold = 0", "threshold: found 0, wanted a probability"),
        ("threshold = 1.0", "threshold: found 1.0, wanted a probability"),
        ("threshold = nan", "threshold: found nan"),
        ("dust_voxels = 1.5", "found dust_voxels = 1.5, wanted a whole number"),
        ("dust_voxels = false", "found dust_voxels = False, wanted a whole number"),
        ("dust_voxels = -1", "dust_voxels: found -1, wanted 0 or more"),
        ("dust_voxels = 2_000_000_000_000", "dust_voxels: found 2000000000000, wanted 0 or more, to"),
        (f"dust_voxels = 0x{'f' * 5000}", "dust_voxels: found a huge int, wanted 0 or more"),
        (f"threshold = {'9' * 5000}", "found no readable TOML"),
        ("threshold = inf", "threshold: found inf"),
        (f"views = {'[' * 2000}{']' * 2000}", "found no readable TOML"),
        ('views = ["none", "\\n"]', r"found views = \['none', '\\n'\], wanted a list of words"),
        ('stages = "0 none"', "found stages = '0 none', wanted lists such as"),
        ('stages = ["0 none"]', r"found stages = \['0 none'\], wanted lists such as"),
        ("stages = [[0]]", 'stages: found 0, wanted a member and a view such as "0 none"'),
        ('stages = [["0 none"], ["1"]]', "stages: found '1', wanted a member and a view"),
        ('stages = [["0 none"], ["-1 x"]]', "stages: found '-1 x', wanted a member and a view"),
        ('stages = [["0 none"], ["1.0 x"]]', r"stages: found '1\.0 x', wanted a member and a view"),
        ('stages = [["0 none"], ["1  x"]]', "stages: found '1  x', wanted a member and a view"),
        ('stages = [["0 none"], ["1 a"]]', 'stages: expected "none", axes to flip .*, got "a"'),
        ('stages = [["0 none"], ["99999 x"]]', "stages: found '99999 x', wanted a member"),
        ("stages = []", r'stages: found \[\] first, wanted \[\["0 none"\]\]'),
        ('stages = [["0 x"]]', r"stages: found \[\['0 x'\]\] first"),
        ('stages = [["1 none"], ["0 none"]]', r"stages: found \[\['1 none'\]\] first"),
        ('stages = [["0 none", "1 none"]]', r"stages: found \[\['0 none', '1 none'\]\] first"),
        ('stages = [["0 none"], []]', "stages: found stage 1 empty, wanted a member and a view at least"),
        ('stages = [["0 none"], ["1 none", "0 none"]]', 'stages: found "0 none" a second time'),
        ('stages = [["0 none"], ["0 xy"], ["0 yx"]]', 'stages: found "0 yx" a second time'),
        ('views = ["none", "x"]\nstages = [["0 none"]]', r"views: found \['none', 'x'\] beside stages, wanted one"),
        ("views = [", "found no readable TOML"),
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
        (b"[]", "found a list, wanted a JSON object"),
        (b"{", "no readable JSON"),
        (b"\xff{}", "no readable JSON"),
        (b"[" * 100_000, "no readable JSON"),
        (b'{"\\ud800": 1}', r"found '\\ud800', wanted only"),
        (b'{"views": ["none", "\\ud800"]}', "found views = "),
    ],
)
def test_json_that_cannot_be_meant_is_refused_in_one_line_that_can_be_printed(text, found):
    with pytest.raises(SettingsError, match=found) as caught:
        from_json(text, "settings.json")
    assert str(caught.value).startswith("settings.json: ")
    assert str(caught.value).isprintable()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.*found no readable"):
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
    path.write_text(STAGED + "dust_voxels = 3\n")
    chosen = from_toml(path)
    assert chosen.stages(2) == [((0, "none"),), ((1, "none"),), ((0, "x"), (1, "xy"), (1, "yx90"))]
    assert json.loads(to_json(chosen))["stages"] == [["0 none"], ["1 none"], ["0 x", "1 xy", "1 yx90"]]
    assert from_json(to_json(chosen).encode(), "settings.json") == chosen
    assert json.loads(to_json(Settings()))["stages"] is None


@pytest.mark.parametrize("members", [1, 3])
def test_given_stages_use_every_member_and_no_other(tmp_path, members):
    (tmp_path / "settings.toml").write_text(STAGED)
    found = f"stages: found the members 0, 1, wanted each of 0 to {members - 1}, as there are weights"
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
        with pytest.raises(SettingsError, match="stages: found the members"):
            given.stages(members)


words = st.text("0123none xyz90+\n\ud800", max_size=6) | st.sampled_from(["0 none", "1 x", "none", "x"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=6,
)


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["views", "stages", "threshold", "dust_voxels", "compiled"]) | words, values))
def test_no_value_gets_past_the_door_but_as_what_it_is(entries):
    chosen, refusal = Settings(), ""
    try:
        chosen = from_json(json.dumps(entries).encode(), "settings.json")
    except SettingsError as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert chosen.threshold is None or 0 < chosen.threshold < 1
    assert type(chosen.dust_voxels) is int
    assert type(chosen.compiled) is bool
    assert from_json(to_json(chosen).encode(), "settings.json") == chosen

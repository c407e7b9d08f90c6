import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from surface_kernel.settings import Settings, SettingsError, from_json, from_toml, to_json

flips = st.lists(st.sampled_from(["z", "y", "x", "zy", "zx", "xy", "yzx"]), unique=True)


@hypothesis_settings(deadline=None)
@given(flips, st.none() | st.floats(0.01, 0.99), st.integers(0, 10**6))
def test_json_comes_back(folder, views, threshold, dust_voxels):
    chosen = Settings(("none", *views), threshold, dust_voxels)
    (folder / "settings.json").write_text(to_json(chosen))
    assert from_json(folder / "settings.json") == chosen
    assert to_json(from_json(folder / "settings.json")) == to_json(chosen)


def test_toml_is_read(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('# a run\nviews = ["none", "x", "zy"]\nthreshold = 0.4\ndust_voxels = 20_000\n')
    assert from_toml(path) == Settings(("none", "x", "zy"), 0.4, 20_000)


def test_what_is_not_said_is_the_default(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "empty.json").write_text("{}")
    assert from_toml(tmp_path / "empty.toml") == from_json(tmp_path / "empty.json") == Settings()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tresh = 0.5", "found tresh, wanted only compiled, dust_voxels, threshold, views"),
        ('views = "none"', "found views = 'none', wanted a list of words"),
        ("views = [1]", r"found views = \[1\], wanted a list of words"),
        ("views = []", r'found \[\], wanted a list that begins with "none"'),
        ('views = ["x", "none"]', 'wanted a list that begins with "none"'),
        ('views = ["none", "a"]', 'found the view "a", wanted'),
        ('views = ["none", ""]', 'found the view "", wanted'),
        ('views = ["none", "xx"]', 'found the view "xx", wanted'),
        ('views = ["none", "xy", "yx"]', 'found the view "yx" twice, the first as "xy"'),
        ('views = ["none", "none"]', 'found the view "none" twice'),
        ("compiled = 1", "found compiled = 1, wanted true or false"),
        ('threshold = "0.5"', "found threshold = '0.5', wanted a number"),
        ("threshold = true", "found threshold = True, wanted a number"),
        ("threshold = 0", "threshold: found 0, wanted a probability"),
        ("threshold = 1.0", "threshold: found 1.0, wanted a probability"),
        ("threshold = nan", "threshold: found nan"),
        ("dust_voxels = 1.5", "found dust_voxels = 1.5, wanted a whole number"),
        ("dust_voxels = false", "found dust_voxels = False, wanted a whole number"),
        ("dust_voxels = -1", "dust_voxels: found -1, wanted 0 or more"),
        ("views = [", "found no readable TOML"),
    ],
)
def test_what_cannot_be_meant_names_the_file_the_entry_and_what_is_wanted(tmp_path, text, found):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=found) as caught:
        from_toml(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("text", "found"), [("[]", "found a list, wanted a JSON object"), ("{", "no readable JSON")])
def test_json_that_is_no_object_is_refused(tmp_path, text, found):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(SettingsError, match=found):
        from_json(tmp_path / "settings.json")


@pytest.mark.parametrize("read", [from_toml, from_json])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(SettingsError, match=r"nowhere.*found no readable"):
        read(tmp_path / "nowhere")


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

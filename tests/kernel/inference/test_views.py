import itertools

import numpy as np
import pytest
import torch

from surface_kernel.inference.views import View, ViewError, parse_all

FLIPS = ["none", "z", "y", "x", "zy", "zx", "yx", "zyx"]
TURNS = [first + second + angle for first, second in itertools.permutations("zyx", 2) for angle in ("90", "180", "270")]


def seen(name, array):
    return View.parse(name).of(torch.from_numpy(array)[None, None])[0, 0].numpy()


@pytest.mark.parametrize("name", FLIPS)
def test_a_flip_is_numpys(name):
    array = np.arange(24).reshape(2, 3, 4)
    axes = [] if name == "none" else ["zyx".index(letter) for letter in name]
    np.testing.assert_array_equal(seen(name, array), np.flip(array, axes))


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_is_numpys(name):
    array = np.arange(24).reshape(2, 3, 4)
    axes = "zyx".index(name[0]), "zyx".index(name[1])
    np.testing.assert_array_equal(seen(name, array), np.rot90(array, int(name[2:]) // 90, axes))


@pytest.mark.parametrize("names", list(itertools.product(["z", "yx90", "zx270"], repeat=3)))
def test_steps_follow_one_another(names):
    array = np.arange(24).reshape(2, 3, 4)
    expected = array
    for name in names:
        expected = seen(name, np.ascontiguousarray(expected))
    np.testing.assert_array_equal(seen("+".join(names), array), expected)


def test_there_are_48_views_and_each_is_undone():
    names = ["+".join(steps) for steps in itertools.product(FLIPS[1:] + TURNS, repeat=3)]
    views = {View.parse(name) for name in names}
    assert len(views) == 48
    tiles = torch.arange(48).reshape(2, 1, 2, 3, 4)
    for view in views:
        assert torch.equal(view.undo(view.of(tiles)), tiles)


@pytest.mark.parametrize("name", ["", "w", "xx", "yx91", "yy90", "x+", "+x", "none+x", "90", "Z", "zyxz"])
def test_what_is_no_view_is_refused(name):
    with pytest.raises(ViewError, match=r"expected \"none\", axes to flip .*, got"):
        View.parse(name)


def test_the_same_view_under_two_names_is_refused():
    with pytest.raises(ViewError, match='expected every view once, got "yx180", which is the same as "xy"'):
        parse_all(["none", "xy", "yx180"])

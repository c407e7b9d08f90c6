from dataclasses import replace

import pytest

from surface_phantom import LOOKS


def test_looks_differ_as_the_scrolls_do() -> None:
    look = {look.scroll_id: look for look in LOOKS}
    assert set(look) == {26002, 34117, 35360}
    assert look[26002].contrast == min(one.contrast for one in LOOKS)  # low contrast,
    assert look[26002].noise == min(one.noise for one in LOOKS)  # fine noise,
    assert look[26002].pitch == max(one.pitch for one in LOOKS)  # wide gaps
    assert look[34117].air == min(one.air for one in LOOKS)  # dark,
    assert look[34117].noise == max(one.noise for one in LOOKS)  # noisy background
    assert look[35360].blur == max(one.blur for one in LOOKS)  # blurry,
    assert look[35360].thickness / look[35360].pitch == max(one.thickness / one.pitch for one in LOOKS)  # dense


def test_a_look_is_refused_where_sheets_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match="scroll 34117: expected 0 < thickness < pitch, got a thickness of 30 at a pitch of 27"
    ):
        replace(LOOKS[0], thickness=30)


def test_a_look_is_refused_where_grey_values_leave_uint8() -> None:
    with pytest.raises(ValueError, match=r"air below papyrus, got 42\.0 to 262\.0"):
        replace(LOOKS[0], contrast=220.0)

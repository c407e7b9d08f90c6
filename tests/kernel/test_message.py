import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_kernel.message import LENGTH, one_line, printable, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("a\nb", r"'a\nb'"),
        ("\ud800\0", r"'\ud800\x00'"),
        (["é", 1.5], "['é', 1.5]"),
        ("a" * 1000, "'" + "a" * (LENGTH - 1) + "…"),
    ],
)
def test_a_value_is_shown_in_one_short_line(value, text):
    assert shown(value) == text


def test_what_python_cannot_write_is_shown_by_its_kind():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a huge list"
    assert shown(1 << 100_000) == "a huge int"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_printed(text):
    assert printable(text).isprintable()
    printable(text).encode()


def test_an_error_is_its_kind_and_message_on_one_line():
    assert one_line(ValueError("two\n  lines")) == "ValueError: two lines"
    assert one_line(MemoryError()) == "MemoryError:"

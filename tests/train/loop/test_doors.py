"""What a training refuses before its first step, and what it leaves behind then: nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from surface_train.loop.fit import fit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_networks(with_small_networks: Callable, monkeypatch: Any) -> None:
    with_small_networks(monkeypatch)


def test_a_label_that_only_the_end_reads_is_refused_at_the_start(
    world: Any, tmp_path: Path, write_case: Callable, write_table: Callable, make_sheet: Callable
) -> None:
    """One validation case is scored after every epoch, the other one by the whole-fold check alone."""
    rows = [("1", "100"), ("2", "100"), ("3", "200")]
    for name, scroll in rows:
        image, label = make_sheet(0)
        if name == "2":
            label[0, 0, 0] = 255
        write_case(tmp_path / "data", name, scroll, image, label)
    write_table(tmp_path / "data", rows)
    with pytest.raises(ValueError, match=r'2\.tif: expected labels 0, 1 and 2 only, got 255 .* exclude = \["2"\]'):
        fit(replace(world.request(tmp_path / "run"), data=tmp_path / "data"))
    assert not (tmp_path / "run").exists()

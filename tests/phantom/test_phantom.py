import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from surface_phantom import LOOKS, make_volume
from surface_phantom.hardness import measure


@pytest.mark.parametrize(
    "look",
    [LOOKS[0], *(pytest.param(look, marks=pytest.mark.slow) for look in LOOKS[1:])],
    ids=lambda look: str(look.scroll_id),
)
def test_a_volume_of_the_demos_size_is_hard(look) -> None:  # type: ignore[no-untyped-def]
    phantom = make_volume(11, (128, 160, 144), look)
    assert measure(phantom.image, phantom.label).is_real


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, same, other = (make_volume(seed, (48, 64, 56), LOOKS[0]) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.label, same.label)
    assert not np.array_equal(one.image, other.image)
    assert not np.array_equal(one.label, other.label)


def test_memory_is_bounded_by_one_volume() -> None:
    shape = (112, 128, 128)
    make_volume(0, (48, 48, 48), LOOKS[0])  # compiles
    tracemalloc.start()
    try:
        make_volume(5, shape, LOOKS[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * 4 * np.prod(shape)  # float32 copies


def test_no_torch_is_needed() -> None:
    code = "import surface_phantom, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True)

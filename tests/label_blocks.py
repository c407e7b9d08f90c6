"""Random labels in blocks, for tests of what is made of labels."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Label = npt.NDArray[np.uint8]


@st.composite
def labels(draw: st.DrawFn, batch: int = 0) -> Label:
    """Blocks of random labels, some kinds rare or missing, so that there is something to thin and to measure."""
    shape = tuple(draw(st.lists(st.integers(1, 13), min_size=3, max_size=3)))
    shares = draw(st.sampled_from([(1, 1, 1), (1, 9, 0), (9, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 1), (5, 5, 1)]))
    block = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    coarse = rng.choice(3, (batch or 1, *(side // block + 1 for side in shape)), p=np.array(shares) / sum(shares))
    for axis in (1, 2, 3):
        coarse = coarse.repeat(block, axis)
    fine = coarse[:, : shape[0], : shape[1], : shape[2]].astype(np.uint8)
    return fine if batch else fine[0]

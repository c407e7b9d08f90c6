"""The cost of a 320³ phantom: python benchmarks/phantom.py [SIDE]

Prints, for each look, the seconds to generate a volume and to write it, the peak memory of the process, and the
hardness of the volume. A small first volume, for compilation, is not counted.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.volumes.image_files import write_lzw  # noqa: E402
from surface_phantom import LOOKS, make_volume  # noqa: E402
from surface_phantom.hardness import measure  # noqa: E402


def main() -> None:
    """Make one volume of each look."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    make_volume(0, (48, 48, 48), LOOKS[0])
    print("scroll   make_s  write_s  peak_MB  gap  threshold_dice  surface_share")
    with tempfile.TemporaryDirectory() as folder:
        for seed, look in enumerate(LOOKS):
            start = time.perf_counter()
            phantom = make_volume(seed, (side, side, side), look)
            made = time.perf_counter()
            write_lzw(Path(folder) / "image.tif", phantom.image)
            write_lzw(Path(folder) / "label.tif", phantom.label)
            wrote = time.perf_counter()
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            hardness = measure(phantom.image, phantom.label)
            print(
                f"{look.scroll_id}  {made - start:7.1f}  {wrote - made:7.1f}  {peak_mb:7.0f}  {hardness.gap:3.0f}"
                f"  {hardness.threshold_dice:14.2f}  {hardness.surface_share:13.3f}"
            )


if __name__ == "__main__":
    main()

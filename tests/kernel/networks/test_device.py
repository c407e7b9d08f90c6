import pytest
from scenes import run_python

from surface_kernel.networks.device import Device, DeviceError


def test_a_device_goes_to_another_process_and_back():
    sent = Device(
        name="cuda:1",
        dtype="float16",
        batch=4,
        threads=2,
        layout="contiguous",
        tile_voxels=5,
        kept_bytes=7,
        compiled=True,
    )
    assert Device.from_mapping(sent.to_mapping()) == sent
    with pytest.raises(DeviceError, match=r"expected the entries name, dtype, .*, got name"):
        Device.from_mapping({"name": "cpu"})


@pytest.mark.parametrize("changes", [{"dtype": "int8"}, {"layout": "rows"}, {"batch": 0}, {"threads": 0}])
def test_a_device_that_cannot_be_is_refused(changes):
    with pytest.raises(DeviceError, match=r"device: expected a dtype of .*, got Device"):
        Device(**({"name": "cpu", "dtype": "float32", "batch": 1, "threads": 1} | changes))


def test_a_device_is_a_record_that_needs_no_torch():
    done = run_python(
        "import sys, surface_kernel.networks.device\nprint('torch' in sys.modules, 'numba' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"]

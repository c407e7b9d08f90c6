from scenes import run_python


def test_stand_ins_leave_no_trace_and_what_was_loaded_comes_back():
    """At first the library is not there, then it is imported, then it is there already."""
    code = """
import sys
from types import ModuleType
stood_in = ("torchvision", "timm", "timm_3d", "pretrainedmodels", "efficientnet_pytorch")
loaded = {name: ModuleType(name) for name in ("timm", "timm.models", "torchvision")}
sys.modules.update(loaded, segmentation_models_pytorch_3d=None)
finders = list(sys.meta_path)
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.device import Device
from surface_kernel.networks.network import NetworkError, build
for attempt in range(3):
    try:
        build(Architecture("Linknet", "efficientnet-b0"))
        print("built")
    except NetworkError as error:
        assert "pip install --no-deps" in str(error), error
        print("not there")
        del sys.modules["segmentation_models_pytorch_3d"]
    assert sys.meta_path == finders, sys.meta_path
    left = {name: module for name, module in sys.modules.items() if name.split(".")[0] in stood_in}
    assert left == loaded, left
"""
    done = run_python(code)
    assert done.stdout.split("\n") == ["not there", "built", "built", ""], done.stderr


def test_a_stand_in_may_be_subclassed_read_and_written_to():
    """What the library's modules do with what they import, when they are imported."""
    code = """
from surface_kernel.networks.stand_ins import stand_ins
with stand_ins():
    from timm.models.layers import SomeClass, some_function
    from pretrainedmodels.models import pretrained_settings
    import torchvision.models as models

    class Ours(SomeClass):
        pass

    Ours(1, two=2)
    pretrained_settings["resnet18"]["imagenet"]["url"] = "nowhere"
    print("anything" in models.resnet.model_urls, isinstance(some_function, type), hasattr(models, "__path__"))
"""
    done = run_python(code)
    assert done.stdout == "True True True\n", done.stderr

"""Put the simulated CUDA under torch as it is imported, in every process that has SIMULATED_CUDA in its environment.

Python imports a module of this name at its start, wherever on its path it lies: the room's folder `site` is put there.
"""

import importlib.abc
import importlib.util
import os
import sys


class _TorchFinder(importlib.abc.MetaPathFinder):
    """Finds torch as Python would, and lets the simulation in before and after it is executed."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        execute = spec.loader.exec_module

        def exec_module(module):
            import simulated_gpu

            simulated_gpu.load_hooks()
            execute(module)
            simulated_gpu.install()

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("SIMULATED_CUDA"):
    sys.meta_path.insert(0, _TorchFinder())

"""What workers of tests find done: the server that forks them imports this, as it imports torch for workers anyway.

A worker compiles its kernels, or loads them from numba's cache, and imports its networks' library when it needs them;
that is a second or two, and tests start a hundred workers.
"""

from surface_kernel.inference.slab import compile_kernels
from surface_kernel.networks import network

compile_kernels()
network._library()

"""The compiled CPU backend: one pass over the data each way, near the memory's limit.

It is built when the package is installed, if there is a C++ compiler.
"""

from aaren_rl.ops.cpu.kernels import backward, forward, load
from aaren_rl.ops.fused import register

cpu = register("prefix_attention_cpu", forward, backward, "CPU")
_BUILT = load() is not None


def is_built() -> bool:
    """Whether this installation has the compiled kernels."""
    return _BUILT


__all__ = ["cpu", "is_built"]

"""Builds the one compiled part; everything else is in pyproject.toml.

The extension is optional: without a C++ compiler the installation goes on, and the operator runs
on its pure PyTorch backend (`aaren_rl.ops.available_backends()` then lacks `cpu`). It needs no
header of Python or PyTorch and is loaded with ctypes, so it fits every version of both. It holds
code for several generations of processors and chooses when it is loaded: no -march=native.
As it calls nothing of Python, a wheel fits every Python from 3.11 on (tag `cp311-abi3`).

    AAREN_RL_PURE=1 pip wheel --no-deps .    # without it: `py3-none-any`, for every machine
"""

import os

from setuptools import Extension, setup

PURE = os.environ.get("AAREN_RL_PURE", "") not in ("", "0")

KERNELS = Extension(
    "aaren_rl.ops.cpu._prefix_attention",
    ["aaren_rl/ops/cpu/prefix_attention.cpp"],
    depends=["aaren_rl/ops/cpu/vectors.h"],
    language="c++",
    optional=True,
    py_limited_api=True,
    extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-g0",
        "-ffp-contract=fast",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wno-psabi",
    ],
)

setup(
    ext_modules=[] if PURE else [KERNELS],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

"""Builds the one compiled part; everything else is in pyproject.toml.

The extension is optional: without a C++ compiler the installation goes on, and the operator runs
on its pure PyTorch backend (`aaren_rl.ops.available_backends()` then lacks `cpu`). It needs no
header of Python or PyTorch and is loaded with ctypes, so it fits every version of both. It holds
code for several generations of processors and chooses when it is loaded: no -march=native.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "aaren_rl.ops.cpu._prefix_attention",
            ["aaren_rl/ops/cpu/prefix_attention.cpp"],
            depends=["aaren_rl/ops/cpu/vectors.h"],
            language="c++",
            optional=True,
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
    ]
)

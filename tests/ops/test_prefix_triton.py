"""The Triton backend without a GPU: by the interpreter, and compiled for real chips."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aaren_rl.errors import UserError
from aaren_rl.ops import prefix_attention
from aaren_rl.ops import triton as triton_kernels

pytest.importorskip("triton", reason="triton is not installed")

FOLDER = Path(__file__).parent
KERNELS = ("segment_states", "forward", "segment_gradients", "backward")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize(
    ("files", "choice"),
    [
        (["test_prefix_backends.py"], "triton and f32 and not 1000 and not 64 and not -2-"),
        (["test_prefix_backends.py"], "triton and not f32 and not (bf16 and (1000 or 64 or -2-))"),
        (["test_prefix_packed.py", "interpreted.py"], "triton or interpreted"),
    ],
    ids=["float32", "others", "packed"],
)
def test_the_same_matrix_by_the_interpreter(files, choice):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-o", "addopts=", "-W", "ignore::RuntimeWarning", "-k", choice, *files]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10


def compile_kernel(name, dtype, dim, architecture):
    """Compile one variant as `launch` would call it; returns the path of the cubin's resources."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from aaren_rl.ops.triton import kernels, launch

    kernel = getattr(kernels, name)
    block_time, block_dim = launch.block_shape(DTYPES[dtype], dim)
    constants = {"BLOCK_TIME": block_time, "BLOCK_DIM": block_dim}
    numbers = ("packed", "heads", "dim", "time", "segments", "batches", "rows")
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in numbers or argument.startswith(("value_", "d_output_")):
            signature[argument] = "i32"
        elif argument == "offsets":
            signature[argument] = "*i64"
        elif argument in ("values", "outputs", "d_outputs", "d_values"):
            signature[argument] = "*" + dtype
        else:
            signature[argument] = "*fp32"
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (argument, kind) in enumerate(signature.items())
        if kind.startswith("*") or argument == "dim" or argument.startswith(("value_", "d_output_"))
    }
    return triton.compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": launch.WARPS},
    )


def resources(compiled, folder):
    """Registers, stack and local memory of a compiled kernel, as its cubin says."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run(
        [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", said)
    assert found, said
    return tuple(map(int, found.groups()))


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("architecture", [80, 90], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiles_for_real_chips_and_spills_nothing(architecture, kernel, dtype, tmp_path):
    for dim in (32, 128):  # the two widths of a block
        registers, stack, local = resources(
            compile_kernel(kernel, dtype, dim, architecture), tmp_path
        )
        assert 0 < registers <= 255
        assert stack == local == 0


def test_says_what_it_needs():
    if triton_kernels.is_usable():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="'triton' needs a CUDA device"):
        prefix_attention(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1, 3), backend="triton")

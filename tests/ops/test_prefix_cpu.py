"""The compiled CPU backend: odd widths, threads, compilation, and life without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aaren_rl.errors import UserError
from aaren_rl.ops import PrefixState, available_backends, dispatch, prefix_attention

ROOT = Path(__file__).parents[2]
needs_cpu = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="the compiled CPU kernels were not built"
)


def run_with_gradients(backend, scores, values, terms, **options):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (scores, values, *terms)]
    outputs, state = prefix_attention(
        *leaves[:2], initial_state=PrefixState(*leaves[2:]), backend=backend, **options
    )
    results = (outputs, state.output(), state.log_normalizer())
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(r.shape, generator=generator).to(r) for r in results]
    return [*results, *torch.autograd.grad(results, leaves, upstream)]


def draw(batch, time, heads, dim, dtype=torch.float32):
    scores = 3 * torch.randn(batch, time, heads)
    values = torch.randn(batch, time, heads, dim).to(dtype)
    terms = torch.randn(batch, heads), 1 + torch.rand(batch, heads), torch.randn(batch, heads, dim)
    return scores, values, terms


@needs_cpu
@pytest.mark.parametrize("dim", [1, 7, 15, 16, 17, 33, 48, 64, 100, 128, 129, 200, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_width(dim, dtype):
    inputs = draw(1, 140, 2, dim, dtype)
    got = run_with_gradients("cpu", *inputs)
    wanted = run_with_gradients("scan", *inputs)
    error = 2e-2 if dtype == torch.bfloat16 else 1e-5
    for first, second in zip(got, wanted, strict=True):
        size = 1 + float(second.detach().abs().max())
        torch.testing.assert_close(first, second, rtol=error, atol=error * size)


@needs_cpu
@pytest.mark.parametrize("shape", [(1, 3000, 1, 128), (1, 3000, 1, 40), (3, 3000, 2, 48)])
def test_threads_change_only_the_order_of_sums(shape):
    inputs = draw(*shape)
    alone = run_with_gradients("cpu", *inputs)
    torch.set_num_threads(4)
    try:
        together = run_with_gradients("cpu", *inputs)
        again = run_with_gradients("cpu", *inputs)
    finally:
        torch.set_num_threads(1)
    for first, second, third in zip(alone, together, again, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-4)
        assert torch.equal(second, third)  # which thread did what makes no difference


@needs_cpu
def test_compiles_without_a_graph_break():
    scores, values, terms = draw(2, 20, 2, 16)

    def loss(scores, values, *terms):
        outputs, state = prefix_attention(
            scores, values, initial_state=PrefixState(*terms), backend="cpu"
        )
        return outputs.square().sum() + state.output().sum() + state.log_normalizer().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for time in (20, 31):
        scores, values, terms = draw(2, time, 2, 16)
        leaves = [t.detach().requires_grad_() for t in (scores, values, *terms)]
        wanted = torch.autograd.grad(loss(*leaves), leaves)
        got = torch.autograd.grad(compiled(*leaves), leaves)
        for first, second in zip(got, wanted, strict=True):
            torch.testing.assert_close(first, second)


@needs_cpu
def test_exports():
    class Model(torch.nn.Module):
        def forward(self, scores, values, state):
            return prefix_attention(scores, values, initial_state=state)

    scores, values, terms = draw(2, 3, 2, 16)
    time = torch.export.Dim("time", min=1, max=1000)
    exported = torch.export.export(
        Model(),
        (scores, values, PrefixState(*terms)),
        dynamic_shapes=({1: time}, {1: time}, [None, None, None]),
    )
    operators = [str(node.target) for node in exported.graph.nodes]
    assert "aaren_rl.prefix_attention_cpu.default" in operators
    scores, values, terms = draw(2, 50, 2, 16)
    outputs, state = exported.module()(scores, values, PrefixState(*terms))
    wanted, wanted_state = Model()(scores, values, PrefixState(*terms))
    torch.testing.assert_close(outputs, wanted)
    torch.testing.assert_close(state.output(), wanted_state.output())


@needs_cpu
def test_operator_is_registered_soundly():
    scores, values, terms = draw(1, 9, 2, 4, torch.float64)
    leaves = [t.double().requires_grad_() for t in (scores, values, *terms)]
    operator = torch.ops.aaren_rl.prefix_attention_cpu.default
    for arguments in (
        (*leaves, None),
        (*leaves[:2], None, None, None, None),
        (*leaves[:2], None, None, None, torch.tensor([0, 4, 9])),
    ):
        torch.library.opcheck(operator, arguments)


def test_without_the_kernels_auto_goes_on(monkeypatch):
    monkeypatch.setattr(dispatch, "is_built", lambda: False)
    assert "cpu" not in available_backends()
    scores, values, _ = draw(1, 70, 1, 4)
    outputs, _ = prefix_attention(scores, values)
    wanted, _ = prefix_attention(scores, values, backend="chunked")
    assert torch.equal(outputs, wanted)
    with pytest.raises(UserError, match=r"'cpu' is not in this installation.*chunked"):
        prefix_attention(scores, values, backend="cpu")


def test_installs_without_a_compiler(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "build_ext"]
    command += ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path / "temp")]
    environment = {**os.environ, "PATH": str(tmp_path), "CC": "no-cc", "CXX": "no-c++"}
    done = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment
    )
    assert "_prefix_attention" in done.stdout + done.stderr  # it was tried, and failed
    assert not list(tmp_path.rglob("_prefix_attention*.so"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_this_installation_built_the_kernels():
    assert "cpu" in available_backends()

"""Memory of the linear backends: nothing of size time x time, and little kept for backward."""

import pytest
import torch
from prefix_cases import BACKENDS
from torch.utils._python_dispatch import TorchDispatchMode

from aaren_rl.ops import prefix_attention
from aaren_rl.ops.chunked import CHUNK

LINEAR = [name for name in BACKENDS if name in ("chunked", "cpu", "triton")]


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation's result holds."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("backend", LINEAR)
def test_nothing_of_size_time_by_time(backend):
    time, dim = 200_000, 4
    scores = torch.randn(1, time, 1, requires_grad=True)
    values = torch.randn(1, time, 1, dim, requires_grad=True)
    with LargestTensor() as watch:
        outputs, state = prefix_attention(scores, values, backend=backend)
        (outputs.sum() + state.output().sum()).backward()
    assert watch.largest <= 4 * time * max(CHUNK, dim)
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("backend", LINEAR)
def test_keeps_two_numbers_a_token_and_head_for_backward(backend):
    batch, time, heads, dim = 2, 1000, 3, 16
    scores = torch.randn(batch, time, heads, requires_grad=True)
    values = torch.randn(batch, time, heads, dim, requires_grad=True)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs, _ = prefix_attention(scores, values, backend=backend)
    for tensor in (scores, values, outputs):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    assert sum(kept.values()) <= 2 * 4 * batch * time * heads


def test_growth_of_the_scan_is_linear_not_quadratic():
    with LargestTensor() as watch:
        prefix_attention(torch.randn(1, 20_000, 1), torch.randn(1, 20_000, 1, 4), backend="scan")
    assert watch.largest <= 4 * 4 * (20_000 + 1)

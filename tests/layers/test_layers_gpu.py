"""The layers on a real GPU: as on the CPU, stepped, trained, compiled, as a CUDA graph.

`make gpu` runs it. With GPU_CHECK_DEVICE=cpu, as its dry run does, all but the graph runs anywhere.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from aaren_rl.layers import SequenceModel, SequenceState

DEVICE = os.environ.get("GPU_CHECK_DEVICE", "cuda")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WIDTH, LAYERS = 32, 2
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU"),
]


def pair(mixer: str, **options: object) -> tuple[SequenceModel, SequenceModel]:
    """The same model on the CPU and on the device."""
    models = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        models.append(SequenceModel(mixer, WIDTH, layers=LAYERS, **options).to(device).eval())
    models[1].load_state_dict(models[0].state_dict())
    return models[0], models[1]


def tokens(time: int) -> Tensor:
    return torch.randn(3, time, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mixer", ["aaren", "attention", "min-gru"])
def test_outputs_and_gradients_are_those_of_the_cpu(mixer: str) -> None:
    results = []
    for model in pair(mixer):
        x = tokens(70).to(next(model.parameters()).device).requires_grad_()
        out = model(x)[0]
        # Not the sum of squares, nearly constant behind a layer norm: rounding would be left.
        (out * tokens(70).flip(1).to(out.device)).sum().backward()
        weights = [each.grad for each in model.parameters() if each.grad is not None]
        results.append([each.cpu() for each in (x.grad, *weights) if each is not None])
    assert len(results[0]) > 10
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


@torch.no_grad()
def test_steps_are_the_parallel_call() -> None:
    model, x = pair("aaren")[1], tokens(40).to(DEVICE)
    state: SequenceState | None = None
    parts = []
    for each in x.split(3, 1):
        out, state = model(each, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), model(x)[0], **CLOSE)


def test_it_learns_in_bfloat16() -> None:
    model, x = pair("aaren")[1].train(), tokens(50).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = (model(x)[0] - x.flip(-1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@torch.no_grad()
def test_a_compiled_step_is_the_step() -> None:
    model, x = pair("aaren")[1], tokens(6).to(DEVICE)
    backend = "inductor" if DEVICE == "cuda" else "eager"
    compiled = torch.compile(lambda each, state: model(each, state), backend=backend)
    _, state = model(x[:, :3])
    wanted, after = model(x[:, 3:], state)
    got, after_compiled = compiled(x[:, 3:], state)
    torch.testing.assert_close(got, wanted, **CLOSE)
    for name, one in after.tensors().items():
        torch.testing.assert_close(after_compiled.tensors()[name], one, **CLOSE)


@pytest.mark.skipif(DEVICE != "cuda", reason="CUDA graphs need CUDA")
@pytest.mark.parametrize("recency", [(), (0.05,)], ids=["keeps all", "forgets"])
@torch.no_grad()
def test_a_cuda_graph_of_a_step_carries_the_state(recency: tuple[float, ...]) -> None:
    model, x = pair("aaren", recency=recency)[1], tokens(30).to(DEVICE)
    _, begun = model(x[:, :3])
    held, inputs = begun.tensors(), x[:, 3:6].clone()

    def step() -> Tensor:
        before = SequenceState.from_tensors(model.state_types, held)
        out, after = model(inputs, before)
        for name, new in after.tensors().items():
            held[name].copy_(new)
        return out

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    kept = {name: each.clone() for name, each in held.items()}
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    for name, each in kept.items():
        held[name].copy_(each)
    parts = []
    for start in range(3, 30, 3):
        inputs.copy_(x[:, start : start + 3])
        graph.replay()
        parts.append(outputs.clone())
    torch.testing.assert_close(torch.cat(parts, 1), model(x)[0][:, 3:], **CLOSE)

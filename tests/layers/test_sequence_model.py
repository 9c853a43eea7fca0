"""Both mixers behind one interface: a sequence cut, masked or restarted anywhere is the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layers import (
    MIXERS,
    AarenAttention,
    Block,
    CausalSelfAttention,
    LSTMMixer,
    SequenceModel,
    SequenceState,
    register_mixer,
)
from aaren_rl.registry import Registry

WIDTH, LAYERS, HEADS, BATCH = 16, 2, 2, 3
EXACT = {"rtol": 0, "atol": 1e-12}  # in float64
both = pytest.mark.parametrize("mixer", sorted(MIXERS))


def random_model(mixer: str, dtype: torch.dtype = torch.float64) -> SequenceModel:
    """With every parameter away from its (small, zero or one) start, so that nothing hides."""
    torch.manual_seed(7)
    heads = {"heads": HEADS} if MIXERS[mixer].options else {}
    model = SequenceModel(mixer, WIDTH, layers=LAYERS, **heads).to(dtype).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


MODELS = {mixer: random_model(mixer) for mixer in MIXERS}


def tokens(time: int, batch: int = BATCH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, WIDTH, generator=generator, dtype=torch.float64)


def step_through(
    model: SequenceModel, x: Tensor, sizes: list[int], mask: Tensor | None = None
) -> tuple[Tensor, SequenceState]:
    state: SequenceState | None = None
    parts, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        out, state = model(x[:, rows], state, None if mask is None else mask[:, rows])
        parts.append(out)
        start += size
    assert state is not None
    assert start == x.shape[1]
    return torch.cat(parts, dim=1), state


sizes_of_a_split = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@both
@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(sizes=sizes_of_a_split, seed=st.integers(0, 10_000))
def test_any_split_gives_the_parallel_call(mixer: str, sizes: list[int], seed: int) -> None:
    model, x = MODELS[mixer], tokens(sum(sizes), seed=seed)
    wanted, final = model(x)
    outputs, carried = step_through(model, x, sizes)
    torch.testing.assert_close(outputs, wanted, **EXACT)
    # The states mean the same: what follows comes out alike.
    more = tokens(4, seed=seed + 1)
    torch.testing.assert_close(model(more, carried)[0], model(more, final)[0], **EXACT)


@both
@torch.no_grad()
def test_token_by_token_in_float32(mixer: str) -> None:
    model = random_model(mixer, torch.float32)
    x = tokens(200).float()
    wanted, _ = model(x)
    outputs, _ = step_through(model, x, [1] * 200)
    torch.testing.assert_close(outputs, wanted, rtol=0, atol=2e-5)


@both
def test_gradients_flow_through_the_carried_state(mixer: str) -> None:
    """Training on segments with the state kept is training on the whole."""
    model, x = MODELS[mixer], tokens(9)
    upstream = tokens(9, seed=1)
    parameters = dict(model.named_parameters())

    def gradients(outputs: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((outputs * upstream).sum(), list(parameters.values()))

    whole = gradients(model(x)[0])
    cut = gradients(step_through(model, x, [4, 1, 4])[0])
    for name, one, other in zip(parameters, cut, whole, strict=True):
        size = float(other.abs().max())
        torch.testing.assert_close(
            one, other, rtol=0, atol=1e-11 * (1 + size), msg=lambda m, n=name: f"{n}: {m}"
        )
    first, state = model(x[:, :4])
    alone = gradients(torch.cat([first.detach(), model(x[:, 4:], state.detach())[0]], dim=1))
    name = {
        "aaren": "blocks.0.mixer.value.weight",
        "attention": "blocks.0.mixer.query_key_value.weight",
        "lstm": "blocks.0.mixer.lstm.weight_ih_l0",
        "min-gru": "blocks.0.mixer.candidate.weight",
    }[mixer]
    index = list(parameters).index(name)
    assert not torch.allclose(alone[index], whole[index], rtol=1e-3)


@both
@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    sizes=sizes_of_a_split,
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.1, 0.5, 0.9]),
)
def test_masked_tokens_leave_no_trace(
    mixer: str, sizes: list[int], seed: int, share: float
) -> None:
    """Each row equals the sequence without its masked tokens, however it is cut."""
    model, x = MODELS[mixer], tokens(sum(sizes), seed=seed)
    mask = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(seed)) > share
    x[~mask] *= 1e3  # nothing of it may be seen
    more = tokens(2, seed=seed + 1)
    for cut in (sizes, [sum(sizes)]):
        outputs, state = step_through(model, x, cut, mask)
        after, _ = model(more, state)
        assert torch.isfinite(outputs).all()
        for row in range(BATCH):
            kept = x[row : row + 1, mask[row]]
            wanted, _ = model(torch.cat([kept, more[row : row + 1]], dim=1))
            torch.testing.assert_close(outputs[row, mask[row]], wanted[0, :-2], **EXACT)
            torch.testing.assert_close(after[row], wanted[0, -2:], **EXACT)


@both
def test_a_prefix_of_nothing_is_finite_and_has_finite_gradients(mixer: str) -> None:
    model, x = MODELS[mixer], tokens(6)
    mask = torch.ones(BATCH, 6, dtype=torch.bool)
    mask[0] = False
    mask[1, :3] = False
    x.requires_grad_()
    outputs, state = model(x, None, mask)
    assert torch.isfinite(outputs).all()
    (gradient,) = torch.autograd.grad(outputs[mask].square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask].abs().sum(-1) > 0).all()
    with torch.no_grad():  # a row of nothing but masked tokens is a row that begins now
        torch.testing.assert_close(model(x, state)[0][0], model(x)[0][0], **EXACT)


@both
@torch.no_grad()
@pytest.mark.parametrize("row", range(BATCH))
def test_one_row_is_reset_alone(mixer: str, row: int) -> None:
    model, x, more = MODELS[mixer], tokens(7), tokens(5, seed=1)
    _, state = model(x)
    going_on, _ = model(more, state)
    reset = state.reset(torch.arange(BATCH) == row)
    after, _ = model(more, reset)
    afresh, _ = model(more)
    for other in range(BATCH):
        wanted = afresh if other == row else going_on
        torch.testing.assert_close(after[other], wanted[other], **EXACT)
    torch.testing.assert_close(model(more, state)[0], going_on, rtol=0, atol=0)  # untouched


@both
@torch.no_grad()
def test_a_state_indexes_over_the_batch(mixer: str) -> None:
    model, x, more = MODELS[mixer], tokens(7), tokens(5, seed=1)
    _, state = model(x)
    wanted, _ = model(more, state)
    chosen = torch.tensor([2, 0])
    outputs, _ = model(more[chosen], state[chosen])
    torch.testing.assert_close(outputs, wanted[chosen], **EXACT)
    outputs, _ = model(more[1:], state[1:])
    torch.testing.assert_close(outputs, wanted[1:], **EXACT)


@both
@torch.no_grad()
def test_a_later_token_changes_no_earlier_output(mixer: str) -> None:
    model, x = MODELS[mixer], tokens(12)
    before, _ = model(x)
    for changed in range(12):
        y = x.clone()
        y[:, changed] = tokens(1, seed=1)[:, 0]  # (a norm would not see a shift of all elements)
        after, _ = model(y)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert ((after - before)[:, changed:].abs().amax(-1) > 1e-6).all()


@torch.no_grad()
def test_aarens_state_has_as_many_bytes_at_step_10000_as_at_step_1() -> None:
    model = random_model("aaren", torch.float32)
    x = tokens(10_000, batch=1).float()
    state, sizes, last = None, set(), torch.empty(0)
    for part in x.split([1] * 100 + [9800] + [1] * 100, dim=1):
        last, state = model(part, state)
        sizes.add(state.nbytes)
    # a layer: (m, u) a head, and w
    assert sizes == {LAYERS * 4 * (2 * HEADS + WIDTH)}
    wanted, final = model.double()(x.double())
    torch.testing.assert_close(last.double(), wanted[:, -1:], rtol=0, atol=1e-4)
    assert final.nbytes == 2 * state.nbytes  # float64


@torch.no_grad()
def test_the_transformers_cache_grows_with_every_token() -> None:
    model = random_model("attention", torch.float32)
    state, sizes = None, []
    for size in (1, 1, 998, *[1000] * 9):
        _, state = model(tokens(size, batch=1).float(), state)
        sizes.append(state.nbytes)
    token = LAYERS * 2 * WIDTH * 4
    assert sizes == [token * count for count in (1, 2, *range(1000, 10_001, 1000))]


@both
@torch.no_grad()
def test_bf16_autocast(mixer: str) -> None:
    model = random_model(mixer, torch.float32)
    x = tokens(60).float()
    wanted, _ = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = step_through(model, x, [20, 3, 37])
    # The spread of the outputs is about 0.4; bfloat16 has 8 bits, and there are two layers.
    assert float((outputs.float() - wanted).square().mean().sqrt()) < 0.02
    if mixer == "aaren":
        dtypes = {term.dtype for layer in state.layers for term in layer.terms}  # type: ignore[attr-defined]
        assert dtypes == {torch.float32}


class Recorder(nn.Module):
    """A mixer that shows what it was given and answers with something known."""

    def forward(
        self,
        x: Tensor,
        state: object,
        mask: Tensor | None,
        read: slice,
        cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, object]:
        self.seen = (x, state, mask)
        return (3 * x + 1)[:, read], "after"


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_block_norms_first_and_adds_after(activation: str) -> None:
    torch.manual_seed(0)
    mixer = Recorder()
    block = Block(mixer, WIDTH, dropout=0.5, activation=activation).double().eval()  # type: ignore[arg-type]
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x, mask = tokens(5), torch.ones(BATCH, 5, dtype=torch.bool)
    outputs, state = block(x, "before", mask)

    def norm(y: Tensor, layer: nn.LayerNorm) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * layer.weight + layer.bias

    normed = norm(x, block.mixer_norm)
    torch.testing.assert_close(mixer.seen[0], normed, **EXACT)
    assert mixer.seen[1:] == ("before", mask)
    assert state == "after"
    middle = x + 3 * normed + 1
    feed = block.feed_forward
    hidden = norm(middle, block.feed_forward_norm) @ feed.expand.weight.T + feed.expand.bias
    if activation == "relu":
        hidden = hidden.clamp(min=0)
    else:
        inner = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
        hidden = 0.5 * hidden * (1 + inner.tanh())
    wanted = middle + hidden @ feed.contract.weight.T + feed.contract.bias
    torch.testing.assert_close(outputs, wanted, rtol=1e-12, atol=1e-11)


def test_the_two_models_differ_in_their_mixers_alone() -> None:
    def rest(mixer: str) -> dict[str, torch.Size]:
        model = SequenceModel(mixer, WIDTH, layers=LAYERS, heads=HEADS)
        named = model.named_parameters()
        return {name: p.shape for name, p in named if ".mixer." not in name}

    assert rest("aaren") == rest("attention")
    mixers = [type(SequenceModel(mixer, WIDTH).blocks[0].mixer) for mixer in ("aaren", "attention")]
    assert mixers == [AarenAttention, CausalSelfAttention]


def test_dropout_acts_in_training_only() -> None:
    for mixer in MIXERS:
        model = SequenceModel(mixer, WIDTH, layers=1, dropout=0.5)
        x = tokens(6).float()
        assert not torch.equal(model(x)[0], model(x)[0])
        model.eval()
        assert torch.equal(model(x)[0], model(x)[0])


def test_starts_as_gpt2_does() -> None:
    """Normal with sd 0.02; 0.02 / sqrt(2 layers) where a branch joins the stream; biases 0."""
    torch.manual_seed(0)
    for mixer in ("aaren", "attention", "lstm", "min-gru"):
        model = SequenceModel(mixer, 128, layers=8)
        for name, parameter in model.named_parameters():
            if ".lstm." in name or name.endswith("gate.bias"):
                continue  # the recurrent mixers' own start, see test_recurrent_start.py
            if name.endswith("bias"):
                assert (parameter == 0).all(), name
            elif "norm" in name:
                assert (parameter == 1).all(), name
            elif name.endswith("query_token"):
                assert 0.7 < float(parameter.detach().std()) < 1.3, name
            else:
                joins = name.endswith(("mixer.out.weight", "feed_forward.contract.weight"))
                wanted = 0.02 / 4 if joins else 0.02
                assert abs(float(parameter.detach().std()) / wanted - 1) < 0.03, name


def test_unknown_mixers_and_options_are_named() -> None:
    with pytest.raises(UserError, match=r"unknown mixer 'mamba'. Known: aaren, attention, "):
        SequenceModel("mamba", WIDTH)
    known = r"'aaren': unknown option 'head'; did you mean heads\? Known: dilution, heads, recency"
    with pytest.raises(UserError, match=known):
        SequenceModel("aaren", WIDTH, head=2)
    with pytest.raises(UserError, match="'lstm' has no options, got heads"):
        SequenceModel("lstm", WIDTH, heads=2)
    for wrong in ("two", True):
        with pytest.raises(UserError, match=f"option heads must be int, got {wrong!r}"):
            SequenceModel("aaren", WIDTH, heads=wrong)


def test_options_that_are_tuples_come_back_from_json() -> None:
    @dataclass
    class Options:
        sizes: tuple[int, ...] = (1, 2)

    registry: Registry[Any] = Registry("thing")
    registry.register("sized", lambda: None, options=Options)
    given = {"sizes": [3, 4]}
    assert registry.options("sized", given) == {"sizes": (3, 4)}
    assert given == {"sizes": [3, 4]}


def test_the_plug_in_is_the_module_that_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one in which the mixer is written: importing that one registers nothing."""
    monkeypatch.setattr(MIXERS, "_entries", dict(MIXERS._entries))
    register_mixer("tests-small", partial(LSTMMixer))
    register_mixer("tests-lstm", LSTMMixer)
    for name in ("tests-small", "tests-lstm"):
        assert MIXERS[name].module == __name__
        assert name in MIXERS.from_plugins()
    assert not {"lstm", "aaren"} & MIXERS.from_plugins().keys()


@both
@pytest.mark.parametrize("read", [slice(1, None, 3), slice(-1, None), slice(2, 5)])
def test_reading_some_tokens_is_reading_all_and_choosing(mixer: str, read: slice) -> None:
    model, x = MODELS[mixer], tokens(9)
    everything, state = model(x)
    some, after = model(x, read=read)
    torch.testing.assert_close(some, everything[:, read], **EXACT)
    for name, tensor in state.tensors().items():
        torch.testing.assert_close(after.tensors()[name], tensor, **EXACT)


@both
def test_packed_sequences_are_each_its_own(mixer: str) -> None:
    """Outputs and gradients of sequences packed in one row, with nothing passing between them."""
    model, lengths = MODELS[mixer], [5, 1, 9, 2]
    x = tokens(sum(lengths), batch=1).requires_grad_()
    ends = torch.tensor([0, *lengths]).cumsum(0)
    packed, _ = model(x, cu_seqlens=ends)
    alone = torch.cat([model(piece)[0] for piece in x.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, **EXACT)
    upstream = tokens(sum(lengths), batch=1, seed=1)
    leaves = [x, *model.parameters()]
    for one, other in zip(
        torch.autograd.grad((packed * upstream).sum(), leaves),
        torch.autograd.grad((alone * upstream).sum(), leaves),
        strict=True,
    ):
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * (1 + size))
    read = slice(1, None, 3)
    torch.testing.assert_close(model(x, read=read, cu_seqlens=ends)[0], packed[:, read], **EXACT)

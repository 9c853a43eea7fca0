"""Dropout keeps what it should, at the right scale, and repeats itself by the seed."""

import pytest
import torch

from aaren_rl.layers.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_share_and_scale(share, dtype):
    torch.manual_seed(0)
    x = torch.ones(1001, 333, dtype=dtype)  # not a multiple of four
    out = Dropout(share)(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    zero = (out == 0).double()
    deviation = (share * (1 - share) / x.numel()) ** 0.5
    assert abs(float(zero.mean()) - share) < 5 * deviation
    rows = (share * (1 - share) / x.shape[1]) ** 0.5
    assert float((zero.mean(1) - share).abs().max()) < 6 * rows
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=5e-3, atol=0)


def test_neighbours_are_independent():
    torch.manual_seed(1)
    zero = (Dropout(0.5)(torch.ones(400_000)) == 0).double()
    for lag in (1, 2, 3, 4, 8):
        both = float((zero[lag:] * zero[:-lag]).mean())
        assert abs(both - 0.25) < 5 * (0.25 * 0.75 / 400_000) ** 0.5, lag


def test_gradient_goes_where_the_value_went():
    torch.manual_seed(2)
    x = torch.randn(50, 7, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach() / x.detach())


def test_off_in_evaluation_and_at_zero():
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_seed_decides():
    x = torch.ones(1000)
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outs.append(Dropout(0.5)(x))
    assert outs[0].equal(outs[1])
    assert not outs[0].equal(outs[2])


def test_refuses_a_share_outside():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Dropout(1.0)

"""The paper's parallel form: an associative prefix scan over (m, u, w), of logarithmic depth."""

from __future__ import annotations

import torch
from torch import Tensor

from aaren_rl.ops.packed import with_packing
from aaren_rl.ops.recurrent import token_terms
from aaren_rl.ops.state import PrefixState, Terms, divide, fix_gauge, merge_terms, state_dtype


def scan(scores: Tensor, values: Tensor, state: PrefixState | None) -> tuple[Tensor, PrefixState]:
    """Prefix attention by a work-efficient parallel scan, as `chunked`; autograd traces it all."""
    batch, _, heads, dim = values.shape
    dtype = state_dtype(scores, values)
    if state is None:
        state = PrefixState.empty(batch, heads, dim, device=values.device, dtype=dtype)
    initial = fix_gauge(state.terms)
    tokens = token_terms(scores, values, dtype)
    terms = [torch.cat([i[:, None], t], 1) for i, t in zip(initial, tokens, strict=True)]
    maximum, normalizer, weighted_sum = inclusive_scan((terms[0], terms[1], terms[2]))
    outputs = divide(weighted_sum[:, 1:], normalizer[:, 1:])
    # Copies: a view would keep the whole sequence alive behind a small state.
    last = (maximum[:, -1], normalizer[:, -1], weighted_sum[:, -1])
    final = PrefixState(*(term.clone() for term in last))
    return outputs.to(values.dtype), final


def differentiable_gradients(
    inputs: tuple[Tensor | None, ...],
    cu_seqlens: Tensor | None,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The backward pass of the backends whose own one is not differentiable, by autograd.

    They call it when a graph of the gradients is asked for (`create_graph=True`): second
    derivatives are then those of `scan`. `inputs` are scores, values and the initial state's m, u
    and w (`None` for none), `gradients` those of the outputs and the final state's u and w (`None`
    for zero). Returns the gradients of `inputs`, `None` where none is needed.
    """
    scores, values, m0, u0, w0 = inputs
    assert scores is not None
    assert values is not None
    state = None
    if m0 is not None and u0 is not None and w0 is not None:
        state = PrefixState(m0, u0, w0)
    outputs, final = with_packing(scan)(scores, values, state, cu_seqlens)
    results = (outputs, final.normalizer, final.weighted_sum)
    pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None]
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            wanted,
            [gradient for _, gradient in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    )


def inclusive_scan(terms: Terms) -> Terms:
    """All prefixes of a sequence of states `(m [batch, n, heads], u, w [..., dim])`, along axis 1.

    Neighbours are joined in pairs, the half as long sequence is scanned, and each token that
    opens a pair is joined to the prefix before it: about 2 n merges, 2 log2(n) deep.
    """
    length = terms[0].shape[1]
    if length == 1:
        return terms
    pairs = merge_terms(_take(terms, 0, length - 1), _take(terms, 1, length))
    at_odd = inclusive_scan(pairs)
    later = merge_terms(_take(at_odd, 0, (length - 1) // 2, 1), _take(terms, 2, length))
    at_even = [torch.cat([t[:, :1], e], 1) for t, e in zip(terms, later, strict=True)]
    joined = [_interleave(e, o) for e, o in zip(at_even, at_odd, strict=True)]
    return joined[0], joined[1], joined[2]


def _take(terms: Terms, start: int, stop: int, step: int = 2) -> Terms:
    maximum, normalizer, weighted_sum = (t[:, start:stop:step] for t in terms)
    return maximum, normalizer, weighted_sum


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Put `even` at positions 0, 2, ... and `odd` at 1, 3, ... of axis 1."""
    shared = odd.shape[1]
    woven = torch.stack([even[:, :shared], odd], 2).flatten(1, 2)
    return woven if even.shape[1] == shared else torch.cat([woven, even[:, shared:]], 1)

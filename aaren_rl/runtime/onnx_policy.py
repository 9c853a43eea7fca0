"""An exported agent acting through ONNX Runtime, with nothing allocated from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from aaren_rl.errors import UserError
from aaren_rl.runtime.card import Card, Tensor, read_card, read_checked
from aaren_rl.runtime.step_policy import StepPolicy

_FEW = 8  # environments up to which the plain allocator is faster than the arena, by 1 us a step
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxPolicy(StepPolicy):
    """Acts in a batch of environments, as an agent's own policy in mode `carry`, without torch.

    Args:
        file: what `aaren-rl export --format onnx` wrote; its card must lie beside it.
        num_envs: number of environments.
        target_return: the return to ask for, one for all or one each; the agent's own first
            target when `None`.
        threads: threads within an operator; one is fastest for a few environments.
        providers: ONNX Runtime's execution providers.

    Raises:
        UserError: when the file or its card is missing, changed or of another kind, when there is
            no target return, or when one is given for an agent that cannot be asked for it.
    """

    def __init__(
        self,
        file: Path | str,
        num_envs: int = 1,
        target_return: float | Sequence[float] | None = None,
        *,
        threads: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        file = Path(file)
        super().__init__(file, read_card(file), num_envs, target_return)
        self._session = _open(file, self.card, threads, providers, num_envs > _FEW)
        self._bindings = (self._bind(0), self._bind(1))

    def _run(self, turn: int) -> None:
        self._session.run_with_iobinding(self._bindings[turn])

    def _bind(self, turn: int) -> ort.IOBinding:
        """Read state set `turn`, write the other."""
        binding = self._session.io_binding()
        for each, array in zip(self.card.inputs, self._arrays_in(turn), strict=True):
            _bind_array(binding.bind_input, each.name, array)
        for each, array in zip(self.card.outputs, self._arrays_out(turn), strict=True):
            _bind_array(binding.bind_output, each.name, array)
        return binding


def _bind_array(bind: Callable[..., Any], name: str, array: np.ndarray) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _open(
    file: Path, card: Card, threads: int, providers: Sequence[str], arena: bool
) -> ort.InferenceSession:
    if card.kind != "onnx":
        raise UserError(f"{file}: is a {card.kind} export; OnnxPolicy reads --format onnx")
    content = read_checked(file, card)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    try:
        session = ort.InferenceSession(content, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime has no base class of its own for these
        raise UserError(f"{file}: ONNX Runtime does not load it ({error})") from None
    _check_signature(file, "input", card.inputs, session.get_inputs())
    _check_signature(file, "output", card.outputs, session.get_outputs())
    return session


def _check_signature(
    file: Path, what: str, said: Sequence[Tensor], found: Sequence[ort.NodeArg]
) -> None:
    ours = {each.name: (each.dtype, each.shape) for each in said}
    theirs = {each.name: (_TYPES.get(each.type), tuple(each.shape)) for each in found}
    if ours != theirs:
        raise UserError(f"{file}: its card says {what}s {ours}, the file has {theirs}")

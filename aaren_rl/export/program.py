"""Acting with an exported `torch.export` program."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from aaren_rl.runtime.card import read_card, read_checked
from aaren_rl.runtime.step_policy import StepPolicy


class ProgramPolicy(StepPolicy):
    """Acts as `OnnxPolicy` does, with what `--format torch-export` wrote."""

    def __init__(self, file: Path, num_envs: int = 1, target_return: float | None = None) -> None:
        super().__init__(file, read_card(file), num_envs, target_return)
        content = io.BytesIO(read_checked(file, self.card))
        self._program = torch.export.load(content).module()

    @torch.inference_mode()
    def _run(self, turn: int) -> None:
        outputs = self._program(*map(torch.from_numpy, self._arrays_in(turn)))
        for array, output in zip(self._arrays_out(turn), outputs, strict=True):
            array[...] = output.numpy()

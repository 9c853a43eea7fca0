"""Acting through ONNX Runtime in an agent's place: `aaren-rl evaluate --runtime onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aaren_rl.acting import Policy
from aaren_rl.agents import Agent, Mode
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import PolicyMaker
from aaren_rl.export.card import check_card
from aaren_rl.export.command import need_packages, write_step
from aaren_rl.runtime.card import read_card


@contextmanager
def onnx_policies(agent: Agent, file: Path | None = None) -> Iterator[PolicyMaker]:
    """A maker of policies that act through ONNX Runtime.

    Args:
        agent: who would act otherwise; it is exported to a temporary file if there is none.
        file: what `aaren-rl export --format onnx` wrote.

    Raises:
        UserError: when packages are missing, the agent cannot be exported, the file is not one of
            such an agent, or another mode than `carry` is asked for.
    """
    need_packages("onnxruntime")
    from aaren_rl.runtime import OnnxPolicy  # of an optional extra

    with TemporaryDirectory() as folder:
        if file is None:
            exported = Path(folder, "step.onnx")
            write_step(agent, exported)
        else:
            exported = file
            check_card(agent, read_card(exported), exported)

        def make(num_envs: int, target: float | None, mode: Mode | None) -> Policy:
            if mode not in (None, "carry"):
                raise UserError(f"--runtime onnx carries the state: --mode carry, not {mode}")
            return OnnxPolicy(exported, num_envs, target)

        yield make

"""Acting through ONNX Runtime in an agent's place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aaren_rl.acting import Policy
from aaren_rl.agents import Agent, Mode
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import PolicyMaker
from aaren_rl.runtime.card import Card, read_card


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
    # Imported here: the packages behind are an optional extra.
    from aaren_rl.export.command import need_onnx, write_onnx

    need_onnx()
    from aaren_rl.runtime import OnnxPolicy

    with TemporaryDirectory() as folder:
        if file is None:
            file = Path(folder, "step.onnx")
            write_onnx(agent, file)
        exported = file

        def make(num_envs: int, target: float | None, mode: Mode | None) -> Policy:
            if mode not in (None, "carry"):
                raise UserError(f"--runtime onnx carries the state: --mode carry, not {mode}")
            _check_same_task(agent, read_card(exported), exported)
            return OnnxPolicy(exported, num_envs, target)

        yield make


def _check_same_task(agent: Agent, card: Card, file: Path) -> None:
    spec = agent.spec
    ours = (agent.name, spec.observation_space.shape, spec.action_space.shape)
    theirs = (card.agent, card.observation_shape, card.action_shape)
    if ours != theirs:
        raise UserError(
            f"--exported {file}: {theirs[0]} of observations {theirs[1]} and actions {theirs[2]}; "
            f"the run's is {ours[0]} of {ours[1]} and {ours[2]}"
        )

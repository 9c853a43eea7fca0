"""An exported C header, compiled: its size, and a policy that acts with it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from aaren_rl.acting import Policy, StepInputs, check_actions
from aaren_rl.errors import UserError
from aaren_rl.runtime.card import read_card, read_checked

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
SOURCE = """
#include "{header}"
policy_state state_of_one_environment;
int state_bytes(void) {{ return (int)sizeof(policy_state); }}
void reset(policy_state *state, float target) {{ {reset}; }}
void executed(policy_state *state, const float *action) {{ policy_executed(state, action); }}
int step(policy_state *state, const float *observation, float reward, float *action)
{{
    return policy_step(state, observation, reward, action);
}}
"""


@dataclass(frozen=True)
class CSize:
    """Memory that a header needs, by this machine's compiler at -Os for its own processor.

    Attributes:
        flash_bytes: code and constants.
        state_bytes: of one `policy_state`, with its work space.
        stack_bytes: of all functions of the header together (without those of math.h), an upper
            bound for one step.
    """

    flash_bytes: int
    state_bytes: int
    stack_bytes: int

    @property
    def ram_bytes(self) -> int:
        """State and stack."""
        return self.state_bytes + self.stack_bytes


def need_compiler() -> str:
    """The C compiler: `$CC`, or the first of cc, gcc and clang.

    Raises:
        UserError: when there is none.
    """
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise UserError("--format c needs a C compiler to check the header: none of cc, gcc, clang")


def measure_size(header: Path, *, asks_return: bool) -> CSize:
    """Compile a header for size.

    Raises:
        UserError: when it cannot be compiled, or `size` (of binutils) is missing.
    """
    if shutil.which("size") is None:
        raise UserError("--format c needs the program `size` (binutils), to tell the flash")
    with TemporaryDirectory() as folder:
        flags = ("-Os", "-fno-pic", "-fno-asynchronous-unwind-tables", "-fstack-usage", "-c")
        made = _compile(header, Path(folder), "policy.o", flags, asks_return)
        text, data, zeros = _run("size", str(made)).splitlines()[1].split()[:3]
        usage = made.with_suffix(".su").read_text().splitlines()
        stack = sum(int(line.split("\t")[1]) for line in usage)
        return CSize(int(text) + int(data), int(zeros), stack)


def _compile(
    header: Path, folder: Path, name: str, flags: tuple[str, ...], asks_return: bool
) -> Path:
    source, made = folder / "policy.c", folder / name
    reset = "policy_reset(state, target)" if asks_return else "(void)target; policy_reset(state)"
    source.write_text(SOURCE.format(header=header.resolve(), reset=reset))
    _run(need_compiler(), *FLAGS, *flags, str(source), "-o", str(made), "-lm")
    return made


def _run(*command: str) -> str:
    """A command's output; `UserError` with the first line of its errors when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise UserError(f"{Path(command[0]).name} failed: {first}")
    return done.stdout


class CPolicy(Policy):
    """Acts with a compiled header, one `policy_state` for each environment.

    Args:
        file: what `aaren-rl export --format c` wrote; its card must lie beside it.
        agent: the agent that was exported, for its spaces and targets.
        num_envs: number of environments.
        target_return: the return to ask for; the agent's own first target when `None`.

    Raises:
        UserError: when the file was changed, or there is no compiler or target return.
    """

    def __init__(
        self, file: Path, agent: Any, num_envs: int = 1, target_return: float | None = None
    ) -> None:
        read_checked(file, read_card(file))
        spec = agent.spec
        self._targets = agent.targets_for(target_return, num_envs)
        self._codec, self._choices = agent.actions, spec.choices
        with TemporaryDirectory() as folder:
            flags = ("-O2", "-fPIC", "-shared")
            library = _compile(file, Path(folder), "policy.so", flags, agent.asks_return)
            self._c: Any = ctypes.CDLL(str(library))
        self._inputs = StepInputs(
            spec.observation_layout, self._targets, agent.horizon, reward_dtype="float32"
        )
        size = 1 if spec.discrete else spec.action_size
        self._states = np.zeros((num_envs, self._c.state_bytes()), np.uint8)
        self._actions = np.zeros((num_envs, size), np.float32)
        self._timesteps = np.zeros((num_envs, 1), np.int64)

    def act(
        self,
        observations: Any,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: Any = None,
    ) -> Any:
        """See `Policy.act`."""
        shape = (len(self._states), *(self._codec.space.shape or ()))
        if executed_actions is not None:
            done = check_actions(executed_actions, shape, self._choices).astype(np.float32)
            for state, action in zip(self._states, done, strict=True):
                self._c.executed(_pointer(state), _pointer(action))
        starts = self._inputs.update(observations, rewards, dones, self._timesteps)
        for index, state in enumerate(self._states):
            if starts is not None and starts[index]:
                self._c.reset(_pointer(state), ctypes.c_float(self._targets[index]))
                self._timesteps[index] = 0
            failed = self._c.step(
                _pointer(state),
                _pointer(self._inputs.observation[index]),
                ctypes.c_float(self._inputs.reward[index, 0]),
                _pointer(self._actions[index]),
            )
            assert not failed, "the inputs were checked"
        self._timesteps += 1
        self._inputs.advance()
        return self._actions.astype(self._codec.space.dtype).reshape(shape)

    def reset(self, mask: np.ndarray | None = None) -> None:
        """See `Policy.reset`."""
        self._inputs.reset(mask)

    @property
    def state_bytes(self) -> int:
        """Of all environments' `policy_state`, with their work space."""
        return self._states.nbytes


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)

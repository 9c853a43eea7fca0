"""An exported agent acting through ONNX Runtime, with nothing allocated from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from aaren_rl.acting import Policy, StepInputs, check_actions, check_targets
from aaren_rl.errors import UserError
from aaren_rl.runtime.card import Card, Tensor, read_card, read_checked

_FILLED = ("observation", "reward")  # inputs that come from the environments
_FEW = 8  # up to so many environments the plain allocator is faster than the arena, by 1 us a step
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxPolicy(Policy):
    """Acts in a batch of environments, as an agent's own policy in mode `carry`, without torch.

    Two sets of state arrays take turns as the step's input and output, so a step that fails leaves
    the state as it was.

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
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, got {num_envs}")
        self.card, self.num_envs = read_card(file), num_envs
        unknown = {each.name for each in self.card.inputs} - {*self.card.state.values(), *_FILLED}
        if unknown:
            raise UserError(f"{file}: needs inputs that nobody here fills: {sorted(unknown)}")
        self._session = _open(Path(file), self.card, threads, providers, num_envs > _FEW)
        self._action_shape = (num_envs, *self.card.action_shape)
        self._action_dtype = np.dtype(self.card.action_dtype)
        self._remembers = bool(self.card.state)
        targets = np.zeros(num_envs)
        if self.card.asks_return:
            targets = check_targets(target_return, self.card.target_returns, num_envs)
        elif target_return is not None:
            raise UserError(
                f"{file}: target_return {target_return}: this {self.card.agent} cannot be asked "
                "for a return; leave it out"
            )
        self._inputs = StepInputs(
            self.card.observation_shape, targets, self.card.max_episode_length
        )
        self._states = (self._new_states(), self._new_states())
        self._actions = self._new_actions()
        self._bindings = (self._bind(0), self._bind(1))
        self._turn = 0  # which set of arrays holds the present state

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Policy.act`.

        Raises:
            UserError: also for an episode that is longer than the agent's timestep table.
        """
        if self._remembers:
            state = self._states[self._turn]
            starts = self._inputs.take(observations, rewards, dones, state["timestep"])
            if executed_actions is not None:
                executed = check_actions(executed_actions, self._action_shape)
                state[self.card.state["action"]][...] = executed
            if starts is not None:
                self._begin(state, starts)
        else:
            self._inputs.see(observations)
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._inputs.taken()
        self._turn = 1 - self._turn
        return self._actions[self._turn].astype(self._action_dtype)  # a copy

    def reset(self, mask: np.ndarray | None = None) -> None:
        """See `Policy.reset`."""
        self._inputs.reset(mask)

    @property
    def state_bytes(self) -> int:
        """Bytes of everything that goes from one step to the next, all environments together."""
        return sum(array.nbytes for array in self._states[0].values())

    def state(self) -> dict[str, np.ndarray]:
        """A copy of all that goes from this step to the next, under the names of the inputs."""
        return {name: array.copy() for name, array in self._states[self._turn].items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned, of this policy or of another one of the same agent.

        Raises:
            UserError: for the state of another model or number of environments (both shapes are
                named) or numbers that are not finite; nothing has changed then.
        """
        wanted = self.state()
        if set(state) != set(wanted):
            raise UserError(
                f"state: tensors {sorted(wanted)} expected, got {sorted(state)}: another model's?"
            )
        for name, own in wanted.items():
            given = np.asarray(state[name])
            if given.shape != own.shape or given.dtype != own.dtype:
                raise UserError(
                    f"state {name!r}: {own.dtype} {own.shape} expected, got {given.dtype} "
                    f"{given.shape}: the state of another model or number of environments"
                )
            if not np.isfinite(given).all():
                raise UserError(f"state {name!r} is not finite")
        for name, array in self._states[self._turn].items():
            array[...] = state[name]
        if self._remembers:
            self._inputs.jump(self._states[self._turn]["timestep"])

    def _new_states(self) -> dict[str, np.ndarray]:
        by_name = {each.name: each for each in self.card.inputs}
        state = {
            name: np.zeros(by_name[name].sizes(self.num_envs), by_name[name].dtype)
            for name in self.card.state.values()
        }
        self._begin(state, np.ones(self.num_envs, dtype=bool))
        return state

    def _begin(self, state: dict[str, np.ndarray], starts: np.ndarray) -> None:
        """Put the reset state where an episode begins."""
        for name, array in state.items():
            value = self.card.reset_state[name]
            if isinstance(value, str):  # the target return, each environment's own
                array[starts, 0] = self._inputs.targets[starts]
            else:
                array[starts] = value

    def _new_actions(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the action is found after each turn, in the environment's shape.

        As the step's next input it may be part of the state: the same memory then.
        """
        name = self.card.state.get("action")
        if name is not None:
            first, second = (states[name] for states in self._states)
            return first.reshape(self._action_shape), second.reshape(self._action_shape)
        action = next(each for each in self.card.outputs if each.name == "action")
        one = np.zeros(self._action_shape, action.dtype)
        return one, one

    def _bind(self, turn: int) -> ort.IOBinding:
        """Read state set `turn`, write the other; all arrays stay where they are."""
        binding = self._session.io_binding()
        before, after = self._states[turn], self._states[1 - turn]
        for each in self.card.inputs:
            array = before[each.name] if each.name in before else getattr(self._inputs, each.name)
            _bind_array(binding.bind_input, each.name, array)
        for each in self.card.outputs:
            array = self._actions[1 - turn]
            if each.name in self.card.state:
                array = after[self.card.state[each.name]]
            array = array.reshape(each.sizes(self.num_envs))
            _bind_array(binding.bind_output, each.name, array)
        return binding


def _bind_array(bind: object, name: str, array: np.ndarray) -> None:
    assert callable(bind)
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

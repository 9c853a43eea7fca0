"""Acting by a card: the state of an exported step, whatever runs it. NumPy only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.acting import Policy, StepInputs, check_actions, check_starts, check_targets
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout
from aaren_rl.runtime.card import Card

_FILLED = ("observation", "reward")  # inputs that come from the environments


class StepPolicy(Policy):
    """Acts as an agent's own policy in mode `carry`; a subclass runs the step.

    Two sets of state arrays take turns as the step's input and output, so a step that fails leaves
    the state as it was. All arrays stay where they are. `file` is for messages.

    Raises:
        UserError: when the card has unknown inputs, when there is no target return, or when one is
            given for an agent that cannot be asked for it.
    """

    def __init__(
        self,
        file: Path,
        card: Card,
        num_envs: int = 1,
        target_return: float | Sequence[float] | None = None,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, got {num_envs}")
        self.card, self.num_envs = card, num_envs
        unknown = {each.name for each in card.inputs} - {*card.state.values(), *_FILLED}
        if unknown:
            raise UserError(f"{file}: needs inputs that nobody here fills: {sorted(unknown)}")
        self._parts = None if card.action_parts is None else Layout.from_json(card.action_parts)
        self._action_shape = (num_envs, *card.action_shape)
        self._action_dtype = np.dtype(card.action_dtype)
        targets = np.zeros(num_envs)
        if card.asks_return:
            targets = check_targets(target_return, card.target_returns, num_envs)
            if np.abs(targets).max() > np.finfo(np.float32).max:
                raise UserError(f"{file}: target returns {targets}: float32 holds none so large")
        elif target_return is not None:
            raise UserError(
                f"{file}: target_return {target_return}: this {card.agent} cannot be asked "
                "for a return; leave it out"
            )
        observation: Layout | tuple[int, ...] = card.observation_shape
        if card.observation_parts is not None:
            observation = Layout.from_json(card.observation_parts)
        # float32; float64 in older files.
        dtypes = {each.name: each.dtype for each in card.inputs}
        reward_dtype = dtypes.get("reward", "float32")
        self._inputs = StepInputs(
            observation, targets, card.max_episode_length, reward_dtype=reward_dtype
        )
        self._states = (self._new_states(), self._new_states())
        self._actions = self._new_actions()
        self._turn = 0  # the set of arrays that holds the present state

    @abstractmethod
    def _run(self, turn: int) -> None:
        """Run the step on `_arrays_in(turn)` and write `_arrays_out(turn)`."""

    def act(
        self,
        observations: Any,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: Any = None,
    ) -> Any:
        """See `Policy.act`.

        Raises:
            UserError: also for an episode that is longer than the agent's timestep table.
        """
        executed = None
        if executed_actions is not None:
            executed = check_actions(
                executed_actions, self._action_shape, self.card.choices, self._parts
            )
        if self.card.state:
            state = self._states[self._turn]
            starts = self._inputs.update(observations, rewards, dones, state["timestep"])
            if executed is not None and "action" in self.card.state:
                state[self.card.state["action"]][...] = executed
            if starts is not None:
                self._clear(state, starts)
        else:
            self._inputs.set_observations(observations)
        self._run(self._turn)
        self._inputs.advance()
        self._turn = 1 - self._turn
        actions = self._actions[self._turn]
        if self._parts is not None:
            return self._parts.unflatten(actions)
        return actions.astype(self._action_dtype)  # a copy

    def reset(self, mask: np.ndarray | None = None) -> None:
        """See `Policy.reset`."""
        if self.card.state:
            self._inputs.reset(mask)
        else:
            check_starts(mask, self.num_envs)

    @property
    def state_bytes(self) -> int:
        """See `Policy.state_bytes`."""
        return sum(array.nbytes for array in self._states[0].values())

    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state, under the names of the inputs."""
        return {name: array.copy() for name, array in self._states[self._turn].items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned, of this policy or of another one of the same agent.

        Raises:
            UserError: for the state of another model or number of environments (both shapes are
                named) or numbers that are not finite; the state is unchanged.
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
        if self.card.state:
            self._inputs.set_timesteps(self._states[self._turn]["timestep"])

    def _arrays_in(self, turn: int) -> list[np.ndarray]:
        """The step's inputs in the card's order, with state set `turn`."""
        before = self._states[turn]
        return [
            before[each.name] if each.name in before else getattr(self._inputs, each.name)
            for each in self.card.inputs
        ]

    def _arrays_out(self, turn: int) -> list[np.ndarray]:
        """The step's outputs in the card's order, with the other state set."""
        after, state = self._states[1 - turn], self.card.state
        arrays = (
            after[state[each.name]] if each.name in state else self._actions[1 - turn]
            for each in self.card.outputs
        )
        pairs = zip(arrays, self.card.outputs, strict=True)
        return [array.reshape(each.sizes(self.num_envs)) for array, each in pairs]

    def _new_states(self) -> dict[str, np.ndarray]:
        by_name = {each.name: each for each in self.card.inputs}
        state = {
            name: np.zeros(by_name[name].sizes(self.num_envs), by_name[name].dtype)
            for name in self.card.state.values()
        }
        self._clear(state, np.ones(self.num_envs, dtype=bool))
        return state

    def _clear(self, state: dict[str, np.ndarray], starts: np.ndarray) -> None:
        """Fill in the reset state where an episode starts."""
        for name, array in state.items():
            value = self.card.reset_state[name]
            if isinstance(value, str):  # the target return, each environment's own
                array[starts, 0] = self._inputs.targets[starts]
            else:
                array[starts] = value

    def _new_actions(self) -> tuple[np.ndarray, np.ndarray]:
        """The action's array after each turn, in the environment's shape.

        It shares the state's memory where the action is an input of the next step.
        """
        name = self.card.state.get("action")
        if name is not None:
            first, second = (states[name] for states in self._states)
            return first.reshape(self._action_shape), second.reshape(self._action_shape)
        action = next(each for each in self.card.outputs if each.name == "action")
        one = np.zeros(self._action_shape, action.dtype)
        return one, one

"""The task that an agent acts in: spaces, scales, targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import gymnasium as gym
from minari.serialization import deserialize_space, serialize_space

from aaren_rl.errors import UserError
from aaren_rl.layout import Layout
from aaren_rl.records import convert

SPACES = ("observation_space", "action_space")


@dataclass(frozen=True)
class TaskSpec:
    """The part of the specification that differs between the tasks of an agent of several datasets.

    The fields are those of `AgentSpec`.
    """

    dataset: str
    returns_scale: float = 1.0
    returns_shift: float = 0.0
    largest_return: float | None = None
    target_returns: tuple[float, ...] = ()
    reference_scores: tuple[float, float] | None = None
    environment: str | None = None
    longest_episode: int | None = None


@dataclass(frozen=True)
class AgentSpec:
    """The task that an agent was made for. Saved with it: a loaded agent acts on raw numbers."""

    observation_space: gym.spaces.Space[Any]
    action_space: gym.spaces.Space[Any]
    returns_scale: float = 1000.0
    """Returns-to-go are divided by this before they are embedded."""
    returns_shift: float = 0.0
    """This is taken from returns-to-go before they are divided by `returns_scale`."""
    largest_return: float | None = None
    """The largest return-to-go in the data. With `--condition max-return` no prediction goes beyond
    it; `None` for no limit."""
    target_returns: tuple[float, ...] = ()
    """Returns to ask for; the first one is the default."""
    reference_scores: tuple[float, float] | None = None
    """Returns that count as 0 and 100 in the normalised score."""
    environment: str | None = None
    """Gymnasium's name of the environment to act in, or its spec as JSON."""
    dataset: str = ""
    """Name of the data that it learned from."""
    longest_episode: int | None = None
    """Steps of the data's longest episode: where evaluations cut episodes in an environment without
    a time limit. `None` in agents of older versions."""
    observation_offset: tuple[float, ...] = ()
    """Taken in float64 from flattened observations before they become float32, one each; empty for
    nothing. See `TrajectoryDataset.observation_offset`."""
    wide_actions: tuple[bool, ...] = ()
    """Of each part of an action, whether it is learned in the data's units although it has bounds,
    as these are far wider than the data (`aaren_rl.data.statistics.wide_parts`); empty for none."""
    tasks: tuple[TaskSpec, ...] = ()
    """One for each dataset, where there were several."""
    task: int | None = None
    """Which of `tasks` the agent acts in; `None` for an agent without a chosen one, see
    `Agent.for_task`, or has no tasks."""

    def __post_init__(self) -> None:
        for what, space in (
            ("observations", self.observation_space),
            ("actions", self.action_space),
        ):
            try:
                Layout.of(space)
            except UserError as error:
                raise UserError(f"{what}: {error}") from None

    def of_task(self, task: str | int | None) -> AgentSpec:
        """The specification of one of the tasks: its scales, targets and environment.

        Raises:
            UserError: for an unknown task, or none where there are several; lists them.
        """
        names = [each.dataset for each in self.tasks]
        if not names:
            raise UserError(f"--task {task}: this agent has no tasks; leave it out")
        known = f"its tasks are {', '.join(names)}"
        if task is None:
            raise UserError(f"--task is needed: the agent has learned from several data; {known}")
        found = names.index(task) if task in names else task
        if not isinstance(found, int) or not 0 <= found < len(names):
            raise UserError(f"--task {task}: unknown; {known}")
        return replace(self, **vars(self.tasks[found]), task=found)

    @cached_property
    def observation_layout(self) -> Layout:
        """The columns of an observation."""
        return Layout.of(self.observation_space)

    @cached_property
    def action_layout(self) -> Layout:
        """The columns of an action. A Discrete one is not a column but an integer, as it is."""
        return Layout.of(self.action_space)

    @property
    def in_parts(self) -> bool:
        """Whether actions are columns of several choices or parts: neither a Box nor Discrete."""
        return not (self.discrete or self.action_layout.is_box)

    @property
    def observation_size(self) -> int:
        """Numbers in one observation, flattened: a column for each choice."""
        return self.observation_layout.columns

    @property
    def discrete(self) -> bool:
        """Whether actions are single choices."""
        return isinstance(self.action_space, gym.spaces.Discrete)

    @property
    def choices(self) -> tuple[int, int] | None:
        """For Discrete actions the first one and how many there are; `None` for others."""
        space = self.action_space
        return (int(space.start), int(space.n)) if isinstance(space, gym.spaces.Discrete) else None

    @property
    def action_size(self) -> int:
        """Numbers in one action, flattened; for Discrete actions how many there are."""
        return self.action_layout.columns if self.choices is None else self.choices[1]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values (a space is a JSON string of its own: it may hold infinities)."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        content["tasks"] = [asdict(each) for each in self.tasks]
        if not self.tasks:
            del content["tasks"], content["task"]
        if not self.wide_actions:  # so that older versions can read the file
            del content["wide_actions"]
        return {**content, **{name: serialize_space(content[name]) for name in SPACES}}

    @staticmethod
    def from_json(content: dict[str, Any]) -> AgentSpec:
        """The inverse of `to_json`; fields that an older card lacks have their defaults.

        Raises:
            UserError: a field of another type, or of another length than the spaces ask for.
            LookupError: without spaces.
        """
        spaces = {name: deserialize_space(content[name]) for name in SPACES}
        spec: AgentSpec = convert({**content, **spaces}, AgentSpec, "spec")
        if len(spec.observation_offset) not in (0, spec.observation_size):
            raise UserError(f"observation_offset: {spec.observation_size} numbers expected")
        parts = len(spec.action_layout.leaves)
        if len(spec.wide_actions) not in (0, parts):
            raise UserError(f"wide_actions: {parts} flags expected")
        return spec

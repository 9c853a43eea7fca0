"""The registered agents, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from aaren_rl.registry import Registry

if TYPE_CHECKING:
    from aaren_rl.agents.base import Agent

A = TypeVar("A", bound="type[Agent]")

AGENTS: Registry[type[Agent]] = Registry("agent")


def register_agent(name: str, cls: A, *, options: type | None = None) -> A:
    """Add an agent class, for `--agent`, `train` and `load_agent`.

    >>> from aaren_rl.agents import DecisionAaren
    >>> class Careful(DecisionAaren):
    ...     def loss(self, batch):
    ...         errors = self.predict(batch) - self.actions.encode(batch.actions)
    ...         return errors.abs()[batch.mask].mean()
    >>> _ = arl.register_agent("careful", Careful)
    >>> arl.train("aaren-rl/hopper-small-v0", "careful", env="none", updates=2).agent.name
    'careful'

    Args:
        name: its name in configs, tables and on the command line; becomes `cls.name`.
        cls: made as `cls(config, spec, observation_mean, observation_std)`; returned.
        options: a dataclass with settings of its own, each with a default: `agent.options`.

    Raises:
        UserError: for a name that belongs to another agent.
    """
    AGENTS.register(name, cls, options=options)
    cls.name = name
    return cls


def registered_name(cls: type[Agent]) -> str | None:
    """The name under which a class is registered."""
    return next((name for name, entry in AGENTS.items() if entry.make is cls), None)

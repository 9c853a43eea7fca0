"""`DecisionAgent` with each mixer, under a name of its own."""

from __future__ import annotations

from aaren_rl.agents.base import Agent
from aaren_rl.agents.decision import NOT_SLIDING, SLIDING, DecisionAgent
from aaren_rl.agents.registration import AGENTS, register_agent
from aaren_rl.layers import MIXERS


class DecisionAaren(DecisionAgent):
    """Attention as a recurrent network: a state of constant size (Feng et al. 2024)."""

    mixer = "aaren"


class DecisionTransformer(DecisionAgent):
    """The baseline (Chen et al. 2021). Acts by recomputing a window, or with a key-value cache.

    The cache grows with every step in mode `carry`, and holds the last context in mode `sliding`.
    """

    mixer = "attention"
    modes, default_mode = SLIDING


class DecisionLSTM(DecisionAgent):
    """The classical recurrent rival."""

    mixer = "lstm"


class DecisionMinGRU(DecisionAgent):
    """The minimal recurrent rival (Feng et al. 2024, arXiv 2410.01201)."""

    mixer = "min-gru"


register_agent("decision-aaren", DecisionAaren)
register_agent("decision-transformer", DecisionTransformer)
register_agent("decision-lstm", DecisionLSTM)
register_agent("decision-min-gru", DecisionMinGRU)


def decision_agent(name: str) -> type[Agent] | None:
    """The agent `decision-MIXER` of any registered mixer; `None` for another name.

    It makes a mixer from a plug-in an agent of its own in comparisons and benchmarks.
    """
    mixer = name.removeprefix("decision-")
    if mixer == name or mixer not in MIXERS:
        return None
    entry = MIXERS[mixer]
    modes, default_mode = SLIDING if getattr(entry.make, "slides", False) else NOT_SLIDING
    members = {"name": name, "mixer": mixer, "modes": modes, "default_mode": default_mode}
    members["__module__"] = entry.module  # the plug-in that a saved agent asks for
    return type(name, (DecisionAgent,), members)


AGENTS.derive = decision_agent

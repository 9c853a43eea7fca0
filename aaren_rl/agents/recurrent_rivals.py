"""The trajectory agent with other recurrent mixers, as rivals of equal size."""

from __future__ import annotations

from aaren_rl.agents.trajectory_agent import TrajectoryAgent


class DecisionLSTM(TrajectoryAgent):
    """The LSTM in attention's place: a state of constant size, but training goes token by token."""

    name = "decision-lstm"
    mixer = "lstm"
    default_mode = "carry"


class DecisionMinGRU(TrajectoryAgent):
    """minGRU in attention's place: a state of constant size and a parallel scan."""

    name = "decision-min-gru"
    mixer = "min-gru"
    default_mode = "carry"

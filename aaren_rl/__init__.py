"""Attention as a recurrent network, for offline reinforcement learning."""

__version__ = "0.1.0"

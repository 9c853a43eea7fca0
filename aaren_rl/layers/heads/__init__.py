"""Action heads, each registered under its name."""

from aaren_rl.layers.heads import gaussian, joined, plain  # noqa: F401  (they register heads)

"""Goals in a U-shaped maze: `python examples/goals/point_maze.py`, with the extra `robotics`.

A scripted controller makes the data: breadth-first search gives the way from cell to cell, and a
proportional-derivative controller goes along it. An agent is then trained with the condition
`goal` and sent to goals in two cells in which no goal of the data lies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

import aaren_rl as arl
from aaren_rl.data import Trajectory
from aaren_rl.data.sources.minari import local_root
from aaren_rl.data.to_minari import write_minari

HELD_OUT = [(1, 2), (3, 2)]  # cells in which no goal of the data lies; the agent passes them
DATASET = "point-maze/umaze-controller-v0"
POINT_MAZE = "gymnasium_robotics.envs.maze.point_maze:PointMazeEnv"
Cell = tuple[int, int]


def u_maze(goals_held_out: bool) -> list[list[Any]]:
    """The map of the maze: 1 is a wall, `r` a cell to begin in, `c` one that may be the goal too.

    Args:
        goals_held_out: put the goals in the held-out cells, else in all others.
    """
    free = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]
    cells: list[list[Any]] = [[1] * 5 for _ in range(5)]
    for row, column in free:
        cells[row][column] = "c" if ((row, column) in HELD_OUT) == goals_held_out else "r"
    return cells


for name, held_out in (("PointMazeSeen-v0", False), ("PointMazeHeldOut-v0", True)):
    if name not in gym.registry:
        settings = {"maze_map": u_maze(held_out), "continuing_task": False}
        gym.register(name, POINT_MAZE, max_episode_steps=300, kwargs=settings)


def way(maze: Any, start: Cell, goal: Cell) -> list[Cell]:
    """The cells of the shortest way, both ends included, by breadth-first search."""
    before: dict[Cell, Cell] = {}
    waiting = deque([start])
    while waiting:
        cell = waiting.popleft()
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            following = (cell[0] + step[0], cell[1] + step[1])
            if maze.maze_map[following[0]][following[1]] != 1 and following not in before:
                before[following] = cell
                waiting.append(following)
    cells = [goal]
    while cells[-1] != start:
        cells.append(before[cells[-1]])
    return cells[::-1]


def control(maze: Any, observation: dict[str, Any]) -> np.ndarray:
    """The force towards the next cell's middle, or towards the goal in its own cell."""
    place, goal = observation["achieved_goal"], observation["desired_goal"]
    here, there = (tuple(map(int, maze.cell_xy_to_rowcol(xy))) for xy in (place, goal))
    cells = way(maze, here, there)
    target = goal if len(cells) < 3 else maze.cell_rowcol_to_xy(np.array(cells[1]))
    velocity = observation["observation"][2:]
    return np.clip(4 * (target - place) - 1.5 * velocity, -1, 1)


def episodes(count: int, noise: float = 0.5) -> Iterator[Trajectory]:
    """Episodes of the controller; a random force that changes slowly is added to half of them."""
    env = gym.make("PointMazeSeen-v0")
    world = env.unwrapped
    assert isinstance(world, PointMazeEnv)
    for seed in range(count):
        rng, disturbance = np.random.default_rng(seed), np.zeros(2)
        strength = noise * (seed % 2)
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            disturbance = 0.9 * disturbance + strength * rng.normal(size=2)
            force = control(world.maze, observations[-1]) + disturbance
            actions.append(np.clip(force, -1, 1).astype(np.float32))
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
        seen = {key: np.stack([each[key] for each in observations]) for key in observations[0]}
        yield Trajectory(seen, np.stack(actions), np.array(rewards), terminated, truncated)
    env.close()


def collect(count: int) -> Path:
    """Write the data as a Minari dataset."""
    env = gym.make("PointMazeSeen-v0")
    return write_minari(
        DATASET,
        episodes(count),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={"description": "A waypoint controller in PointMaze's U-shaped maze."},
    )


@dataclass
class Options:
    """Train on the controller's data and evaluate on goals that the data do not have."""

    agents: tuple[str, ...] = ("decision-aaren", "decision-transformer", "behavior-cloning")
    """Agents to train."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """A training each."""
    updates: int = 600
    """Gradient updates of each training."""
    layers: int = 2
    """Blocks of each agent."""
    width: int = 64
    """Size of a token."""
    data_episodes: int = 500
    """Episodes of data, where they are not there yet."""
    episodes: int = 100
    """Episodes to evaluate in."""


def main(options: Options) -> None:
    """Print the share of episodes that reach their goal, for every agent, seed and mode."""
    if not (local_root() / DATASET).exists():
        collect(options.data_episodes)
    data = arl.load_dataset(DATASET)
    print(f"data: {data.num_episodes} episodes, {data.num_steps} steps", flush=True)
    shape: Any = {"layers": options.layers, "width": options.width, "condition": "goal"}
    for seed in options.seeds:
        for agent in options.agents:
            run = arl.train(data, agent, env="none", updates=options.updates, seed=seed, **shape)
            for mode in ("carry", "window") if run.agent.has_memory else (None,):
                how: Any = {"episodes": options.episodes, "mode": mode}
                [row] = arl.evaluate(run.agent, "PointMazeHeldOut-v0", **how).rows
                print(f"{agent} seed {seed} {row.mode}: success {row.success:.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))

"""One episode as a film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import RecordVideo

from aaren_rl.agents import Agent, Mode
from aaren_rl.errors import UserError


def record_video(
    agent: Agent,
    environment: EnvSpec | str,
    folder: Path,
    target_return: float | None = None,
    mode: Mode | None = None,
    seed: int = 0,
) -> Path:
    """Act for one episode and record it.

    Returns:
        The MP4 file.

    Raises:
        UserError: when the environment cannot be drawn on this machine, or moviepy is missing.
    """
    try:
        import moviepy  # noqa: F401
    except ImportError:
        raise UserError("--video needs moviepy: pip install 'aaren-rl[video]'") from None
    try:
        plain = gym.make(environment, render_mode="rgb_array", disable_env_checker=True)
        env: Any = RecordVideo(plain, str(folder), episode_trigger=lambda _: True)
        observation, _ = env.reset(seed=seed)
    except Exception as error:  # OpenGL fails in many ways, all of them outside of our hands
        reason = " ".join(str(error).split())
        raise UserError(
            f"--video: cannot draw the environment here ({reason}); "
            "on a machine without a screen try MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        ) from None
    policy = agent.policy(1, target_return, mode)
    reward, done, over = None, None, False
    while not over:
        action = policy.act(np.asarray(observation)[None], reward, done)[0]
        observation, value, terminated, truncated, _ = env.step(action)
        reward, done = np.array([value]), np.zeros(1, dtype=bool)
        over = terminated or truncated
    env.close()
    return max(folder.glob("*.mp4"), key=lambda file: file.stat().st_mtime_ns)

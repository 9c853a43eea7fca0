"""One episode as a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymnasium.wrappers import RecordVideo

from aaren_rl.agents import Agent, Mode
from aaren_rl.envs.make import EnvLike, make_env
from aaren_rl.errors import UserError, one_line
from aaren_rl.evaluation.rollouts import rollout


def record_video(
    agent: Agent,
    env: EnvLike,
    folder: Path,
    target_return: float | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    **acting: Any,
) -> Path:
    """Act for one episode and record it.

    Args:
        agent: the agent that acts.
        env: where; see `aaren_rl.envs.make_env`.
        folder: gets the file.
        target_return: as for `rollout`, and so is `mode`.
        mode: how to act.
        seed: of the episode.
        acting: further arguments of `rollout`.

    Returns:
        The new MP4 file.

    Raises:
        UserError: moviepy is not installed, the environment cannot be drawn on this machine, or as
            for `rollout`.
    """
    try:
        import moviepy  # noqa: F401
    except ImportError:
        raise UserError("--video needs moviepy: pip install 'aaren-rl[video]'") from None
    try:
        plain = make_env(env, render_mode="rgb_array")
        plain.reset(seed=seed)
        plain.render()
        video = RecordVideo(plain, str(folder), episode_trigger=lambda _: True)
    except Exception as error:  # OpenGL fails in many ways, all of them outside of our hands
        raise UserError(
            f"--video: cannot draw the environment here ({one_line(error)}); "
            "on a machine without a screen try MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        ) from None
    try:
        how: dict[str, Any] = {"target_return": target_return, "mode": mode, "seed": seed}
        rollout(agent, video, episodes=1, **how, **acting)
    finally:
        video.close()
    return max(folder.glob("*.mp4"), key=lambda file: file.stat().st_mtime_ns)

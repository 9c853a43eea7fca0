"""The one loop over vector environments: acting, evaluation and recording all use it."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from aaren_rl.data.episode import Trajectory
from aaren_rl.data.spaces import flatten_batch
from aaren_rl.envs.global_settings import global_settings_kept
from aaren_rl.envs.limits import time_limit
from aaren_rl.envs.make import describe
from aaren_rl.envs.success import successes
from aaren_rl.errors import FAILURES, UserError, one_line
from aaren_rl.layout import LARGEST_RETURN, as_array

ResetOptions = Callable[[NDArray[np.int64]], dict[str, Any]]


class Actor(Protocol):
    """What chooses the actions: an agent's policy, a script or a learner."""

    def act(
        self,
        observations: Any,
        rewards: NDArray[np.float64] | None = None,
        dones: NDArray[np.bool_] | None = None,
    ) -> NDArray[Any]:
        """Actions `[num_envs, ...]`; see `aaren_rl.acting.Policy.act`."""


class Step(NamedTuple):
    """One step of all environments.

    Attributes:
        observations: `[num_envs, ...]` that the actions were chosen for; a dictionary or tuple of
            arrays for composite spaces.
        actions: `[num_envs, ...]`.
        rewards: float64 `[num_envs]`.
        terminations: bool `[num_envs]`, the episode ended in a final state.
        truncations: bool `[num_envs]`, it was cut by a time limit.
        next_observations: `[num_envs, ...]`, after the actions and before any restart.
        episodes: int64 `[num_envs]`, the number of the episode that each environment plays; -1
            where the step belongs to none: no episode is left for the environment, or it used the
            step to restart.
        policy_seconds: time spent choosing the actions.
        environment_seconds: time spent in the environments, restarts included.
        successes: bool `[num_envs]`, where the environments' `info` has a `success` or `is_success`
            of 1 or more; `None` where it says neither.
    """

    observations: Any
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    next_observations: Any
    episodes: NDArray[np.int64]
    policy_seconds: float
    environment_seconds: float
    successes: NDArray[np.bool_] | None = None


def autoreset_mode(vector: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The mode in their metadata; Gymnasium's default where there is none."""
    return AutoresetMode(vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))


def play(
    actor: Actor,
    vector: VectorEnv[Any, Any, Any],
    *,
    episodes: int | None,
    seed: int,
    limit: int | None = None,
    options: ResetOptions | None = None,
) -> Iterator[Step]:
    """Act for a number of whole episodes.

    Environments that are restarted by hand (autoreset mode `DISABLED`) seed episode i with
    `seed + i`, and take the next episode as soon as one has ended. The set of episodes does not
    depend on which end first, so short ones do not count more often. Environments that restart by
    themselves are seeded once; environment j of n plays the episodes j, j + n, ...

    Args:
        actor: chooses the actions. Its `dones` are true wherever an episode begins.
        vector: the environments; they are left open.
        episodes: how many; `None` for no end.
        seed: of the first episode.
        limit: episodes are cut after this number of steps; where the environments restart by
            themselves a longer episode is an error.
        options: gives the options of `reset` from the numbers of the episodes.

    Raises:
        UserError: when an environment fails, or gives an observation that the actor refuses, or a
            reward that is not finite or beyond 1e18.
    """
    mode, size = autoreset_mode(vector), vector.num_envs
    next_step = mode is AutoresetMode.NEXT_STEP
    queue = _Queue(size, episodes, by_hand=mode is AutoresetMode.DISABLED)
    lengths = np.zeros(size, np.int64)
    ended = np.zeros(size, bool)
    starts = np.ones(size, bool)
    rewards: NDArray[np.float64] | None = None
    observations = _reset(vector, seed, queue, starts, options)
    while queue.busy:
        before = time.perf_counter()
        try:
            actions = actor.act(observations, rewards, starts)
        except UserError as error:
            raise _refused(vector, observations, queue.running, seed, error) from error
        between = time.perf_counter()
        after, rewards, terminated, truncated, infos = _step(vector, actions, queue.running)
        restarting = ended if next_step else None  # these used this step to restart
        episode = queue.running if restarting is None else np.where(restarting, -1, queue.running)
        if not (np.abs(rewards) <= LARGEST_RETURN).all():  # also NaN
            _check_rewards(vector, rewards, episode, seed)
        if limit is not None:
            lengths = np.where(episode < 0, 0, lengths + 1)
            over = (lengths >= limit) & ~terminated & ~truncated
            if over.any():
                _warn_of_cut(vector, limit, queue.by_hand)
                truncated = truncated | over
        ended = terminated | truncated
        starts = ended if restarting is None else ended | restarting
        final = after
        if ended.any():
            lengths[ended] = 0
            queue.assign(ended)
            if mode is AutoresetMode.SAME_STEP:
                final = _final(vector, after, infos, ended)
            elif queue.by_hand and queue.busy:
                after = _reset(vector, seed, queue, ended, options)
        shown, observations = observations, after
        spent = between - before, time.perf_counter() - between
        won = successes(infos, size)
        yield Step(shown, actions, rewards, terminated, truncated, final, episode, *spent, won)


class _Queue:
    """Which episode each environment plays: `running`, int64 `[num_envs]`, -1 for none."""

    def __init__(self, size: int, episodes: int | None, by_hand: bool) -> None:
        self.by_hand, self.episodes = by_hand, episodes
        self.running = np.arange(size)
        self.following = size
        if episodes is not None:
            self.running[self.running >= episodes] = -1
        self.busy = bool((self.running >= 0).any())

    def assign(self, ended: NDArray[np.bool_]) -> None:
        """Assign the next episodes to the environments where `ended` is true."""
        self.running, size = self.running.copy(), len(self.running)
        for index in np.flatnonzero(ended & (self.running >= 0)).tolist():
            upcoming = self.following if self.by_hand else int(self.running[index]) + size
            more = self.episodes is None or upcoming < self.episodes
            self.running[index] = upcoming if more else -1
            self.following += int(more)
        self.busy = bool((self.running >= 0).any())


def recorded_episodes(
    actor: Actor,
    vector: VectorEnv[Any, Any, Any],
    *,
    episodes: int | None,
    seed: int,
    limit: int | None = None,
    options: ResetOptions | None = None,
) -> Iterator[Trajectory]:
    """Whole episodes in the order of their seeds; see `play`.

    An episode is held back until all before it have ended; else short ones would come first.
    """
    rows: list[list[Step]] = [[] for _ in range(vector.num_envs)]
    waiting: dict[int, Trajectory] = {}
    following = 0
    for step in play(actor, vector, episodes=episodes, seed=seed, limit=limit, options=options):
        for index in np.flatnonzero(step.episodes >= 0).tolist():
            rows[index].append(step)
            if step.terminations[index] or step.truncations[index]:
                waiting[int(step.episodes[index])] = _trajectory(rows[index], index)
                rows[index] = []
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _trajectory(steps: list[Step], index: int) -> Trajectory:
    """The whole episode that environment `index` played in these steps."""
    last = steps[-1]
    return Trajectory(
        observations=_rows([*(step.observations for step in steps), last.next_observations], index),
        actions=_rows([step.actions for step in steps], index),
        rewards=np.array([step.rewards[index] for step in steps]),
        terminated=bool(last.terminations[index]),
        truncated=not last.terminations[index],
    )


def _rows(batches: list[Any], index: int) -> Any:
    """Row `index` of each batch: an array `[steps, ...]`, or parts of such arrays."""
    first = batches[0]
    if isinstance(first, dict):
        return {key: _rows([batch[key] for batch in batches], index) for key in first}
    if isinstance(first, tuple):
        return tuple(_rows(list(parts), index) for parts in zip(*batches, strict=True))
    return np.stack([batch[index] for batch in batches])


def _reset(
    vector: VectorEnv[Any, Any, Any],
    seed: int,
    queue: _Queue,
    mask: NDArray[np.bool_],
    options: ResetOptions | None,
) -> Any:
    """Start the queue's episodes where `mask` is true; returns all observations.

    Environments without an episode keep stepping, uncounted, since all step together.
    """
    given: dict[str, Any] = {} if options is None else options(queue.running)
    seeds: Any = seed
    if queue.by_hand:
        given["reset_mask"] = mask
        seeds = np.where(queue.running < 0, seed, seed + queue.running).tolist()
    try:
        with global_settings_kept(generator=False):
            observations, _ = vector.reset(seed=seeds, options=given or None)
    except FAILURES as error:
        raise _failed(vector, "reset", error) from error
    return copy.deepcopy(observations)  # the environments may reuse their arrays


def _step(
    vector: VectorEnv[Any, Any, Any], actions: NDArray[Any], running: NDArray[np.int64]
) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
    try:
        with global_settings_kept(generator=False):
            after, rewards, *flags, infos = vector.step(copy.deepcopy(actions))
        after = copy.deepcopy(after)  # the environments may reuse their arrays
        earned = np.array(as_array(rewards), np.float64)
        terminated, truncated = (np.array(as_array(flag), bool) for flag in flags)
    except FAILURES as error:
        what = f"a step in one of the episodes {_played(running)}"
        raise _failed(vector, what, error) from error
    outcome = {"rewards": earned, "terminations": terminated, "truncations": truncated}
    for word, values in outcome.items():
        if values.shape != running.shape:
            raise UserError(
                f"environment {describe(vector)}: a step gave {word} of shape {values.shape}; one "
                f"for each of {len(running)} environments expected"
            )
    return after, earned, terminated, truncated, infos


def _warn_of_cut(vector: VectorEnv[Any, Any, Any], limit: int, by_hand: bool) -> None:
    """Warn that an episode is cut; environments that restart by themselves cannot be cut."""
    name = describe(vector)
    why = "names no time limit" if time_limit(vector) is None else "goes on at the one it names"
    if not by_hand:
        raise UserError(f"environment {name}: no end after {limit} steps")
    warnings.warn(
        f"environment {name}: episodes are cut after {limit} steps, since it {why}; "
        f"give it one: 'ID?max_episode_steps={limit}'",
        stacklevel=3,
    )


def _failed(vector: VectorEnv[Any, Any, Any], what: str, error: BaseException) -> UserError:
    message, kind = one_line(error), type(error).__name__
    if message != kind and not isinstance(error, UserError):
        message = f"{kind}: {message}"
    return UserError(f"environment {describe(vector)}: {what} failed: {message}")


def _check_rewards(
    vector: VectorEnv[Any, Any, Any],
    rewards: NDArray[np.float64],
    episode: NDArray[np.int64],
    seed: int,
) -> None:
    bad = np.flatnonzero(~(np.abs(rewards) <= LARGEST_RETURN) & (episode >= 0))
    if len(bad):
        raise UserError(
            f"environment {describe(vector)}: reward {rewards[bad[0]]} in episode "
            f"{episode[bad[0]]} (seed {seed + episode[bad[0]]}); a finite number expected, at most "
            f"{LARGEST_RETURN:g} in size"
        )


def _refused(
    vector: VectorEnv[Any, Any, Any],
    observations: Any,
    episode: NDArray[np.int64],
    seed: int,
    error: UserError,
) -> UserError:
    """What the actor said of the observations, with the environment, the episode and its seed."""
    name = f"environment {describe(vector)}"
    space = vector.single_observation_space
    try:
        flat = flatten_batch(space, observations)
    except (UserError, IndexError, TypeError, ValueError):
        flat = np.zeros((0, 0))  # of another shape
    bad = np.argwhere(~np.isfinite(flat))
    if len(bad) and len(flat) == len(episode):
        index, column = bad[0]
        number = episode[index]
        where = f"episode {number} (seed {seed + number})" if number >= 0 else "no counted episode"
        return UserError(
            f"{name}: observation {flat[index, column]} in {where}; finite numbers expected"
        )
    return UserError(f"{name}: in one of the episodes {_played(episode)}: {error}")


def _played(episode: NDArray[np.int64]) -> str:
    return " ".join(map(str, episode[episode >= 0]))


def _final(
    vector: VectorEnv[Any, Any, Any], after: Any, infos: dict[str, Any], ended: NDArray[np.bool_]
) -> Any:
    """The last observations of ended episodes in SAME_STEP mode, from `final_obs`."""
    if "final_obs" not in infos:
        return after
    rows = list(iterate(vector.observation_space, after))
    for index in np.flatnonzero(ended).tolist():
        rows[index] = infos["final_obs"][index]
    space = vector.single_observation_space
    empty: Any = create_empty_array(space, vector.num_envs)
    return concatenate(space, rows, empty)

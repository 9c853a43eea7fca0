from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import Endless, Line
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation
from gymnasium.wrappers.vector import NormalizeReward as VectorNormalizeReward

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.envs import (
    check_environment,
    environment_of,
    environment_spec,
    limit_episodes,
    make_env,
    make_vector_env,
    reference_scores_of,
    robot_of_dataset,
    saved_name,
    time_limit,
)
from aaren_rl.errors import UserError


@pytest.fixture(scope="module")
def shipped() -> TrajectoryDataset:
    return load_trajectories("aaren-rl/hopper-small-v0")


def roll(env: Any, actions: np.ndarray) -> np.ndarray:
    return np.stack([env.step(action)[0] for action in actions])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_seed_an_environment_and_always_the_same(asynchronous: bool) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 3, 3)).astype(np.float32)
    env = make_vector_env("Hopper-v5", 3, asynchronous=asynchronous)
    first, _ = env.reset(seed=[7, 8, 7])
    path = roll(env, actions)
    again, _ = env.reset(seed=[7, 8, 7])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(path, roll(env, actions))
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    env.close()

    alone = gymnasium.make("Hopper-v5")
    observation, _ = alone.reset(seed=8)
    np.testing.assert_array_equal(observation, first[1])
    np.testing.assert_array_equal(path[:, 1], [alone.step(a)[0] for a in actions[:, 1]])
    alone.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_masked_reset_restarts_that_environment_alone(asynchronous: bool) -> None:
    actions = np.random.default_rng(1).uniform(-1, 1, (6, 3, 3)).astype(np.float32)
    env = make_vector_env("Hopper-v5", 3, asynchronous=asynchronous)
    env.reset(seed=[1, 2, 3])
    undisturbed = roll(env, actions)

    env.reset(seed=[1, 2, 3])
    before = roll(env, actions[:3])[-1]
    mask = np.array([False, True, False])
    after, _ = env.reset(seed=[None, 40, None], options={"reset_mask": mask})
    rest = roll(env, actions[3:])
    env.close()
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(rest[:, [0, 2]], undisturbed[3:, [0, 2]])

    alone = gymnasium.make("Hopper-v5")
    np.testing.assert_array_equal(after[1], alone.reset(seed=40)[0])
    np.testing.assert_array_equal(rest[:, 1], [alone.step(a)[0] for a in actions[3:, 1]])
    alone.close()


def test_a_finished_environment_waits_for_its_reset() -> None:
    env = make_vector_env("Hopper-v5", 1)
    env.reset(seed=[0])
    for _ in range(1000):
        final, _, terminated, truncated, _ = env.step(np.ones((1, 3), np.float32))
        if terminated[0] or truncated[0]:
            break
    assert terminated[0]
    assert np.abs(final[0, 1:]).max() > 0.1  # a new episode begins within 0.005 of zero
    with pytest.raises(AssertionError):
        env.step(np.ones((1, 3), np.float32))
    env.close()


@pytest.mark.parametrize("environment", ["HalfCheetah-v5", gymnasium.spec("HalfCheetah-v5")])
def test_mujoco_is_quiet_and_leaves_no_log(
    environment: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_vector_env(environment, 2)
    env.reset(seed=[0, 1])
    env.step(env.action_space.sample())
    env.close()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_no_environments_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        make_vector_env("Hopper-v5", 0)


@pytest.mark.parametrize(
    "environment", ["Hoper-v5", "Hopper-v99", "no_such_module:Env-v0", "a/b/c", ""]
)
def test_unknown_environments_are_named_in_one_line(environment: str) -> None:
    with pytest.raises(UserError) as caught:
        make_vector_env(environment, 1)
    assert repr(environment) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_specification_that_leads_nowhere() -> None:
    spec = replace(gymnasium.spec("Hopper-v5"), entry_point="no_such_module:Env")
    with pytest.raises(UserError, match="no_such_module"):
        make_vector_env(spec, 1)


def test_the_datasets_environment(shipped: TrajectoryDataset) -> None:
    assert environment_of(shipped) == gymnasium.spec("Hopper-v5")
    assert environment_of(replace(shipped, env_spec=None)) == "Hopper-v5"
    with pytest.raises(UserError, match=r"'unheard-of'.*--env"):
        environment_of(replace(shipped, env_spec=None, name="unheard-of"))


def test_data_and_environment_must_fit(shipped: TrajectoryDataset) -> None:
    hopper = make_vector_env(environment_of(shipped), 2)
    check_environment(hopper, shipped.observation_space, shipped.action_space)
    with pytest.raises(UserError, match=r"observations:.*\(11,\).*11 values.*\(17,\).* 17"):
        check_environment(hopper, spaces.Box(-1, 1, (17,)), shipped.action_space)
    with pytest.raises(UserError, match=r"actions:.*\(3,\).*\(6,\)"):
        check_environment(hopper, shipped.observation_space, spaces.Box(-1, 1, (6,)))
    with pytest.raises(UserError, match=r"actions:.*Discrete\(3\)"):
        check_environment(hopper, shipped.observation_space, spaces.Discrete(3))
    hopper.close()


def test_options_behind_the_name() -> None:
    spec = environment_spec("Hopper-v5?reset_noise_scale=0.5&terminate_when_unhealthy=false")
    assert spec.kwargs == {"reset_noise_scale": 0.5, "terminate_when_unhealthy": False}
    assert environment_spec("Hopper-v5") == gymnasium.spec("Hopper-v5")
    assert not gymnasium.spec("Hopper-v5").kwargs
    text = environment_spec("Hopper-v5?xml_file=hopper.xml&length=[5,120]")
    assert text.kwargs == {"xml_file": "hopper.xml", "length": [5, 120]}
    env = make_vector_env("Hopper-v5?reset_noise_scale=0.5", 2)
    assert np.abs(env.reset(seed=[0, 1])[0]).max() > 0.3
    env.close()


@pytest.mark.parametrize("options", ["length", "=3", "a=1&&b=2"])
def test_options_without_a_value(options: str) -> None:
    with pytest.raises(UserError, match="key=value expected"):
        environment_spec(f"Hopper-v5?{options}")


def test_unknown_options_are_named() -> None:
    with pytest.raises(UserError, match=r"Hopper-v5\?colour=3.*colour"):
        make_vector_env("Hopper-v5?colour=3", 1)


def test_ours_step_in_batches_and_others_do_not() -> None:
    """CartPole has a vector form of its own, which cannot be restarted by seed and mask."""
    env = make_vector_env("aaren/PassiveTMaze-v0", 2)
    assert type(env).__name__ == "VectorPassiveTMaze"
    env = make_vector_env("CartPole-v1", 2)
    assert isinstance(env, gymnasium.vector.SyncVectorEnv)
    env.close()
    env = make_vector_env("aaren/PassiveTMaze-v0?length=5", 2, asynchronous=True)
    batch = make_vector_env("aaren/PassiveTMaze-v0?length=5", 2)
    np.testing.assert_array_equal(env.reset(seed=[3, 4])[0], batch.reset(seed=[3, 4])[0])
    env.close()


MODULE = """
import gymnasium
from env_cases import Line

gymnasium.register("AarenTestsLine-v0", entry_point=Line, max_episode_steps=100)
"""


def test_an_id_behind_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aaren_tests_line.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "aaren_tests_line:AarenTestsLine-v0"
    env = make_vector_env(name, 2)
    assert time_limit(env) == 100
    env.close()
    assert time_limit(make_vector_env(f"{name}?max_episode_steps=7", 1)) == 7
    with pytest.raises(UserError, match=r"environment 'aaren_tests_line:Other-v0': .*Other"):
        make_vector_env("aaren_tests_line:Other-v0", 1)
    (tmp_path / "aaren_tests_broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match="'aaren_tests_broken:Line-v0': division by zero"):
        make_vector_env("aaren_tests_broken:Line-v0", 1)
    (tmp_path / "aaren_tests_ending.py").write_text("raise SystemExit(1)")
    with pytest.raises(UserError, match=r"ending:Line-v0': it ended the program \(exit code 1\)"):
        make_vector_env("aaren_tests_ending:Line-v0", 1)

    env.close()


def test_a_specification_as_json_of_older_runs() -> None:
    """Specifications name the module of an environment; ours have moved."""
    spec = replace(
        gymnasium.spec("aaren/Recall-v0"),
        entry_point="aaren_rl.envs.recall:Recall",
        vector_entry_point="aaren_rl.envs.recall:VectorRecall",
    )
    assert type(make_vector_env(spec.to_json(), 2)).__name__ == "VectorRecall"
    masked = gymnasium.spec("aaren/MaskVelocityHopper-v5")
    old = replace(
        masked.additional_wrappers[0], entry_point="aaren_rl.envs.mask_velocity:MaskVelocity"
    )
    env = make_env(replace(masked, additional_wrappers=(old,)).to_json())
    assert env.observation_space.shape == (5,)
    env.close()


def test_functions_and_environments_that_are_there() -> None:
    env = make_vector_env(Line, 3)
    assert isinstance(env, SyncVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.close()
    alone = Line()
    env = make_vector_env(alone, 16)
    assert env.num_envs == 1
    env.reset(seed=[5], options={"reset_mask": np.ones(1, bool)})
    assert alone.seed == 5
    env.close()
    assert alone.closed == 0
    for mode in AutoresetMode:
        given = SyncVectorEnv([Line] * 2, autoreset_mode=mode)
        env = make_vector_env(given, 16)
        assert (env.num_envs, env.metadata["autoreset_mode"]) == (2, mode)
        env.close()
        assert not given.closed


def test_what_makes_no_environment() -> None:
    with pytest.raises(UserError, match=r"a gymnasium.Env expected, got <class 'dict'>"):
        make_vector_env(dict, 1)

    def broken() -> Line:
        raise OSError("no licence")

    with pytest.raises(UserError, match=r"'broken': cannot be made: no\s?licence"):
        make_vector_env(broken, 1)


def test_a_simulator_of_which_only_one_can_run() -> None:
    class Single(Line):
        live = 0

        def __init__(self) -> None:
            super().__init__()
            if Single.live:
                raise RuntimeError("port 5005 is in use")
            Single.live = 1

        def close(self) -> None:
            Single.live = 0

    for _ in range(2):  # the one that was made is closed again
        with pytest.raises(UserError, match=r"port 5005 is in use.*--num-envs 1"):
            make_vector_env(Single, 2)
        make_vector_env(Single, 1).close()


@pytest.mark.parametrize("given", [Endless, Endless()])
def test_episodes_without_a_limit_are_cut_where_the_data_end(given: Any) -> None:
    with pytest.warns(UserWarning, match="environment Endless: it has no time limit.* 12 steps"):
        limited = limit_episodes(given, 12)
    assert time_limit(make_vector_env(limited, 1)) == 12


def test_the_limit_is_saved_with_the_environments_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aaren_tests_endless.py").write_text(
        "import gymnasium\nfrom env_cases import Endless\n"
        "gymnasium.register('AarenTestsEndless-v0', Endless)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = EnvSpec("AarenTestsEndless-v1", entry_point="env_cases:Endless")
    for env in ("aaren_tests_endless:AarenTestsEndless-v0", spec, spec.to_json()):
        with pytest.warns(UserWarning, match="no time limit"):
            saved = saved_name(limit_episodes(env, 12))
        assert saved is not None
        assert time_limit(make_vector_env(saved, 1)) == 12
    assert limit_episodes("Hopper-v5", 12) == "Hopper-v5"
    assert limit_episodes("aaren/Recall-v0", 12) == "aaren/Recall-v0"
    assert saved_name(Line) is None
    assert saved_name(gymnasium.make("Hopper-v5")) is not None


MONITOR = WrapperSpec("Monitor", "some_lab.monitor:Monitor", None)


def test_wrappers_that_cannot_be_made_again() -> None:
    spec = gymnasium.spec("Pendulum-v1")
    with pytest.warns(UserWarning, match=r"'Pendulum-v1': its wrapper Monitor .* is left out"):
        env = make_env(replace(spec, additional_wrappers=(MONITOR,)))
    assert time_limit(env) == 200
    for wrapper in (
        replace(MONITOR, name="Rescale"),
        WrapperSpec("Clip", "gymnasium.wrappers:ClipReward", None),
    ):
        with pytest.raises(UserError, match=f"its wrapper {wrapper.name} .*--env"):
            make_vector_env(replace(spec, additional_wrappers=(wrapper,)), 2)


def test_specifications_call_environments_and_wrappers_alone(tmp_path: Path) -> None:
    """They come from datasets' files, too, and Gymnasium calls whatever they name."""
    made = tmp_path / "made"
    planted: Any = {"entry_point": "os:system", "kwargs": {"command": f"touch {made}"}}
    spec = gymnasium.spec("Pendulum-v1")
    with pytest.raises(UserError, match=r"entry_point os:system is no Env; .*module:Pendulum-v1"):
        make_env(replace(spec, **planted))
    with pytest.raises(UserError, match="vector_entry_point os:system is no VectorEnv"):
        make_vector_env(replace(spec, vector_entry_point="os:system"), 2)
    with pytest.raises(UserError, match=r"it is no gymnasium\.Wrapper"):
        make_env(replace(spec, additional_wrappers=(WrapperSpec("Clip", **planted),)))
    assert not made.exists()


def test_a_wrapper_that_cannot_be_saved_is_not_forgotten() -> None:
    """Evaluated by its bare id, an agent would be paid in another way than in training."""
    plain = gymnasium.make("CartPole-v1")
    assert saved_name(plain) is not None
    paid = gymnasium.wrappers.TransformReward(plain, lambda reward: 10 * reward)
    assert saved_name(paid) is None
    paid.close()


def test_running_statistics_are_warned_of() -> None:
    wrapper = WrapperSpec(
        "NormalizeObservation", "gymnasium.wrappers:NormalizeObservation", {"epsilon": 1e-8}
    )
    spec = replace(gymnasium.spec("Pendulum-v1"), additional_wrappers=(wrapper,))
    with pytest.warns(UserWarning, match="Pendulum-v1: its wrapper NormalizeObservation"):
        make_vector_env(spec, 2).close()
    with pytest.warns(UserWarning, match="running statistics"):
        make_vector_env(lambda: NormalizeObservation(gymnasium.make("Pendulum-v1")), 1).close()
    given = NormalizeObservation(gymnasium.make("Pendulum-v1"))
    inner = gymnasium.vector.SyncVectorEnv([lambda: given])
    outer = VectorNormalizeReward(gymnasium.make_vec("Pendulum-v1", 1))
    with pytest.warns(UserWarning, match="Pendulum-v1: its wrapper NormalizeObservation"):
        make_env(given)
    for vector, name in ((inner, "NormalizeObservation"), (outer, "NormalizeReward")):
        with pytest.warns(UserWarning, match=f"Pendulum-v1: its wrapper {name}"):
            make_vector_env(vector, 1)


def test_a_robots_table_counts_in_its_environment_alone(shipped: TrajectoryDataset) -> None:
    hopper = (-20.272305, 3234.3)
    plain = replace(shipped, env_spec=None)
    for env in (
        None,
        "Hopper-v5",
        gymnasium.make("Hopper-v5"),
        lambda: gymnasium.make("Hopper-v4"),
        SyncVectorEnv([lambda: gymnasium.make("Hopper-v5")]),
    ):
        assert robot_of_dataset(plain, env) is not None
        assert reference_scores_of(plain, env) == hopper
        assert reference_scores_of(replace(plain, reference_scores=None), env) == hopper
    for env in ("Walker2d-v5", Line, "Hopper-v5?forward_reward_weight=3"):
        assert robot_of_dataset(plain, env) is None
        assert reference_scores_of(plain, env) is None
        assert reference_scores_of(replace(plain, reference_scores=(0.0, 9.0)), env) == (0.0, 9.0)
    with pytest.warns(UserWarning, match="not two different finite numbers"):
        assert reference_scores_of(replace(plain, name="mine", reference_scores=(5.0, 5.0))) is None
    other = replace(plain, name="dmcontrol/hopper-hop-v0")
    with pytest.raises(UserError, match="give it with --env"):
        environment_of(other)


def test_a_module_in_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for --plugin: the path of a console script has not got the working directory."""
    code = 'import gymnasium\ngymnasium.register("AarenTestsHere-v0", entry_point="x:Y")\n'
    (tmp_path / "aaren_tests_here.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert environment_spec("aaren_tests_here:AarenTestsHere-v0").id == "AarenTestsHere-v0"


def test_large_floats_are_kept_in_float64_where_asked() -> None:
    class Clock(Line):
        observation_space = spaces.Dict(
            {"time": spaces.Box(0, np.inf, (1,), np.float32), "phase": spaces.Discrete(3)}
        )

        def see(self) -> Any:
            return {"time": np.array([1.7e9 + 0.25]), "phase": 1}

    for exact, seen in ((True, 1.7e9 + 0.25), (False, 1.7e9)):
        vector = make_vector_env(Clock, 2, exact=exact)
        assert vector.reset(seed=0)[0]["time"].tolist() == [[seen]] * 2
        assert vector.reset(seed=0)[0]["phase"].tolist() == [1, 1]

"""Specs: what is wrong is said in one line with the file and the field."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import SPEC, spec, write_spec

from aaren_rl.errors import UserError
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.experiments import read_spec, units
from aaren_rl.experiments.spec import parse_spec
from aaren_rl.robots import ROBOTS

SPECS = Path(__file__).parents[2] / "benchmarks" / "specs"


def test_read_back(tmp_path: Path) -> None:
    read = read_spec(write_spec(tmp_path / "tiny.yaml"))
    assert read.seeds == (0, 1)
    assert read.kept == 2
    assert read.agents["bc"].agent == "behavior-cloning"
    assert read.agents["bc"].modes == ("carry",)
    assert read.agents["decision-transformer"].modes == ("window", "sliding")
    assert parse_spec(read.to_json(), "again") == read
    assert read.claim is not None
    assert read.claim.margin == 5.0
    wide = parse_spec(spec(claim={**SPEC["claim"], "margin": 8}), "wide")
    assert wide.claim is not None
    assert wide.claim.margin == 8.0


def test_agents_of_a_seed_share_episodes_and_seeds_share_none(tmp_path: Path) -> None:
    """However many episodes are asked for, later too."""
    for episodes in (20, 50_000):
        evaluation = {"episodes": episodes, "curve_episodes": 10, "seed": 30}
        read = parse_spec(spec(seeds=[0, 1, 2, 41], evaluation=evaluation), "x")
        first: dict[int, set[int]] = {}
        for unit in units(read, tmp_path):
            first.setdefault(unit.seed, set()).add(unit.first_episode)
        assert all(len(found) == 1 for found in first.values())  # for every task and agent
        ranges = sorted(min(found) for found in first.values())
        assert all(b - a >= episodes for a, b in itertools.pairwise(ranges))
        for seed, [found] in ((seed, found) for seed, found in first.items()):
            assert found == first_episode_seed(seed, "after training") + 30


def test_the_papers_table() -> None:
    paper = read_spec(SPECS / "paper-d4rl.yaml")
    qualities = ("medium", "medium-replay", "medium-expert")
    wanted = sorted(f"{robot}-{quality}-v2" for robot in ROBOTS for quality in qualities)
    assert sorted(task.dataset for task in paper.tasks.values()) == wanted
    assert len(wanted) == 12
    assert len(paper.seeds) == 5
    assert paper.checkpoint == "last"
    config = paper.train_config("ant-medium", "decision-aaren", 4)
    assert (config.updates, config.learning_rate, config.model.width) == (100_000, 1e-4, 128)


def test_the_same_on_local_data() -> None:
    zoo = read_spec(SPECS / "zoo.yaml")
    assert {"hopper-medium-expert", "halfcheetah-medium-expert"} <= set(zoo.tasks)
    assert zoo.agents["behavior-cloning-10"].settings == {"top_percent": 10.0}


TASKS, AGENTS, SETTINGS = SPEC["tasks"], SPEC["agents"], SPEC["settings"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"seeds": None}, "missing required field seeds"),
    "unknown": ({"sedes": [0]}, r"unknown field 'sedes'; did you mean seeds\?"),
    "type": ({"seeds": ["a"]}, r"seeds\[0\]: expected int, got str"),
    "no list": ({"seeds": 3}, "seeds: expected array, got int"),
    "twice": ({"seeds": [0, 0]}, "seeds: expected one or more, each once"),
    "none": ({"tasks": {}}, "tasks: expected one or more"),
    "several": (
        {"tasks": {"both": {"dataset": "a:2 + b"}}},
        r"tasks: both: dataset: a:2 \+ b: one dataset expected",
    ),
    "curve targets": (
        {"tasks": {"a": {"dataset": "a", "curve_targets": [5, float("inf")]}}},
        r"tasks: a: curve_targets: expected returns up to 1e\+18",
    ),
    "curve scores": (
        {"evaluation": {"curve_scores": [float("nan")]}},
        "evaluation: curve_scores: expected finite numbers",
    ),
    "no setting": (
        {"settings": {"GROUPS": {}}},
        "settings: unknown setting 'GROUPS'",
    ),
    "seed": ({"seeds": [-1]}, "hopper-all, decision-aaren: --seed must be"),
    "rule": ({"checkpoint": "best"}, "checkpoint: expected last or {mean_of_last: K}, got 'best'"),
    "rule's number": ({"checkpoint": {"mean_of_last": 0}}, "mean_of_last: expected int >= 1"),
    "rule beyond": ({"checkpoint": {"mean_of_last": 3}}, "--keep-evaluated must be .* got 3"),
    "setting": (
        {"settings": {"lerning_rate": 1}},
        r"unknown setting 'lerning_rate'; did you mean learning_rate\?",
    ),
    "setting's type": ({"settings": {"updates": "many"}}, "updates: expected int, got str"),
    "setting's value": ({"settings": {**SETTINGS, "batch_size": 0}}, "--batch-size must be"),
    "truth": ({"settings": {"normalize_observations": 1}}, "observations: expected bool, got int"),
    "choice": ({"settings": {"precision": "64"}}, "precision: expected one of auto, 32, bf16"),
    "elsewhere": ({"settings": {"mode": "carry"}}, "settings: mode: give `modes` to each agent"),
    "dataset": ({"tasks": {"a": {"dataset": 3}}}, "tasks: a: dataset: expected str, got int"),
    "task's setting": (
        {"tasks": {"a": {"dataset": "x", "settings": {"width": 0.5}}}},
        "tasks: a: settings: width: expected int, got float",
    ),
    "task's name": (
        {"tasks": {"a/b": {"dataset": "x"}}},
        "'a/b': expected a name that can be",
    ),
    "agent": ({"agents": {"bc": {}}}, "agents: bc: agent: bc: unknown agent"),
    "agent's mode": (
        {"agents": {**AGENTS, "decision-aaren": {"modes": ["sliding"]}}},
        "decision-aaren knows carry, reset, window, got sliding",
    ),
    "episodes": ({"evaluation": {"episodes": 0}}, "evaluation: episodes: expected int >= 1"),
    "too many episodes": (
        {"evaluation": {"episodes": 100_000, "seed": 1}},
        "evaluation: seed and episodes: expected at most 100000",
    ),
    "evaluation's field": ({"evaluation": {"episode": 3}}, r"did you mean episodes\?"),
    "plug-in": ({"plugins": ["no_such_plugin"]}, "no_such_plugin"),
    "claim": (
        {"claim": {"ours": "x", "mode": "carry", "rival": "bc"}},
        "claim: ours: expected one of decision-aaren, decision-transformer, bc, got 'x'",
    ),
    "claim's mode": (
        {"claim": {"ours": "decision-aaren", "mode": "reset", "rival": "bc"}},
        "claim: mode: expected one of carry, window",
    ),
    **{
        f"margin {margin}": (
            {"claim": {**SPEC["claim"], "margin": margin}},
            f"claim: margin: expected {words}",
        )
        for margin, words in (
            (0, "float > 0.0"),
            (-5.0, "float > 0.0"),
            (float("inf"), "a finite number"),
            (float("nan"), "float > 0.0"),
            ("wide", "float, got str"),
        )
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fields(name: str, tmp_path: Path) -> None:
    changes, words = WRONG[name]
    file = write_spec(tmp_path / "x.yaml", **changes)
    with pytest.raises(UserError, match=words) as error:
        read_spec(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "not readable as YAML"),
        ("name: a\nname: b", "name twice"),
        ("- a", "expected fields, got"),
        ("", "expected fields, got None"),
        ("name: !!python/object:os.system {}", "not readable as YAML"),
    ],
)
def test_wrong_files(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        read_spec(file)


def test_numbers_as_yaml_reads_them() -> None:
    """YAML takes 1e-3 for text."""
    read = parse_spec(spec(settings={**SETTINGS, "learning_rate": "1e-3"}), "x")
    assert read.settings["learning_rate"] == 1e-3


def test_no_clipping_goes_to_json_and_back() -> None:
    read = parse_spec(spec(settings={**SETTINGS, "observation_clip": float("inf")}), "x")
    text = json.dumps(read.to_json(), allow_nan=False)
    assert parse_spec(json.loads(text), "x") == read
    config = read.train_config(next(iter(read.tasks)), next(iter(read.agents)), 0)
    assert config.model.observation_clip == float("inf")


def test_a_shared_target_is_not_for_behavior_cloning() -> None:
    """But one of its own settings is a mistake."""
    read = parse_spec(spec(settings={**SETTINGS, "target_return": [3000.0]}), "x")
    task = next(iter(read.tasks))
    assert read.train_config(task, "bc", 0).target_return == ()
    assert read.train_config(task, "bc", 0).mode is None
    assert read.train_config(task, "decision-aaren", 0).target_return == (3000.0,)
    own = {**AGENTS, "bc": {"agent": "behavior-cloning", "settings": {"target_return": [1.0]}}}
    with pytest.raises(UserError, match="bc: --target-return 1: behavior-cloning cannot be asked"):
        parse_spec(spec(agents=own), "x")
    own = {**AGENTS, "bc": {"agent": "behavior-cloning", "modes": ["window"]}}
    with pytest.raises(UserError, match="agents: bc: modes: behavior-cloning knows carry"):
        parse_spec(spec(agents=own), "x")

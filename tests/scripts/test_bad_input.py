"""Every mistake is one line on standard error that names what is wrong, and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_cases import SHIPPED, TINY, broken_datasets

from aaren_rl.cli import main
from aaren_rl.data import WindowSampler

Capture = pytest.CaptureFixture[str]


def error_of(capfd: Capture, *words: str) -> str:
    """The command's error, checked for its form."""
    capfd.readouterr()
    code = main(list(words))
    captured = capfd.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    return broken_datasets(tmp_path_factory.mktemp("datasets"))


BROKEN = (
    *("truncated", "empty file", "no HDF5", "damaged inside", "without actions", "other layout"),
    *("minaris layout", "NaN in observations", "NaN in actions", "NaN in rewards", "empty"),
    *("lengths differ", "missing", "a folder", "minari without data"),
    *("minari with broken metadata", "minari without episodes"),
)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_datasets(
    name: str, datasets: dict[str, tuple[Path, str]], tmp_path: Path, capfd: Capture
) -> None:
    assert set(datasets) == set(BROKEN)
    path, words = datasets[name]
    for command in ("train", "compare"):
        error = error_of(capfd, command, "--dataset", str(path), "--out", str(tmp_path / command))
        assert words in error
        assert path.name in error


@pytest.mark.parametrize(
    "name", ["aaren-rl/hopper-smal-v0", "hopper", "mujoco/hopper/mediun-v0", "no such thing", ""]
)
def test_unknown_datasets(
    name: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    error = error_of(capfd, "train", "--dataset", name, "--out", str(tmp_path / "run"))
    assert f"dataset {name!r}" in error
    if name == "aaren-rl/hopper-smal-v0":
        assert SHIPPED in error  # what was meant


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--updates", "0"], "--updates must be at least 1, got 0"),
        (["--updates", "-5"], "--updates must be at least 1, got -5"),
        (["--updates", "many"], "--updates"),
        (["--updates", "1.5"], "--updates"),
        (["--updates"], "--updates"),
        (["--batch-size", "-1"], "--batch-size must be at least 1, got -1"),
        (["--batch-size", str(10**14)], "out of memory"),
        (["--context-length", "0"], "--context-length must be at least 1"),
        (["--context-length", "-20"], "--context-length must be at least 1, got -20"),
        (["--learning-rate", "-1e-3"], "--learning-rate must be positive"),
        (["--learning-rate", "nan"], "--learning-rate must be positive and finite, got nan"),
        (["--learning-rate", "1e9"], "--learning-rate must be at most 1"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--seed", "-1"], "--seed must be in [0, 2^32), got -1"),
        (["--precision", "16"], "--precision"),
        (["--agent", "decision-mamba"], "--agent"),
        (["--device", "tpu"], "--device"),
        (["--devices", "0"], "--devices must be at least 1"),
        (["--width", "-16"], "--width must be at least 1, got -16"),
        (["--width", str(10**13)], "out of memory"),
        (["--heads", "3"], "--heads (3) must divide --width (16)"),
        (["--layers", "0"], "--layers must be at least 1"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--warmup", "-0.1"], "--warmup"),
        (["--gradient-clip", "0"], "--gradient-clip must be positive"),
        (["--weight-decay", "-1"], "--weight-decay must be in [0, 1)"),
        (["--top-percent", "0"], "--top-percent must be in (0, 100]"),
        (["--returns-scale", "-5"], "--returns-scale must be positive"),
        (["--episodes", "-1"], "--episodes must be at least 1"),
        (["--evaluate-every", "0"], "--evaluate-every must be at least 1"),
        (["--checkpoint-every", "-3"], "--checkpoint-every must be at least 1"),
        (["--log-every", "0"], "--log-every must be at least 1"),
        (["--target-return", "nan"], "--target-return must be finite"),
        (["--target-return", "high"], "--target-return"),
        (["--mode", "sliding"], "--mode"),
        (["--environment", "HalfCheetah-v5"], "has 17 values"),
        (["--environment", "Hoper-v5"], "environment 'Hoper-v5'"),
        (
            ["--timestep-embedding", "learned", "--max-episode-length", "100"],
            "--max-episode-length 1000",
        ),
        (["--sampling", "random"], "--sampling"),
        (["--held-out", "1"], "--held-out must be in [0, 1), got 1.0"),
        (["--held-out", "-0.5"], "--held-out must be in [0, 1), got -0.5"),
        (["--batch-steps", "0"], "--batch-steps must be at least 1"),
        (["--no-such-flag", "3"], "--no-such-flag"),
        (["stray"], "stray"),
    ],
)
def test_absurd_flags_of_train(
    flags: list[str], words: str, tmp_path: Path, capfd: Capture
) -> None:
    out = ["--out", str(tmp_path / "run")]
    tiny = list(TINY)
    for flag in flags[:1]:  # ours replaces the tiny run's own
        if flag in tiny:
            position = tiny.index(flag)
            del tiny[position : position + 2]
    assert words in error_of(capfd, "train", *out, *tiny, *flags)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", ["train", "compare", "evaluate"])
def test_a_device_that_is_not_there(
    command: str, hopper_runs: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    place = ["--out", str(tmp_path / "run")]
    if command == "evaluate":
        place = [str(hopper_runs["decision-aaren"])]
    assert "--device cuda" in error_of(capfd, command, *place, "--device", "cuda")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--num-envs", "-2"], "--num-envs must be at least 1, got -2"),
        (["--seed", "-7"], "--seed must not be negative, got -7"),
        (["--target-return", "inf"], "--target-return must be finite"),
        (["--mode", "slide"], "--mode"),
        (["--checkpoint", "first"], "--checkpoint"),
        (["--environment", "HalfCheetah-v5"], "has 17 values"),
        (["--environment", "CartPole-v1"], "has 4 values"),
        (["--environment", "Hoper-v5"], "environment 'Hoper-v5'"),
        (["--json", "/nowhere/scores.json"], "--json /nowhere/scores.json: no folder"),
        (["--json", "/proc/scores.json"], "--json /proc/scores.json: cannot be written"),
        (["--device", "tpu"], "--device"),
        (["--bogus"], "--bogus"),
    ],
)
def test_absurd_flags_of_evaluate(
    flags: list[str], words: str, hopper_runs: dict[str, Path], capfd: Capture
) -> None:
    assert words in error_of(capfd, "evaluate", str(hopper_runs["decision-aaren"]), *flags)


def test_an_observation_size_that_does_not_fit_says_both(
    hopper_runs: dict[str, Path], capfd: Capture
) -> None:
    for run_folder in hopper_runs.values():
        words = ["evaluate", str(run_folder), "--environment", "HalfCheetah-v5"]
        error = error_of(capfd, *words)
        assert "17 values" in error
        assert "11" in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--agents", "decision-aaren", "decision-aaren"], "--agents"),
        (["--agents", "decision-mamba"], "--agents"),
        (["--agents"], "--agents"),
        (["--seeds", "1", "2", "1"], "--seeds must be at least one, each once"),
        (["--seeds", "0", "-1"], "--seed must be in [0, 2^32), got -1"),
        (["--seeds", "x"], "--seeds"),
        (["--updates", "-1"], "--updates must be at least 1"),
        (["--heads", "5"], "--heads (5) must divide --width (128)"),
    ],
)
def test_absurd_flags_of_compare(
    flags: list[str], words: str, tmp_path: Path, capfd: Capture
) -> None:
    assert words in error_of(capfd, "compare", "--out", str(tmp_path / "all"), *flags)
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("command", ["train", "compare", "quickstart"])
def test_outputs_that_cannot_be_written(command: str, tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for out in (file / "below", file, Path("/proc/run")):
        error = error_of(capfd, command, "--out", str(out))
        assert "cannot be written" in error
        assert str(out) in error
    assert file.read_text() == "precious"


def test_folders_that_hold_another_run(
    hopper_runs: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(hopper_runs["decision-aaren"], folder)
    place = ["--out", str(folder)]
    assert "already holds this run; give --resume" in error_of(capfd, "train", *place, *TINY)
    words = "--seed 0 there, 1 here"
    assert words in error_of(capfd, "train", *place, *TINY, "--seed", "1")
    # with --resume only what is said is compared: the rest is the run's own
    error = error_of(capfd, "train", "--resume", *place, "--seed", "1")
    assert "different run (--seed 0 there, 1 here)" in error
    error = error_of(capfd, "train", f"--out={folder}", "--updates", "29", "--resume")
    assert "--updates 29: the run has done 30 already" in error
    (folder / "config.json").write_text("[]")
    assert "config.json" in error_of(capfd, "train", "--resume", *place)
    (folder / "config.json").write_text("{")
    assert "config.json" in error_of(capfd, "train", "--resume", *place)


def test_folders_that_hold_no_run(
    tmp_path: Path, hopper_runs: dict[str, Path], capfd: Capture
) -> None:
    assert "not a training run" in error_of(capfd, "evaluate", str(tmp_path))
    assert "not a training run" in error_of(capfd, "evaluate", str(tmp_path / "nowhere"))
    assert "Missing" in error_of(capfd, "evaluate")
    run_folder = tmp_path / "run"
    shutil.copytree(hopper_runs["decision-aaren"], run_folder)
    card = run_folder / "last" / "agent.json"
    content = json.loads(card.read_text())
    content["config"]["width"] = 32
    card.write_text(json.dumps(content))
    error = error_of(capfd, "evaluate", str(run_folder))
    assert "agent.safetensors: does not fit" in error


def test_commands_that_there_are_not(capfd: Capture) -> None:
    assert "one of train, finetune, evaluate, compare, quickstart" in error_of(capfd)
    assert "bogus" in error_of(capfd, "bogus")
    assert "--updates" in error_of(capfd, "--updates", "3")


HELP: dict[str, list[str]] = {
    "train": [
        *("--dataset", "--agent", "--updates", "--batch-size", "--context-length", "--resume"),
        *("--learning-rate", "--seed", "--precision {auto,32,bf16}", "--device", "--out", "--mode"),
        *("--episodes", "--target-return", "decision-aaren", "decision-transformer"),
        *("behavior-cloning", "--width", "--layers", "--heads", "--top-percent"),
    ],
    "evaluate": [
        *("--mode", "carry,reset,window", "--episodes", "--target-return", "--json", "--video"),
        *("--checkpoint {last,best}", "--environment", "--seed", "--num-envs", "--device"),
    ],
    "compare": [
        *("--dataset", "--agents", "--seeds", "--updates", "--batch-size", "--context-length"),
        *("--learning-rate", "--precision {auto,32,bf16}", "--device", "--out", "--resume"),
    ],
}


@pytest.mark.parametrize("command", list(HELP))
def test_help_shows_every_flag(command: str, capfd: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    for flag in HELP[command]:
        assert flag in captured.out, flag
    # each flag has its sentence and its default
    assert (
        captured.out.count("(default: ") + captured.out.count("(required)")
        >= len(HELP[command]) - 4
    )


def test_help_of_all(capfd: Capture) -> None:
    assert main(["--help"]) == 0
    captured = capfd.readouterr()
    for command in ("train", "evaluate", "compare", "quickstart"):
        assert command in captured.out


@pytest.mark.parametrize("command", ["train", "compare"])
def test_ctrl_c_says_what_to_do(
    command: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130, a checkpoint, one line; then --resume goes on to the end."""
    original, count = WindowSampler.sample, 0

    def sample(self: WindowSampler) -> Any:
        nonlocal count
        count += 1
        if count == 11:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    out = tmp_path / "out"
    flags = [*TINY, "--out", str(out)]
    last = out / "last"
    if command == "compare":
        flags += ["--seeds", "0", "--agents", "decision-aaren"]
        last = out / "decision-aaren" / "seed-0" / "last"
    with monkeypatch.context() as patch:
        patch.setattr(WindowSampler, "sample", sample)
        assert main([command, *flags]) == 130
    captured = capfd.readouterr()
    *_, last_line = captured.err.splitlines()
    assert last_line == "stopped after update 11; all is saved, --resume goes on"
    assert captured.out == ""
    assert json.loads((last / "training.json").read_text())["update"] == 11
    assert main([command, *flags, "--resume"]) == 0
    assert json.loads((last / "training.json").read_text())["update"] == 30


def test_ctrl_c_in_an_evaluation(
    hopper_runs: dict[str, Path],
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = sys.modules["aaren_rl.evaluation.evaluating"]
    original = module.rollout

    def rollout(*args: Any, **settings: Any) -> Any:
        def interrupt() -> None:
            os.kill(os.getpid(), signal.SIGINT)

        return original(*args, **settings, on_step=interrupt)

    monkeypatch.setattr(module, "rollout", rollout)
    file = tmp_path / "scores.json"
    words = ["evaluate", str(hopper_runs["decision-aaren"]), "--json", str(file)]
    # A shell starts its background jobs deaf to Ctrl-C, and this may run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(words) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capfd.readouterr()
    assert captured.err == "interrupted\n"
    assert not file.exists()


def test_resume_takes_the_runs_own_flags(
    hopper_runs: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(hopper_runs["decision-transformer"], folder)
    before = (folder / "last" / "agent.safetensors").read_bytes()
    (folder / "summary.json").unlink()  # killed after its last checkpoint
    assert main(["train", "--out", str(folder), "--resume"]) == 0
    assert "decision-transformer on aaren-rl/hopper-small-v0, 30 updates" in capfd.readouterr().out
    assert (folder / "last" / "agent.safetensors").read_bytes() == before
    assert json.loads((folder / "summary.json").read_text())["updates"] == 30


@pytest.mark.parametrize("mode", ["carry", "reset", "window"])
@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer"])
def test_both_agents_evaluate_in_every_mode(
    name: str, mode: str, hopper_runs: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    file = tmp_path / "scores.json"
    words = [str(hopper_runs[name]), "--mode", mode, "--episodes", "2", "--json", str(file)]
    assert main(["evaluate", *words]) == 0
    [row] = json.loads(file.read_text())["rows"]
    assert (row["agent"], row["mode"], row["episodes"]) == (name, mode, 2)
    output = capfd.readouterr().out
    assert name in output
    assert f"{row['score_mean']:,.1f}" in output


@pytest.mark.parametrize("flags", [("--mode", "carry"), ("--target-return", "3000")])
def test_flags_that_mean_nothing_to_behavior_cloning(
    flags: tuple[str, str], hopper_runs: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    """Refused by the commands for one agent, and where no agent of several has a use for them."""
    words = f"{' '.join(flags)}: behavior-cloning"
    out = ("--out", str(tmp_path / "run"))
    cloning = ("--agent", "behavior-cloning")
    assert words in error_of(capfd, "train", *out, *TINY, *cloning, *flags)
    assert words in error_of(capfd, "evaluate", str(hopper_runs["behavior-cloning"]), *flags)
    assert words in error_of(capfd, "compare", *out, *TINY, "--agents", cloning[1], *flags)
    assert not (tmp_path / "run").exists()

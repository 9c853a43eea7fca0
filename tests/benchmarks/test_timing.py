"""The arithmetic and the record-keeping of benchmarks/timing.py, and the operator's yardstick."""

import json
import time

import pytest
import torch

from benchmarks import prefix_attention, timing


def test_growth_exponents():
    sizes = [10, 100, 1000]
    assert timing.growth_exponent(sizes, [3 * n for n in sizes]) == pytest.approx(1)
    assert timing.growth_exponent(sizes, [n * n / 7 for n in sizes]) == pytest.approx(2)


def test_ratios_are_taken_within_a_turn():
    slow = timing.Timing((2.0, 20.0, 4.0))  # the machine was busy in the second turn
    fast = timing.Timing((1.0, 10.0, 2.0))
    assert slow.over(fast) == (2.0, 2.0, 2.0)
    assert slow.median == 4.0


def test_turns_alternate_and_order_by_speed():
    calls = []

    def spin(name, seconds):
        calls.append(name)
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    timings = timing.take_turns(
        {"short": lambda: spin("short", 0.001), "long": lambda: spin("long", 0.004)},
        turns=3,
        at_least=0.0,
    )
    assert calls[-6:] == ["short", "long"] * 3
    assert 2.5 < timings["long"].over(timings["short"])[0] < 6


@pytest.mark.skipif(timing.peak_memory(list) is None, reason="no /proc of Linux")
def test_peak_memory_sees_what_is_freed_again():
    used = timing.peak_memory(lambda: torch.zeros(2**24).sum())
    assert 0.9 * 2**26 < used < 1.5 * 2**26


def test_results_name_the_machine_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    written = json.loads(timing.save("trial", {"answer": 42}).read_text())
    assert written["answer"] == 42
    assert written["machine"]["torch"] == torch.__version__
    assert written["command"].startswith("python -m")


def test_a_candidate_that_disagrees_gets_no_speed():
    problem = prefix_attention.Problem.draw(1, 50, torch.float32, "cpu")
    for name, candidate in prefix_attention.candidates(50, "cpu", with_compile=False).items():
        assert prefix_attention.disagreement(candidate, problem) is None, name

    def wrong(problem):
        return lambda: (problem.values * 1.01, problem.gradient)

    assert "outputs are off by" in prefix_attention.disagreement(wrong, problem)

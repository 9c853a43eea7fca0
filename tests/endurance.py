"""Whether memory grows in long use: acting, evaluations and trainings, again and again.

    python tests/endurance.py                       # a million steps, 10 evaluations, 100 trainings
    python tests/endurance.py --steps 20000 --evaluations 2 --trainings 5
    python tests/endurance.py --only decision-lstm window   # what has both words in its name

Each thing is first done a fifth as often to warm up; then the resident memory is read, and again at
the end. Prints the growth of each; exit status 1 when one grew by a megabyte or more. glibc keeps
memory that was freed, training more of it (`aaren_rl.training.allocator`): it is given back before
a reading. The growth of all that is resident, and of what is in use, is printed beside it. Needs
Linux and glibc.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aaren_rl as arl
from aaren_rl.agents import Agent

LIMIT = 2**20
DATA = "aaren-rl/hopper-small-v0"
TINY = {"width": 16, "layers": 1, "context_length": 5, "batch_size": 8, "device": "cpu"}
AGENTS = {
    "decision-aaren": ("carry", "window", "reset"),
    "decision-transformer": ("carry", "window", "reset", "sliding"),
    "decision-lstm": ("carry", "window", "reset"),
    "behavior-cloning": ("no memory",),
}
EPISODE = 500


class Heap(ctypes.Structure):
    """glibc's `mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


LIBC = ctypes.CDLL(None)
LIBC.mallinfo2.restype = Heap


def memory() -> np.ndarray:
    """Bytes of this process.

    Resident without what the allocator keeps for reuse and could give back, resident with it, and
    in use, of the allocator's. Pages of files (libraries) are not counted: the system drops and
    reads them as it likes.
    """
    gc.collect()
    whole = resident()
    LIBC.malloc_trim(0)
    heap = LIBC.mallinfo2()
    return np.array([resident(), whole, heap.uordblks + heap.hblkhd])


def resident() -> int:
    """Anonymous memory of this process that is resident."""
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) * 1024


def growth(work: Callable[[int], None], times: int) -> list[int]:
    """How `memory` has grown while the work was done so often, after a fifth."""
    work(max(2, times // 5))
    before = memory()
    work(times)
    return (memory() - before).tolist()


def act(agent: Agent, mode: Any, num_envs: int) -> Callable[[int], None]:
    """Act on random observations, in episodes that end one after the other."""
    policy = agent.policy(num_envs, mode=mode if mode in agent.modes else None)
    random = np.random.default_rng(0)
    observations = random.normal(size=(64, num_envs, 11))
    rewards, counter = random.normal(size=num_envs), iter(range(10**9))

    def work(steps: int) -> None:
        for _ in range(steps // num_envs):
            step = next(counter)
            dones = (np.arange(num_envs) * 7 + step) % EPISODE == 0
            policy.act(observations[step % 64], rewards, dones)

    return work


def trained(agent: str) -> Agent:
    return arl.train(DATA, agent, env="none", updates=4, **TINY).agent


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="of acting, in each mode")
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=[], help="words in the names of what to do")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    grown: dict[str, int] = {}
    agents = {name: trained(name) for name in AGENTS}

    def tell(what: str, make: Callable[[], Callable[[int], None]], times: int) -> None:
        if all(word in what for word in flags.only):
            begun = time.monotonic()
            sizes = growth(make(), times)
            seconds, grown[what] = time.monotonic() - begun, sizes[0]
            resident, whole, used = (f"{size / 2**20:+.2f} MB" for size in sizes)
            said = f"{resident}, {whole} with what is kept, {used} in use"
            print(f"{what}: {said}, {seconds:.0f} s", flush=True)

    for name, modes in AGENTS.items():
        for mode in modes:
            what = f"{flags.steps} steps, {name}, {mode}"
            tell(what, functools.partial(act, agents[name], mode, flags.num_envs), flags.steps)

    def evaluate(times: int) -> None:
        for _ in range(times):
            arl.evaluate(
                agents["decision-aaren"], "Hopper-v5?max_episode_steps=50", episodes=flags.episodes
            )

    def train(times: int) -> None:
        for _ in range(times):
            trained("decision-aaren")

    tell(
        f"{flags.evaluations} evaluations of {flags.episodes}", lambda: evaluate, flags.evaluations
    )
    tell(f"{flags.trainings} trainings", lambda: train, flags.trainings)
    return 1 if max(grown.values(), default=LIMIT) >= LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())

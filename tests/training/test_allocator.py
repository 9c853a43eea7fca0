"""The allocator keeps what training frees, and gives it back when the training has ended."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from aaren_rl.training.allocator import give_freed_memory_back, keep_freed_memory

def work():  # 80 MB that come and go
    several = [torch.ones(40 * 2**20, dtype=torch.uint8) for _ in range(2)]
    del several

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def grown():
    return (resident() - before) // 2**20

work()
before = resident()
work()
print(grown())
assert keep_freed_memory()
work()
print(grown())
give_freed_memory_back()
print(grown())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_time_of_the_training() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    default, kept, given_back = map(int, done.stdout.split())
    assert default < 10
    assert kept > 70
    assert given_back < 10

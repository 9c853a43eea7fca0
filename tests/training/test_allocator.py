"""The allocator keeps what training frees."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from aaren_rl.training.allocator import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        several = [torch.ones(40 * 2**20, dtype=torch.uint8) for _ in range(2)]  # 20,480 pages
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(6)
print(faults(4))
assert keep_freed_memory()
faults(6)
print(faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_not_faulted_in_again() -> None:
    """80 MB that come and go: page faults at every turn by default, hardly any when kept."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    default, kept = map(int, done.stdout.split())
    assert default > 4 * 100  # even with huge pages
    assert kept < default / 4

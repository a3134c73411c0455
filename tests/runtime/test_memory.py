from __future__ import annotations

import subprocess
import sys

import pytest

from mdprop.runtime import memory
from mdprop.runtime.memory import keep_memory, trimmed

KEPT = """
import sys
from pathlib import Path
import torch
from mdprop.runtime.memory import keep_memory, trimmed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024

if sys.argv[1] == "keep":
    keep_memory()
below, large, above = torch.ones(2**18), torch.ones(25 * 2**20), torch.ones(2**18)
full = resident()
del large
freed = full - resident()
list(trimmed(range(8)))
print(freed, full - resident())
"""


@pytest.mark.skipif(memory._glibc("mallopt") is None, reason="not glibc")
@pytest.mark.parametrize("keep", ["keep", "plain"])
def test_freed_memory_is_kept_until_it_is_trimmed(keep: str) -> None:
    done = subprocess.run([sys.executable, "-c", KEPT, keep], capture_output=True, text=True, check=True)
    freed, trimmed_too = map(int, done.stdout.split())  # MiB, of 100
    assert freed < 10 if keep == "keep" else freed > 90
    assert trimmed_too > 90


def test_batches_are_passed_on_where_the_c_library_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.os, "name", "nt")
    assert list(trimmed(iter(range(20)))) == list(range(20))
    keep_memory()

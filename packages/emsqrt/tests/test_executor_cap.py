from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

import pytest

from emsqrt.executor import ExecutorPool
from sennit_core.errors import MemoryCapExceeded

MIB = 1 << 20


class Poller:
    """Looks at a process from outside, as a memory cgroup would count it."""

    def __init__(self, pid: int) -> None:
        self._code = (
            "import sys, time\n"
            "from emsqrt.memory import UsageReader\n"
            "peak = 0\n"
            f"with UsageReader({pid}) as reader:\n"
            "    print('ready', flush=True)\n"
            "    while (use := reader.read()).data_bytes:\n"
            "        peak = max(peak, use.charged_bytes)\n"
            "        time.sleep(0.0005)\n"
            "print(peak)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._code], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def peak(self) -> int:
        """Return the most that was seen, once the process has ended."""
        out, _ = self._process.communicate(timeout=60)
        return int(out)

    def close(self) -> None:
        """End the poller."""
        self._process.kill()
        self._process.communicate()


@pytest.mark.parametrize("cap_mib", [48, 96, 200])
@pytest.mark.parametrize("kind", ["politely", "objects", "blocks", "at once", "numpy", "arrow"])
def test_a_hog_is_stopped_cleanly_below_its_cap(
    open_pool: Callable[..., ExecutorPool], kind: str, cap_mib: int
) -> None:

    pool = open_pool(memory_bytes=cap_mib * MIB)
    with pool.submit("executor_entries:echo", {}) as first:
        first.result()
    with closing(Poller(first.pid)) as poller:
        with (
            pool.submit("executor_hogs:hog", {"kind": kind}) as execution,
            pytest.raises(MemoryCapExceeded) as raised,
        ):
            list(execution.payloads())
        assert execution.pid == first.pid
        assert raised.value.cap_bytes == cap_mib * MIB
        with pool.submit("executor_entries:echo", {}) as again:
            again.result()
        pool.close()
        assert poller.peak() <= cap_mib * MIB


def test_a_process_about_to_pass_its_cap_ends_itself_and_says_why(
    open_pool: Callable[..., ExecutorPool],
) -> None:
    pool = open_pool(memory_bytes=96 * MIB)
    request = {"kind": "what it reserved"}
    with (
        pool.submit("executor_hogs:hog", request) as execution,
        pytest.raises(MemoryCapExceeded, match=r"executor_hogs:hog, at [0-9.]+ MiB"),
    ):
        execution.result()
    with pool.submit("executor_entries:echo", {}) as again:
        assert again.result()["pid"] != execution.pid

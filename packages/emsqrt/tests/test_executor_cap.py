from __future__ import annotations

from collections.abc import Callable

import pytest

from emsqrt.executor import ExecutorPool
from emsqrt.testing import PeakPoller
from sennit_core.errors import MemoryCapExceeded

MIB = 1 << 20


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("cap_mib", [48, 96, 200])
@pytest.mark.parametrize("kind", ["politely", "objects", "blocks", "at once", "numpy", "arrow"])
def test_a_hog_is_stopped_cleanly_below_its_cap(
    open_pool: Callable[..., ExecutorPool], kind: str, cap_mib: int
) -> None:

    pool = open_pool(memory_bytes=cap_mib * MIB)
    with pool.submit("executor_entries:echo", {}) as first:
        first.result()
    with PeakPoller(first.pid) as poller:
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


@pytest.mark.nightly
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

"""The tightest limit wins, wherever it comes from."""

import resource
from pathlib import Path

import pytest

from emsqrt.memory.auto import MemoryLimit, auto_cap, memory_limits

MIB = 1 << 20


def tree(root: Path, membership: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in limits.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_limit_of_a_group_of_version_2_counts_with_those_above_it(tmp_path: Path) -> None:
    limits = {
        "sys/fs/cgroup/app/memory.max": f"{200 * MIB}\n",
        "sys/fs/cgroup/app/job/memory.max": "max\n",
    }
    found = auto_cap(tree(tmp_path, "0::/app/job\n", limits))
    assert found.limit_bytes == 200 * MIB
    assert found.source == "memory.max of sys/fs/cgroup/app"
    assert found.cap_bytes == 175 * MIB


def test_the_limit_of_a_group_of_version_1_counts(tmp_path: Path) -> None:
    limits = {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(64 * MIB)}
    found = auto_cap(tree(tmp_path, "5:cpu:/x\n4:memory:/job\n", limits))
    assert (found.limit_bytes, found.cap_bytes) == (64 * MIB, 48 * MIB)


def test_a_group_without_a_limit_leaves_the_machine(tmp_path: Path) -> None:
    unlimited = {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712"}
    limits = memory_limits(tree(tmp_path, "4:memory:/job\n", unlimited))
    assert "memory.limit" not in "".join(limit.source for limit in limits)


def test_a_resource_limit_counts(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 42, before[1]))
    try:
        sources = [limit.source for limit in memory_limits(tree(tmp_path, "", {}))]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert sources == ["the machine's memory", "RLIMIT_AS"]


@pytest.mark.parametrize(("limit_mib", "cap_mib"), [(8, 0), (64, 48), (1024, 896), (65536, 64512)])
def test_the_headroom_is_an_eighth_within_bounds(limit_mib: int, cap_mib: int) -> None:
    assert MemoryLimit(limit_mib * MIB, "").cap_bytes == cap_mib * MIB

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from emsqrt.executor import ExecutorPool
from emsqrt.executor.placement import Fit, WarmState, choose
from emsqrt.testing import PeakPoller
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, NotFound

MIB = 1 << 20
KEEP = "executor_keeping:keep"
ECHO = "executor_entries:echo"
DEMAND = "executor_hogs:demand"


@dataclass
class Process:
    name: str
    warm: WarmState


def process(
    name: str, entry: str = "", *, held: int = 30, used: int = 0, **state: object
) -> Process:
    warm = WarmState(idle_bytes=held * MIB, entry=entry, used=used, loaded={entry})
    for key, value in state.items():
        setattr(warm, key, value)
    return Process(name, warm)


def chosen(*idle: Process, entry: str = "sql", data: str = "", cap: int = 1024) -> str | None:
    found = choose(idle, entry, data, Fit(cap * MIB, lean=False))
    return None if found is None else found.name


def test_the_process_that_ran_the_same_entry_over_the_same_data_comes_first() -> None:
    same = process("same data", "sql", data=OrderedDict(flights=None), used=1)
    other = process("other data", "sql", data=OrderedDict(planes=None), used=2)

    assert chosen(same, other, data="flights") == "same data"
    assert chosen(same, other, data="weather") == "other data"  # the one that was used last


def test_another_entry_leaves_a_cache_alone_where_it_can() -> None:
    caching = process("caching", "sql", keeps_cache=True, loaded={"sql", "plan"})
    plain = process("plain", "ingest", used=5)

    assert chosen(caching, plain, entry="plan") == "plain"
    assert chosen(caching, entry="plan") == "caching"


def test_a_process_that_has_loaded_the_entry_comes_before_one_that_has_not() -> None:
    loaded = process("loaded", "ingest", loaded={"ingest", "plan"}, used=9)

    assert chosen(loaded, process("not", "ingest", used=1), entry="plan") == "loaded"


def test_a_process_that_holds_too_much_for_the_cap_is_not_chosen() -> None:
    assert chosen(process("full", "sql", held=81), cap=128) is None
    assert chosen(process("full", "sql", held=79), cap=128) == "full"
    assert choose([process("full", "sql", held=79)], "sql", "", Fit(128 * MIB, lean=True)) is None


def kept(pool: ExecutorPool, data: str = "") -> tuple[int, bool]:
    with pool.submit(KEEP, {}, data=data, restartable=True) as execution:
        found = execution.result()
    return found["pid"], found["known"]


def test_runs_of_another_entry_do_not_cost_a_cache(
    open_pool: Callable[..., ExecutorPool],
) -> None:
    pool = open_pool(size=2)
    pool.prepare((KEEP,), (ECHO,))
    first, known = kept(pool)
    assert not known

    others = set()
    for _ in range(3):
        with pool.submit(ECHO, {}, mem_cap_bytes=100 * MIB) as execution:
            others.add(execution.result()["pid"])
        assert kept(pool) == (first, True)

    assert first not in others
    assert pool.stats().started == 2


def test_the_only_process_drops_its_cache_for_another_entry(pool: ExecutorPool) -> None:
    first, _ = kept(pool)
    with pool.submit(ECHO, {}) as execution:
        assert execution.result()["pid"] == first

    assert kept(pool) == (first, False)


def test_prepared_processes_have_loaded_their_entries(
    open_pool: Callable[..., ExecutorPool],
) -> None:
    pool = open_pool(size=2)
    pool.prepare((KEEP,), (ECHO,), (ECHO,))  # the third finds no room

    with pool.submit(KEEP, {}) as execution:
        assert execution.result()["loaded"] == ["prepare", "warm"]
    assert pool.stats().started == 2


def test_what_cannot_be_prepared_is_said_by_its_first_run(pool: ExecutorPool) -> None:
    pool.prepare(("executor_missing:run",))

    with (
        pool.submit("executor_missing:run", {}) as execution,
        pytest.raises(Exception, match="missing"),
    ):
        execution.result()
    with pool.submit(ECHO, {}) as execution:
        execution.result()
    with pytest.raises(NotFound):
        pool.prepare(("no.such.entry",))


def hold(pool: ExecutorPool, mib: int) -> int:
    with pool.submit(KEEP, {"bytes": mib * MIB}) as execution:
        pid: int = execution.result()["pid"]
    return pid


@pytest.mark.slow  # three processes, as a cap is one of a process
def test_a_run_that_has_no_room_beside_a_warm_process_gets_a_lean_one(
    open_pool: Callable[..., ExecutorPool],
) -> None:
    pool = open_pool(memory_bytes=512 * MIB)
    warm = hold(pool, 55)

    with pool.submit(
        DEMAND, {"bytes": 20 * MIB}, mem_cap_bytes=140 * MIB, restartable=True
    ) as small:
        small.result()
    assert small.pid == warm  # another cap needs no other process
    request = {"bytes": 90 * MIB}
    with pool.submit(DEMAND, request, mem_cap_bytes=140 * MIB, restartable=True) as execution:
        execution.result()
    assert execution.pid != warm


@pytest.mark.slow  # as above
def test_a_run_whose_output_was_read_is_not_started_again(
    open_pool: Callable[..., ExecutorPool], tmp_path: Path
) -> None:
    pool = open_pool(memory_bytes=512 * MIB)
    hold(pool, 55)
    go = tmp_path / "go"

    request = {"bytes": 90 * MIB, "go": str(go)}
    with pool.submit(DEMAND, request, mem_cap_bytes=140 * MIB, restartable=True) as execution:
        payloads = execution.payloads()
        assert bytes(next(payloads)) == b"before"
        go.touch()
        with pytest.raises((CapTooSmall, MemoryCapExceeded)):
            list(payloads)
    assert pool.stats().started == 1


@pytest.mark.slow  # it allocates until it is stopped
@pytest.mark.parametrize("kind", ["blocks", "at once"])
def test_a_warm_process_keeps_a_smaller_cap(
    open_pool: Callable[..., ExecutorPool], kind: str
) -> None:
    pool = open_pool(memory_bytes=512 * MIB)
    warm = hold(pool, 40)

    with PeakPoller(warm) as poller:
        with (
            pool.submit(
                "executor_hogs:hog", {"kind": kind}, mem_cap_bytes=130 * MIB, restartable=True
            ) as run,
            pytest.raises(MemoryCapExceeded),
        ):
            list(run.payloads())
        assert run.pid == warm
        with pool.submit(ECHO, {}) as execution:  # and a larger one again
            execution.result()
        pool.close()
        assert poller.peak() <= 130 * MIB

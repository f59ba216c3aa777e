from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from sennit_core.errors import (
    Busy,
    CapTooSmall,
    Closed,
    DeadlineExceeded,
    InternalError,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    UnknownColumn,
    UsageError,
    WorkerLost,
)
from sennit_core.records import Progress

ECHO = "executor_entries:echo"
WAIT = "executor_entries:wait"
MIB = 1 << 20


def pid_of(pool: ExecutorPool) -> int:
    with pool.submit(ECHO, {}) as execution:
        pid: int = execution.result()["pid"]
        assert execution.pid == pid
    return pid


def test_payloads_come_in_order_and_then_the_result(pool: ExecutorPool) -> None:
    with pool.submit(ECHO, {"emit": ["a", "b", "c"], "n": 2**60}) as execution:
        assert [bytes(payload) for payload in execution.payloads()] == [b"a", b"b", b"c"]
        assert execution.result()["n"] == 2**60
        assert execution.done


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "sizes", [[65_536], [65_537], [1, 65_535, 1], [9, 200_000, 5], [40_000] * 9]
)
def test_an_answer_keeps_its_order_whether_it_needs_a_ring_or_not(
    pool: ExecutorPool, sizes: list[int]
) -> None:
    pieces = [chr(97 + index) * size for index, size in enumerate(sizes)]

    with pool.submit(ECHO, {"emit": pieces, "n": 1}) as execution:
        answer = b"".join(bytes(payload) for payload in execution.payloads())

    assert answer.decode() == "".join(pieces)


def test_a_process_is_started_when_first_needed_and_kept_warm(pool: ExecutorPool) -> None:
    assert pool.stats().pids == ()
    assert len({pid_of(pool) for _ in range(5)}) == 1
    assert pool.stats().started == 1


def test_an_error_arrives_as_its_class_with_its_fields(pool: ExecutorPool) -> None:
    with pool.submit("executor_entries:fail", {"how": "sennit"}) as execution:
        payloads = execution.payloads()
        assert bytes(next(payloads)) == b"before it failed"
        with pytest.raises(UnknownColumn) as raised:
            next(payloads)
        with pytest.raises(UnknownColumn):
            execution.result()
    assert raised.value.known == ("carrier", "distance")
    assert raised.value.suggestion == "carrier"


def test_an_unexpected_error_is_internal_and_harms_no_other_run(pool: ExecutorPool) -> None:
    before = pid_of(pool)
    with (
        pool.submit("executor_entries:fail", {"how": "surprise"}) as execution,
        pytest.raises(InternalError, match="RuntimeError: something broke"),
    ):
        execution.result()
    assert pid_of(pool) == before


def test_an_error_whose_fields_cannot_be_sent_arrives_all_the_same(pool: ExecutorPool) -> None:
    before = pid_of(pool)
    with (
        pool.submit("executor_entries:fail", {"how": "unsendable"}) as execution,
        pytest.raises(SennitError, match="half a pair"),
    ):
        execution.result()
    assert pid_of(pool) == before


def test_a_result_that_cannot_travel_is_an_error(pool: ExecutorPool) -> None:
    with (
        pool.submit("executor_entries:fail", {"how": "result"}) as execution,
        pytest.raises(InternalError, match="TypeError"),
    ):
        execution.result()


def test_a_process_that_is_killed_costs_its_run_alone(pool: ExecutorPool) -> None:
    with pool.submit(WAIT, {}) as execution:
        payloads = execution.payloads()
        assert bytes(next(payloads)) == b"started"
        os.kill(execution.pid, signal.SIGKILL)
        with pytest.raises(WorkerLost, match=r"executor \d+ was lost: it was ended by SIGKILL"):
            next(payloads)
        dead = execution.pid
    assert pid_of(pool) != dead


def test_no_caller_hangs_when_a_process_dies_before_its_first_payload(pool: ExecutorPool) -> None:
    with pool.submit("executor_entries:fail", {"how": "exit"}) as execution:
        with pytest.raises(WorkerLost, match="status 3"):
            list(execution.payloads())
        with pytest.raises(WorkerLost, match="status 3"):
            execution.result()


def test_an_idle_process_that_is_killed_is_replaced(pool: ExecutorPool) -> None:
    before = pid_of(pool)
    os.kill(before, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before)], timeout=10) if psutil.pid_exists(before) else None
    assert pid_of(pool) != before


def test_requests_wait_in_order_of_arrival(pool: ExecutorPool) -> None:
    order: list[int] = []

    running = pool.submit(WAIT, {})
    waiting = [
        pool.submit(
            "executor_entries:flood",
            {"blocks": 1, "blockBytes": 1},
            on_progress=lambda _, number=number: order.append(number),  # type: ignore[misc]
        )
        for number in range(4)
    ]
    assert pool.stats().waiting == 4
    running.close()
    for execution in waiting:
        with execution:
            execution.result()
    assert order == [0, 1, 2, 3]


def test_a_full_queue_refuses(open_pool: Callable[..., ExecutorPool]) -> None:
    pool = open_pool(queue_limit=0)
    with pool.submit(WAIT, {}), pytest.raises(Busy, match="1 executors are busy"):
        pool.submit(ECHO, {})


def test_a_deadline_counts_the_time_of_waiting(pool: ExecutorPool) -> None:
    with (
        pool.submit(WAIT, {}),
        pool.submit(ECHO, {}, deadline_seconds=0.05) as expired,
        pytest.raises(DeadlineExceeded, match="waiting for an executor"),
    ):
        expired.result()
    assert pid_of(pool)


def test_two_executors_work_at_once(open_pool: Callable[..., ExecutorPool]) -> None:
    pool = open_pool(2)
    with pool.submit(WAIT, {}) as one, pool.submit(WAIT, {}) as two:
        assert bytes(next(one.payloads())) == bytes(next(two.payloads())) == b"started"
        assert one.pid != two.pid
        assert pool.stats().busy == 2
    assert pool.executor_bytes == 128 * MIB


def test_closing_cancels_ends_every_process_and_refuses_more(
    open_pool: Callable[..., ExecutorPool], tmp_path: Path
) -> None:
    pool = open_pool(2)
    running = pool.submit(WAIT, {})
    assert pid_of(pool)
    pids = pool.stats().pids
    pool.close()
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert [path.name for path in (tmp_path / "spill").iterdir()] == [".sweep"]
    with pytest.raises(Closed):
        pool.submit(ECHO, {})
    running.close()


def test_entries_are_found_by_their_registered_names_only(tmp_path: Path) -> None:
    with ExecutorPool(1, memory_bytes=64 * MIB, spill_dir=tmp_path) as pool:
        with pytest.raises(NotFound, match=r'no entry point "emsqrt\.plam"') as raised:
            pool.submit("emsqrt.plam", {})
        assert raised.value.suggestion == "emsqrt.plan"
        with pytest.raises(NotFound):
            pool.submit("os:abort", {})
        assert pool.stats().started == 0


def test_a_pool_needs_an_executor() -> None:
    with pytest.raises(UsageError, match="at least one"):
        ExecutorPool(0, memory_bytes=1)


def test_progress_is_reported_while_it_runs(pool: ExecutorPool) -> None:
    reports: list[Progress] = []
    request = {"blocks": 3, "blockBytes": 10}
    with pool.submit("executor_entries:flood", request, on_progress=reports.append) as execution:
        execution.result()
        assert execution.progress == reports[-1]
    assert (reports[0].done, reports[0].phase) == (1, "flood")


def test_a_progress_callback_that_fails_costs_nothing_but_a_log_line(
    pool: ExecutorPool, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(progress: Progress) -> None:
        raise ValueError(progress.phase)

    request = {"blocks": 3, "blockBytes": 10}
    with pool.submit("executor_entries:flood", request, on_progress=broken) as execution:
        assert execution.result() == {}
    assert "an on_progress callback failed" in caplog.text


def test_a_slow_reader_slows_the_entry_down(open_pool: Callable[..., ExecutorPool]) -> None:
    pool = open_pool(ring_bytes=1 * MIB)
    request = {"blocks": 400, "blockBytes": 64 << 10}
    with pool.submit("executor_entries:flood", request) as execution:
        payloads = execution.payloads()
        next(payloads)
        with pytest.raises(DeadlineExceeded):
            execution.result(timeout=0.3)
        assert execution.progress.done <= 17
        assert sum(len(payload) for payload in payloads) == 399 * (64 << 10)
        execution.result()


def test_batches_of_any_size_arrive_whole(pool: ExecutorPool) -> None:
    request = {"rows": 20_000, "long": 5 * MIB}
    with pool.submit("executor_entries:arrow", request) as execution:
        batches = list(execution.batches())
    assert [n for batch in batches for n in batch["n"].to_pylist()] == [*range(20_000), -1]
    assert len(batches[-1]["s"][0].as_py()) == 5 * MIB


@pytest.mark.slow
def test_a_batch_is_there_before_the_next_is_made(pool: ExecutorPool, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    with pool.submit("executor_entries:arrow_one_by_one", {"go": str(go)}) as execution:
        for count, batch in enumerate(execution.batches(), start=1):
            assert batch.to_pydict() == {"d": [f"value {count}"] * count}
            assert pa.types.is_dictionary(batch.schema.field("d").type)
            with go.open("ab") as file:
                file.write(b".")
    assert count == 3


def test_an_entry_without_payloads_has_no_batches(pool: ExecutorPool) -> None:
    with pool.submit(ECHO, {}) as execution:
        assert list(execution.batches()) == []


def test_executors_start_lean_and_know_their_share(pool: ExecutorPool) -> None:
    with pool.submit("executor_entries:describe", {}, mem_cap_bytes=64 * MIB) as execution:
        found = execution.result()
    assert not {"pyarrow", "numpy", "duckdb", "pandas", "emsqrt.executor.pool"} & {
        *found["modules"]
    }
    assert (found["capBytes"], found["pool"], found["pandas"]) == (64 * MIB, "system", False)
    assert 20 * MIB < found["budgetBytes"] < 50 * MIB


def test_a_cap_over_the_share_is_the_share(pool: ExecutorPool) -> None:
    with pool.submit("executor_entries:describe", {}, mem_cap_bytes=1 << 40) as execution:
        assert execution.result()["capBytes"] == 256 * MIB


def test_prints_of_an_entry_point_are_not_the_callers_output(
    pool: ExecutorPool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pool.submit("executor_entries:describe", {}) as execution:
        execution.result()
    pool.close()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "this goes nowhere" in captured.err


def test_a_budget_refusal_arrives_with_its_tag(pool: ExecutorPool) -> None:
    with (
        pool.submit("executor_entries:overdraw", {}) as execution,
        pytest.raises(MemoryCapExceeded, match="hash table"),
    ):
        execution.result()


def test_a_cap_below_the_memory_of_a_process_is_refused(pool: ExecutorPool) -> None:
    with (
        pool.submit("executor_entries:describe", {}, mem_cap_bytes=10 * MIB) as execution,
        pytest.raises(CapTooSmall),
    ):
        execution.result()


def test_an_idle_executor_is_small(pool: ExecutorPool) -> None:
    memory = psutil.Process(pid_of(pool)).memory_info()
    assert memory.rss <= 25_000_000

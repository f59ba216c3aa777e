from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from emsqrt.executor import ExecutorPool
from emsqrt.executor.spill import SpillArea
from sennit_core.errors import Cancelled, DeadlineExceeded

MIB = 1 << 20
STUBBORN = "executor_entries:ignore_everything"


def gone(pid: int, seconds: float = 20) -> bool:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("entry", ["wait", "block_until_interrupted"])
def test_cancelling_stops_an_entry_that_listens_and_keeps_its_process(
    pool: ExecutorPool, entry: str
) -> None:
    with pool.submit(f"executor_entries:{entry}", {}) as execution:
        payloads = execution.payloads()
        next(payloads)
        execution.cancel()
        with pytest.raises(Cancelled, match=entry):
            execution.result()
        with pytest.raises(Cancelled):
            next(payloads)
    with pool.submit("executor_entries:echo", {}) as again:
        assert again.result()["pid"] == execution.pid


def test_a_process_that_is_still_loading_outlives_the_deadline_of_its_request(
    pool: ExecutorPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = tmp_path / "loading"
    barrier.touch()
    monkeypatch.setenv("EXECUTOR_TEST_BARRIER", str(barrier))
    monkeypatch.setattr("emsqrt.executor.pool.GRACE_SECONDS", 0.05)
    with pool.submit("executor_loading:answer", {}, deadline_seconds=0.1) as expired:
        assert not expired.wait(0.5)  # ten times as long as a process that has loaded would get
        barrier.unlink()
        with pytest.raises(DeadlineExceeded):
            expired.result(timeout=20)
    with pool.submit("executor_loading:answer", {}) as again:
        assert again.result()["pid"] == expired.pid


@pytest.mark.slow
def test_cancelling_kills_an_entry_that_does_not_listen(pool: ExecutorPool) -> None:
    with pool.submit(STUBBORN, {}) as execution:
        next(execution.payloads())
        execution.cancel()
        with pytest.raises(Cancelled):
            execution.result(timeout=20)
    assert gone(execution.pid)
    with pool.submit("executor_entries:echo", {}) as again:
        assert again.result()["pid"] != execution.pid


@pytest.mark.parametrize(
    "interrupted", ["subprocess.Popen", "emsqrt.executor.worker.Worker.start_task"]
)
def test_ctrl_c_while_a_process_starts_leaves_its_place_to_the_next_request(
    pool: ExecutorPool, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(interrupted, interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.submit("executor_entries:wait", {})
    with pool.submit("executor_entries:echo", {}) as again:
        again.result(timeout=20)


def test_cancelling_wakes_an_entry_that_waits_for_room_in_the_ring(pool: ExecutorPool) -> None:
    request = {"blocks": 1000, "blockBytes": MIB}
    with pool.submit("executor_entries:flood", request) as execution:
        next(execution.payloads())
        execution.cancel()
        with pytest.raises(Cancelled):
            execution.result(timeout=20)
    with pool.submit("executor_entries:echo", {}) as again:
        assert again.result()["pid"] == execution.pid


def test_cancelling_an_ended_request_does_nothing(pool: ExecutorPool) -> None:
    with pool.submit("executor_entries:echo", {"emit": ["x"]}) as execution:
        execution.result()
        execution.cancel()
        assert [bytes(payload) for payload in execution.payloads()] == [b"x"]


@pytest.mark.slow
def test_leaving_an_execution_cancels_it(pool: ExecutorPool) -> None:
    with pool.submit(STUBBORN, {}) as execution:
        next(execution.payloads())
    assert execution.done
    assert pool.stats().busy == 0


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["wait", "ignore_everything"])
def test_a_deadline_stops_an_entry_whether_it_listens_or_not(
    pool: ExecutorPool, entry: str
) -> None:
    with pool.submit(f"executor_entries:{entry}", {}, deadline_seconds=0.2) as execution:
        with pytest.raises(DeadlineExceeded, match=entry) as raised:
            list(execution.payloads())
        assert raised.value.seconds == pytest.approx(0.2, abs=0.05)


def test_a_run_leaves_no_spill_files(pool: ExecutorPool, tmp_path: Path) -> None:
    with pool.submit("executor_entries:spill", {}) as execution:
        folder = Path(bytes(next(execution.payloads())).decode())
        execution.result()
    assert folder.is_relative_to(tmp_path / "spill")
    assert not folder.exists()


def test_a_killed_run_leaves_no_spill_files(pool: ExecutorPool) -> None:
    with pool.submit("executor_entries:spill", {"wait": True}) as execution:
        folder = Path(bytes(next(execution.payloads())).decode())
        assert (folder / "run").stat().st_size == 1000
        os.kill(execution.pid, signal.SIGKILL)
        assert gone(execution.pid)
    assert not folder.exists()


PARENT = """
import sys
from emsqrt.executor import ExecutorPool
if __name__ != "__main__":
    raise SystemExit("an executor imported its caller's script")
pool = ExecutorPool(2, memory_bytes=1 << 28, spill_dir=sys.argv[1], allow_module_entries=True)
for entry in ("ignore_everything", "spill"):
    execution = pool.submit(f"executor_entries:{entry}", {"wait": True})
    bytes(next(execution.payloads()))
    print(execution.pid, flush=True)
input()
"""


@pytest.mark.nightly
@pytest.mark.crash
def test_a_killed_parent_leaves_no_process_and_its_spill_is_swept(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    spill = tmp_path / "spill"
    with subprocess.Popen(
        [sys.executable, script, spill],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.kill()
    assert all(gone(pid) for pid in pids)
    left = [path for path in spill.iterdir() if path.is_dir()]
    assert len(left) == 1
    SpillArea(spill).close()
    assert not left[0].exists()


@pytest.mark.slow
def test_a_living_pools_spill_is_not_swept(pool: ExecutorPool, tmp_path: Path) -> None:
    with pool.submit("executor_entries:spill", {"wait": True}) as execution:
        folder = Path(bytes(next(execution.payloads())).decode())
        SpillArea(tmp_path / "spill").close()
        assert (folder / "run").exists()


def test_a_deadline_of_centuries_is_one_like_any_other(pool: ExecutorPool) -> None:
    for _ in range(2):
        with pool.submit("executor_entries:echo", {}, deadline_seconds=1e300) as execution:
            assert execution.result(timeout=20)["pid"] == execution.pid

"""Engines that share a host's memory: the order of grants, and the limit on their sum."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

import emsqrt.engine as engine_module
from emsqrt import BudgetPool, Engine, EngineConfig, scan
from emsqrt.memory.queue import FairQueue
from emsqrt.memory.usage import UsageReader
from emsqrt.plan import Plan
from sennit_core.errors import (
    Cancelled,
    CapTooSmall,
    DeadlineExceeded,
    MemoryCapExceeded,
    UsageError,
)

MIB = 1 << 20


def test_tenants_alternate_and_each_tenant_is_first_in_first_out() -> None:
    queue = FairQueue(10)
    busy = queue.request("a", 10)
    assert queue.serve() == [busy]
    a1, a2, a3 = (queue.request("a", 10) for _ in range(3))
    b1, c1 = queue.request("b", 10), queue.request("c", 10)
    order, held = [], busy
    for _ in range(5):
        queue.release(held)
        (held,) = queue.serve()
        order.append(held)
    assert order == [b1, c1, a1, a2, a3]


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    queue = FairQueue(10)
    small = [queue.request("a", 2) for _ in range(5)]
    assert queue.serve() == small
    large, later = queue.request("b", 8), queue.request("c", 2)
    queue.release(small[0])
    assert queue.serve() == []
    for ticket in small[1:4]:
        queue.release(ticket)
    assert queue.serve() == [large]
    queue.release(small[4])
    assert queue.serve() == [later]


def test_a_tenant_that_waits_for_its_own_share_blocks_no_other() -> None:
    queue = FairQueue(10, {"a": 4})
    first, second = queue.request("a", 4), queue.request("a", 4)
    other = queue.request("b", 6)
    assert queue.serve() == [first, other]
    queue.release(first)
    assert queue.serve() == [second]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20), st.integers(0, 5)), max_size=60),
    st.dictionaries(st.sampled_from("abc"), st.integers(20, 40)),
)
def test_the_sum_stays_within_the_total_and_every_tenant_is_served(
    events: list[tuple[str, int, int]], shares: dict[str, int]
) -> None:
    queue = FairQueue(40, shares)
    held: list[int] = []
    tickets: dict[int, str] = {}
    served: list[int] = []
    for tenant, size, releases in events:
        tickets[queue.request(tenant, size)] = tenant
        granted = queue.serve()
        held += granted
        served += granted
        for _ in range(min(releases, len(held))):
            queue.release(held.pop(0))
        assert queue.used_bytes <= 40
        for name, account in queue.tenants.items():
            assert 0 <= account.used_bytes <= queue.limit(name)
    for ticket in held:
        queue.release(ticket)
    held = []
    while granted := queue.serve():
        held += granted
        served += granted
        for ticket in held:
            queue.release(ticket)
        held = []
    assert sorted(served) == sorted(tickets)
    for tenant in "abc":
        mine = [ticket for ticket in served if tickets[ticket] == tenant]
        assert mine == sorted(mine)
    assert queue.used_bytes == 0


def test_waiting_ends_with_a_deadline_or_when_it_is_cancelled() -> None:
    pool = BudgetPool("10MiB", {"small": "1MiB"})
    stop = threading.Event()
    with pool.lease("a", 10 * MIB):
        with pytest.raises(DeadlineExceeded), pool.lease("b", MIB, deadline_seconds=0.01):
            pass
        stop.set()
        with pytest.raises(Cancelled), pool.lease("b", MIB, cancel=stop):
            pass
        assert pool.stats()["b"].waiting == 0
    with pytest.raises(CapTooSmall), pool.lease("small", 2 * MIB):
        pass
    with pool.lease("b", 10 * MIB):
        assert pool.stats()["b"].used_bytes == 10 * MIB
    assert pool.stats()["b"].used_bytes == 0


def test_more_is_leased_after_a_breach_until_a_share_is_used_up() -> None:
    pool, leased = BudgetPool("100MiB", {"a": "30MiB"}), []

    def work(size_bytes: int, seconds: float | None) -> int:
        leased.append(size_bytes // MIB)
        assert pool.stats()["a"].used_bytes == size_bytes
        if size_bytes < 25 * MIB:
            raise MemoryCapExceeded(cap_bytes=size_bytes)
        return size_bytes

    assert pool.lease_enough("a", 8 * MIB, work) == 30 * MIB
    assert leased == [8, 16, 30]
    with pytest.raises(MemoryCapExceeded, match=r"estimating the plan of b, over .* 20\.0 MiB"):
        BudgetPool("20MiB").lease_enough("b", 8 * MIB, refuse)


def refuse(size_bytes: int, seconds: float | None) -> None:
    raise MemoryCapExceeded(cap_bytes=size_bytes)


class _Watcher(threading.Thread):
    """Adds up what the children of this process are charged, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.most_at_once = 0
        self._before = set(_children())  # of tests that ran before
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.002):
            held = [
                size for pid in set(_children()) - self._before if (size := _charged(pid)) > MIB
            ]
            self.peak_bytes = max(self.peak_bytes, sum(held))
            self.most_at_once = max(self.most_at_once, len(held))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended since
            found += map(int, (task / "children").read_text().split())
    return found


def _charged(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        if (
            b"emsqrt.text_engine.process" not in words and b"emsqrt.executor.process" not in words
        ):  # on its way to be one, and still this process's
            return 0
        with UsageReader(pid) as reader:
            return reader.read().charged_bytes
    except OSError:
        return 0


def _shuffled(path: Path, rows: int) -> Path:
    path.write_text("k,v\n" + "".join(f"{i * 7919 % rows},{'x' * 40}\n" for i in range(rows)))
    return path


@pytest.mark.nightly
def test_three_engines_hold_no_more_than_their_pool(tmp_path: Path) -> None:
    source = _shuffled(tmp_path / "in.csv", 160_000)
    pool = BudgetPool("40MiB")
    failures: list[BaseException] = []

    def work(name: str) -> None:
        engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"), pool=pool, tenant=name)
        try:
            for run in range(2):
                plan = scan(source).sort("k").sink(tmp_path / f"{name}{run}.csv").plan
                engine.run(plan, mem_cap="20MiB")
        except BaseException as error:
            failures.append(error)
            raise

    watcher = _Watcher()
    watcher.start()
    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    watcher.stop()
    assert not failures
    assert 0 < watcher.peak_bytes <= pool.total_bytes
    assert watcher.most_at_once <= 2
    assert pool.peak_bytes == 40 * MIB
    stats = pool.stats()
    assert {name: each.runs for name, each in stats.items()} == {"a": 2, "b": 2, "c": 2}
    assert all(each.used_bytes == 0 and each.spilled_bytes > 0 for each in stats.values())
    assert len({path.read_bytes() for path in tmp_path.glob("[abc]?.csv")}) == 1


def _plan(folder: Path, kind: str) -> Plan:
    source = _shuffled(folder / "in.csv", 1000)
    if kind == "parquet":
        parquet.write_table(csv.read_csv(source), source.with_suffix(".parquet"))
    return scan(source.with_suffix(f".{kind}")).sort("k").sink(folder / f"out.{kind}").plan


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "leased_bytes"), [("csv", 12 * MIB), ("parquet", 40 * MIB)])
def test_a_process_that_estimates_a_plan_holds_its_part_of_the_pool(
    kind: str, leased_bytes: int, tmp_path: Path
) -> None:
    pool = BudgetPool("96MiB", {"small": leased_bytes - 1})
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"), pool=pool, tenant="acme")
    plan = _plan(tmp_path, kind)
    watcher = _Watcher()
    watcher.start()
    requirement = engine.estimate(plan, mem_cap="64MiB")
    watcher.stop()
    assert 0 < watcher.peak_bytes <= pool.stats()["acme"].peak_bytes == leased_bytes
    alone = Engine(EngineConfig(spill_dir=tmp_path / "spill")).estimate(plan, mem_cap="64MiB")
    assert abs(requirement.cap_bytes - alone.cap_bytes) < MIB

    with pool.lease("other", 96 * MIB):
        with pytest.raises(DeadlineExceeded):
            engine.estimate(plan, deadline_seconds=0)
        stop = threading.Event()
        stop.set()
        with pytest.raises(Cancelled):
            engine.estimate(plan, cancel=stop)
    with pytest.raises(CapTooSmall) as refused:
        Engine(pool=pool, tenant="small").estimate(plan)
    assert refused.value.needed_bytes == leased_bytes
    assert {name: each.used_bytes for name, each in pool.stats().items()} == {"acme": 0, "other": 0}


@pytest.mark.slow
def test_a_process_that_estimates_a_plan_keeps_to_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_TEXT_ESTIMATE_BYTES", 6 * MIB)
    pool = BudgetPool("96MiB", {"small": "6MiB"})
    plan = _plan(tmp_path, "csv")
    Engine(pool=pool, tenant="acme").estimate(plan)
    assert pool.stats()["acme"].peak_bytes == 12 * MIB, "6 MiB were not enough"
    with pytest.raises(MemoryCapExceeded, match="estimating the plan of small"):
        Engine(pool=pool, tenant="small").estimate(plan)


def _refusal(pool: BudgetPool, tenant: str, plan: Plan, folder: Path) -> CapTooSmall:
    engine = Engine(EngineConfig(spill_dir=folder / "spill"), pool=pool, tenant=tenant)
    with pytest.raises(CapTooSmall) as refused:
        engine.run(plan, mem_cap="64MiB")
    return refused.value


def test_a_cap_over_the_share_is_refused(tmp_path: Path) -> None:
    pool = BudgetPool("160MiB", {"tiny": "20MiB"})
    refused = _refusal(pool, "tiny", _plan(tmp_path, "csv"), tmp_path)
    assert refused.needed_bytes == 64 * MIB
    assert "ask for no more than 20.0 MiB" in str(refused.hint)
    least = float(str(refused.hint).split("needs ")[1].split(" MiB")[0])
    assert 8 < least < 16


@pytest.mark.nightly
def test_a_cap_over_the_share_is_refused_with_the_memory_of_the_plan(tmp_path: Path) -> None:
    pool = BudgetPool("160MiB", {"tiny": "20MiB", "some": "42MiB"})
    typed = _plan(tmp_path, "parquet")

    none = _refusal(pool, "tiny", typed, tmp_path)
    assert none.needed_bytes == 40 * MIB, "its share holds no process that could estimate"
    whole = _refusal(pool, "some", typed, tmp_path)
    assert (whole.cap_bytes, whole.hint) == (42 * MIB, None)
    assert 42 * MIB < whole.needed_bytes < 64 * MIB
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"), pool=pool, tenant="acme")
    assert engine.run(typed, mem_cap=whole.needed_bytes).rows_out == 1000


def test_a_tenant_spills_into_its_own_folder(tmp_path: Path) -> None:
    engine = Engine(EngineConfig(spill_dir=tmp_path), tenant="acme")
    assert engine.config.spill_dir == tmp_path / "acme"
    with pytest.raises(UsageError):
        Engine(tenant="../other")

"""A fault at every single call of a round trip: the right answer, or a clean error."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import emsqrt.spill.objects as objects_module
from emsqrt.spill import SpillError, SpillLost, SpillManager, default_spill_dir
from emsqrt.spill.clients import RequestFailed
from emsqrt.spill.local import LocalStore
from emsqrt.spill.objects import ObjectStore, sweep_objects
from emsqrt.spill.retry import Retry
from emsqrt.spill.store import Store
from emsqrt.spill.testing import (
    CLIENT_FAULTS,
    DISK_FAULTS,
    ClientFault,
    DiskFault,
    FaultyClient,
    FaultyDisk,
    MemoryClient,
)

BLOCKS = [random.Random(n).randbytes(size) for n, size in enumerate((3000, 10, 5000, 9000, 1))]
BLOCKS[2] = b"compressible " * 400


def round_trip(store: Store, codec: str = "lz4") -> None:
    """Write two segments side by side, read both, one from its middle; remove one."""
    with SpillManager("", store=store, codec=codec) as spill:  # type: ignore[arg-type]
        with spill.create("a") as first, spill.create("b") as second:
            for block in BLOCKS:
                first.append(block, 1)
                second.append(block[::-1], 2)
            segments = first.finish(), second.finish()
        buffer = bytearray(segments[0].block_raw_max)
        with spill.open(segments[0]) as forward, spill.open(segments[1]) as backward:
            backward.seek(2)
            for block in BLOCKS:
                assert forward.read_into(buffer) == (len(block), 1)
                assert buffer[: len(block)] == block
            for block in BLOCKS[2:]:
                assert backward.read_into(buffer) == (len(block), 2)
                assert buffer[: len(block)] == block[::-1]
            assert forward.read_into(buffer) == backward.read_into(buffer) == (0, 0)
        spill.remove(segments[0])
    assert spill.stats.live_bytes == 0
    assert spill.buffer_bytes <= len(BLOCKS[3])


def outcome(store: Store) -> SpillError | None:
    """Return how a round trip failed; None when it did not, and every byte was right."""
    try:
        round_trip(store)
    except SpillError as error:
        return error
    return None


@pytest.fixture
def local() -> Callable[[FaultyDisk], LocalStore]:
    root = default_spill_dir() / "tests"
    return lambda disk: LocalStore(root, disk=disk)


@pytest.mark.slow
@pytest.mark.parametrize("fault", DISK_FAULTS)
def test_a_disk_that_fails_anywhere(
    local: Callable[[FaultyDisk], LocalStore], fault: DiskFault
) -> None:
    quiet = FaultyDisk()
    round_trip(local(quiet))
    assert {"create", "write", "flush", "read", "open", "unlink"} <= set(quiet.names)
    errors = []
    for at in range(1, quiet.calls + 1):
        store = local(FaultyDisk(at, fault))
        errors.append(outcome(store))
        assert not store.folder.exists()
    refused = [error for error in errors if error is not None]
    assert all(store.place in str(error) for error in refused)
    reported = quiet.calls - 2  # errors of closing two readers are not reported
    expected = {"full": reported, "broken": reported, "short": 0}
    assert len(refused) == expected.get(fault, quiet.names.count("read"))


def no_wait(max_ms: int = 1000) -> Retry:
    """Backoff by a clock of its own, which waiting moves on."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Retry(max_ms, sleep=sleep, clock=lambda: now[0])


def objects(client: FaultyClient) -> ObjectStore:
    return ObjectStore(
        client, "p/", concurrency=1, retry=no_wait(), part_bytes=4000, buffer_bytes_max=10_000
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", CLIENT_FAULTS)
def test_an_object_store_that_fails_anywhere(fault: ClientFault) -> None:
    quiet = FaultyClient(MemoryClient())
    round_trip(objects(quiet))
    assert quiet.requests > 10
    errors = []
    for at in range(1, quiet.requests + 1):
        memory = MemoryClient()
        errors.append(outcome(objects(FaultyClient(memory, at, fault))))
        if fault in ("lost once", "short", "flipped"):
            assert memory.objects == {}
    refused = [error for error in errors if error is not None]
    assert all("memory/p/" in str(error) for error in refused)
    assert bool(refused) == (fault not in ("lost once", "short"))


def test_an_unreachable_store_is_abandoned_in_time() -> None:
    client = FaultyClient(MemoryClient(), 1, "lost")
    with SpillManager("", store=objects(client)) as spill, spill.create("a") as writer:
        writer.append(b"x", 1)
        with pytest.raises(SpillLost, match="connection reset"):
            writer.finish()
    assert 3 <= client.requests < 30


def test_remains_of_dead_runs_are_listed_within_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = FaultyClient(MemoryClient(), 1, "lost")
    monkeypatch.setattr(objects_module, "open_client", lambda uri, options: (client, ""))
    monkeypatch.setattr(objects_module, "Retry", no_wait)
    with pytest.raises(RequestFailed):
        sweep_objects("s3://away", 3600, 1)
    assert client.requests == 1
    with pytest.raises(RequestFailed):
        sweep_objects("s3://away", 3600, 1000)
    assert client.requests > 3


def test_cancelling_ends_the_waiting_for_a_store() -> None:
    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    client = FaultyClient(MemoryClient(), 1, "lost")
    retry = Retry(60_000, check)
    store = ObjectStore(client, retry=retry)
    with pytest.raises(Stop):
        store.request(lambda: client.get("a", 0, 1))
    store._threads.shutdown()


def test_full_memory_makes_parts_smaller() -> None:
    memory = MemoryClient()
    store = ObjectStore(memory, concurrency=2, part_bytes=1 << 20, buffer_bytes_max=50_000)
    with SpillManager("", store=store, codec="none") as spill:
        writers = [spill.create(f"w{number}") for number in range(20)]
        most = 0
        for number in range(10):
            for writer in writers:
                writer.append(bytes([number]) * 4000, 1)
                most = max(most, spill.buffer_bytes)
        segments = [writer.finish() for writer in writers]
        assert most <= 50_000
        buffer = bytearray(4000)
        for segment in segments:
            with spill.open(segment) as reader:
                for number in range(10):
                    assert reader.read_into(buffer) == (4000, 1)
                    assert buffer == bytes([number]) * 4000
        assert len(memory.objects) > 20
    assert memory.objects == {}

"""The scheduled scrub: resumes, keeps to its rate, moves damaged objects aside, is repaired by a put."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from lake.cli import main
from lake.maintenance.scrub import ScrubReport
from sennit_core.errors import Cancelled, Corrupt

from .conftest import FLIGHTS, put
from .test_damage import LARGE, flip, manifest_of, shard_of


def reopened(lake: Lake, **settings: object) -> Lake:
    return Lake(lake.folder, tree=lake.tree, pool=lake.pool, **settings)  # type: ignore[arg-type]


def whole_pass(lake: Lake) -> ScrubReport:
    return list(lake.scrubber.run_pass())[-1]


def chunk_list(path: Path) -> Path:
    return path.with_name(path.name + ".chunks")


def test_a_damaged_object_is_moved_aside_and_a_put_of_the_same_repairs_it(flights: Lake) -> None:
    put(flights, "trips.csv", "city,km\nOslo,12\n")
    shard = shard_of(flights)
    flip(shard, 40)

    report = whole_pass(flights)

    assert (report.quarantined, len(report.findings)) == (1, 1)
    assert not shard.exists()
    assert flights.objects.quarantined() == [shard.name]
    assert flights.storage.status()["quarantined"] == 1
    for lake in (flights, reopened(flights)):
        with pytest.raises(Corrupt, match="shard 0"):
            lake.sql("SELECT * FROM flights")
        assert lake.sql("SELECT sum(km) FROM trips").value == 12
        assert lake.verify().quarantined == 1

    put(flights, "copy.csv", FLIGHTS)  # the same rows are the same object

    assert flights.objects.quarantined() == []
    assert flights.sql("SELECT count(*) FROM flights").value == 4
    assert flights.catalog.get("flights").damaged is None
    assert flights.verify().findings == ()


def test_an_object_that_was_stored_again_meanwhile_is_not_moved_aside(flights: Lake) -> None:
    """Damage was found, then a put replaced the file, and only then it is to be moved."""
    shard = shard_of(flights)

    assert not flights.objects.quarantine(shard.name)

    assert flights.objects.quarantined() == []
    assert flights.sql("SELECT count(*) FROM flights").value == 4
    assert flights.objects.usage().objects == 2


def test_dedup_repairs_a_damaged_file_that_no_scrub_has_found(flights: Lake) -> None:
    flip(shard_of(flights), 40)

    put(flights, "copy.csv", FLIGHTS)

    assert flights.sql("SELECT count(*) FROM flights").value == 4


def test_a_damaged_manifest_is_moved_aside_and_deletes_nothing(flights: Lake) -> None:
    manifest = manifest_of(flights)
    flip(manifest, 9)

    whole_pass(flights)  # its references are unknown: rows find it, and nothing reads it

    lake = reopened(flights)
    assert lake.catalog.list()[0].damaged is not None
    assert list(lake.objects) != []


def test_a_damaged_list_of_hashes_is_written_anew(flights: Lake) -> None:
    put(flights, "large.csv", LARGE)
    flip(chunk_list(shard_of(flights, "large")), 5)

    report = whole_pass(flights)

    assert (report.findings, report.quarantined) == ((), 0)
    assert flights.sql("SELECT count(*) FROM large").value == 40_000


def test_a_file_that_cannot_be_read_is_reported_and_stays(flights: Lake) -> None:
    shard = shard_of(flights)
    kept = shard.read_bytes()
    shard.unlink()

    report = whole_pass(flights)

    assert (len(report.findings), report.quarantined) == (1, 0)
    shard.write_bytes(kept)
    assert whole_pass(flights).findings == ()
    assert flights.sql("SELECT count(*) FROM flights").value == 4


def test_deleting_a_dataset_deletes_what_is_in_quarantine(flights: Lake) -> None:
    shard = shard_of(flights)
    flip(shard, 40)
    whole_pass(flights)

    flights.delete("flights")

    assert [path for path in flights.objects.root.rglob("*") if path.is_file()] == []
    assert flights.objects.usage().objects == 0


def test_a_pass_continues_after_a_restart(numbers: Lake) -> None:
    read: list[int] = []
    for report in numbers.scrubber.run_pass(cancelled=lambda: len(read) >= 3):
        read.append(report.objects)
        if len(read) == 3:
            break
    state = numbers.scrubber.state
    assert state is not None
    assert state.cursor
    total = len(list(numbers.objects))

    lake = reopened(numbers)
    report = whole_pass(lake)

    state = lake.scrubber.state
    assert state is not None
    assert (report.objects, state.objects, state.cursor) == (total - 3, total, "")
    assert state.bytes_done == lake.objects.usage().bytes
    assert whole_pass(lake).objects == total


def test_a_cancelled_pass_keeps_its_place(numbers: Lake) -> None:
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > 5

    with pytest.raises(Cancelled):
        list(numbers.scrubber.run_pass(cancelled=cancelled))
    state = numbers.scrubber.state
    assert state is not None
    assert 0 < state.objects < len(list(numbers.objects))


@pytest.mark.slow  # it measures a rate
def test_a_scrub_keeps_to_its_rate(lake: Lake) -> None:
    lake.append("t", pa.table({"a": [os.urandom(1 << 20) for _ in range(3)]}))
    size = lake.objects.usage().bytes

    started = time.monotonic()
    list(lake.scrubber.run_pass(rate_bytes=2 << 20))

    assert time.monotonic() - started >= 0.9 * size / (2 << 20)


def test_the_thread_runs_a_pass_that_is_due_and_plans_the_next(flights: Lake) -> None:
    flip(shard_of(flights), 40)
    with reopened(flights, scrub_days=1e-9) as lake:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            state = lake.scrubber.state
            if state is not None and state.finished_at:
                break
            time.sleep(0.02)
        assert lake.objects.quarantined()

    with reopened(flights, scrub_days=100) as lake:
        state = lake.scrubber.state
        assert state is not None
        assert state.finished_at > 0
        whole = [lake.scrubber.run_pass(days=10) for _ in range(2)]
        gaps = []
        for each in whole:
            list(each)
            state = lake.scrubber.state
            assert state is not None
            gaps.append((state.next_at - state.finished_at) / 86400)
        assert all(8.5 <= gap <= 11.5 for gap in gaps)
        assert gaps[0] != gaps[1]


def test_the_command_scrubs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    data = ["--data", str(tmp_path / "lake")]
    assert main(["put", str(tmp_path / "a.csv"), *data]) == 0
    assert main(["scrub", "--rate", "100MiB", *data]) == 0
    assert "2 objects" in capsys.readouterr().out
    assert main(["scrub", "--rate", "0", *data]) == 2
    (shard,) = (
        path
        for path in (tmp_path / "lake" / "lake" / "objects").glob("??/*")
        if path.read_bytes().startswith(b"PAR1")
    )
    flip(shard, 10)
    assert main(["scrub", *data]) == 1
    assert "1 objects in quarantine" in capsys.readouterr().out

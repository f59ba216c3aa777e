"""The ingest of a linked file waits while statements run, and not for ever."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from lake import Lake
from lake.ingest.source_hash import SourceHash
from lake.links.linking import LinkRequest
from lake.statements.foreground import FOREGROUND, Background, Foreground
from sennit_core.errors import Cancelled


class Time:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def is_locked(lake: Lake) -> bool:
    return Background(str(lake.folder / "lake" / FOREGROUND)).statements_run()


def test_the_file_is_locked_while_statements_run(lake: Lake) -> None:
    assert not is_locked(lake)
    with lake.run("SELECT 1") as first:
        assert is_locked(lake)
        with lake.run("SELECT 2") as second:
            second.result()
        assert is_locked(lake)
        first.result()
    assert not is_locked(lake)


def test_work_waits_until_no_statement_runs(tmp_path: Path) -> None:
    foreground = Foreground(tmp_path)
    background = Background(str(tmp_path / FOREGROUND))
    background.wait(lambda: None)
    foreground.hold(busy=True)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 3:
            foreground.hold(busy=False)

    background.wait(check)
    assert checks == 3
    foreground.close()
    foreground.hold(busy=True)  # harmless


def test_work_that_waits_for_long_goes_on_and_can_be_cancelled(tmp_path: Path) -> None:
    foreground = Foreground(tmp_path)
    foreground.hold(busy=True)
    clock = Time()
    background = Background(str(tmp_path / FOREGROUND), clock)
    background.wait(lambda: None)
    assert clock.now < 12

    def check() -> None:
        raise Cancelled("the job")

    clock.now += 1000  # worked
    with pytest.raises(Cancelled):
        background.wait(check)
    foreground.close()


def test_a_lake_without_the_file_waits_for_nothing(tmp_path: Path) -> None:
    Background(str(tmp_path / "none")).wait(lambda: pytest.fail("waited"))
    Background(None).wait(lambda: pytest.fail("waited"))


def test_a_file_is_hashed_beside_its_ingest_and_after_the_statements(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"y" * 10)
    paths = [tmp_path / "a", tmp_path / "b"]
    looked = threading.Event()

    def is_busy() -> bool:
        looked.set()
        return True

    with SourceHash(paths, is_busy) as hashing:
        assert looked.wait(30)
        assert not hashing._ended.is_set()  # it waits, and does not hash the rest
        found = hashing.finish(lambda: None)

    assert found == hashlib.sha256(b"x" * 3_000_000 + b"y" * 10).hexdigest()


def test_a_cancelled_ingest_ends_the_hashing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)

    with pytest.raises(Cancelled), SourceHash([tmp_path / "a"], lambda: True):
        raise Cancelled("the ingest")

    assert not any(each.name == "lake-source-hash" for each in threading.enumerate())


@pytest.mark.slow
def test_a_linked_file_is_ingested_after_the_statement(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n" + "".join(f"{n},x{n}\n" for n in range(200_000)))
    linked = lake.linker.link(LinkRequest(str(file)))
    assert linked.upload is not None
    upload, done = linked.upload, threading.Event()

    def ingest() -> None:
        lake.ingest(upload)
        done.set()

    with lake.run("SELECT count(*) FROM t") as execution:
        execution.result()
        thread = threading.Thread(target=ingest)
        thread.start()
        time.sleep(1)
        assert not done.is_set()
    assert done.wait(30)
    thread.join()
    assert lake.sql("SELECT count(*) FROM t").value == 200_000

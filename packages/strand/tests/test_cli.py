"""The `strand` command."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

import strand
import strand.bench
from strand.cli import main


@pytest.fixture
def named() -> Iterator[strand.Ring]:
    schema = strand.build_schema(
        [("id", "u32"), {"name": "note", "type": "utf8", "nullable": True}]
    )
    with strand.open_ring(schema, 8, 1024, name="test-cli") as ring, ring.producer() as writer:
        writer.write_record_batch([(1, "a"), (2, None)])
        yield ring


def test_inspect_shows_layout_counters_owners_and_fields(
    named: strand.Ring, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "test-cli"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "v6, 8 slots",
        "streaming",
        "commit 2",
        "producer",
        "alive",
        "note: utf8, nullable",
    ):
        assert part in shown


def test_inspect_reads_a_descriptor_of_a_process(
    named: strand.Ring, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", f"/proc/self/fd/{named.fileno()}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["counters"]["commit"] == 2
    assert [owner["state"] for owner in facts["owners"]] == ["alive", "alive"]
    assert [reader["state"] for reader in facts["consumers"]] == ["vacant"] * 8


def test_inspect_distinguishes_every_consumer(
    named: strand.Ring, capsys: pytest.CaptureFixture[str]
) -> None:
    with named.consumer() as first, named.consumer() as second:
        first.acknowledge_read(2)
        second.close()
        third = named.consumer("next")
        main(["inspect", "test-cli"])
        third.close()
    lines = capsys.readouterr().out.splitlines()
    consumers = [line.split() for line in lines if line.startswith("  consumer ")]
    assert [words[1] for words in consumers] == ["0", "1", "2-7"]
    assert [words[3:6] for words in consumers[:2]] == [["alive", "2", "0"], ["alive", "2", "0"]]


def test_ls_names_every_consumer(named: strand.Ring, capsys: pytest.CaptureFixture[str]) -> None:
    with named.consumer(), named.consumer():
        main(["ls", "--prefix", "test-cli"])
    shown = capsys.readouterr().out
    assert "consumer 0" in shown
    assert "consumer 1" in shown


def test_a_block_ring_shows_how_much_of_its_heap_is_unread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        strand.open_ring(strand.BLOCKS, 8, 1024, name="test-blocks") as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        for size in (100, 256, 200):
            writer.write_bytes(bytes(size))
        view.acknowledge_read(1)
        main(["inspect", "test-blocks", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["heap_unread_bytes"] == 256 + 200  # payloads are 64-byte aligned


def test_ls_lists_rings_and_names_broken_ones(
    named: strand.Ring, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = strand.segment.FOLDER / "strand-test-cli-broken"
    broken.write_bytes(bytes(5000))
    try:
        assert main(["ls", "--prefix", "test-cli"]) == 0
        lines = capsys.readouterr().out.splitlines()
    finally:
        broken.unlink()
    assert "0/2 read" in lines[0]
    assert "damaged" in lines[1]


def test_cleanup_keeps_held_rings(named: strand.Ring, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cleanup", "--prefix", "test-cli"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["inspect", "test-cli"]) == 0


def test_cleanup_removes_unheld_rings(capsys: pytest.CaptureFixture[str]) -> None:
    orphan = strand.segment.FOLDER / "strand-test-cli-orphan"
    orphan.write_bytes(bytes(5000))
    assert main(["cleanup", "--prefix", "test-cli-orphan"]) == 0
    assert capsys.readouterr().out == f"removed {orphan}\n"
    assert not orphan.exists()


def test_a_ring_that_is_not_there_is_an_error_with_a_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", "test-nothing"]) == 1
    assert "test-nothing" in capsys.readouterr().err


def test_a_fan_in_shows_its_members_and_each_by_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    schema = strand.build_schema([("id", "u32")])
    with strand.fan_in(2, schema, records=8, heap=1024) as fan, fan.producer() as writer:
        path = f"/proc/self/fd/{fan.fileno()}"
        writer.write((7,))
        assert main(["inspect", path]) == 0
        both = capsys.readouterr().out.splitlines()
        assert main(["inspect", f"{path}#1"]) == 0
        second = capsys.readouterr().out
        assert main(["inspect", path, "--follow"]) == 1
        refused = capsys.readouterr().err
    assert [line.split()[0].rpartition("#")[2] for line in both] == ["0", "1"]
    assert ["0/1 read" in line for line in both] == [True, False]
    assert "commit 0" in second
    assert "fan-in of 2 rings" in refused


def _write_slowly(name: str, count: int, may_end: Event) -> None:
    with strand.attach_ring(name=name) as ring, ring.producer() as writer:
        for _ in range(count - 1):
            writer.write_bytes(bytes(64))
            time.sleep(0.01)
        may_end.wait()
        writer.write_bytes(bytes(64))


@pytest.fixture
def may_end() -> Event:
    """What the stream waits for before its last record; set unless a test clears it."""
    event = multiprocessing.get_context("fork").Event()
    event.set()
    return event


@pytest.fixture
def stream(may_end: Event) -> Iterator[str]:
    """A named block ring that another process writes for half a second, without consumers."""
    with strand.open_ring(strand.BLOCKS, 128, "16KiB", name="test-follow") as ring:
        child = multiprocessing.get_context("fork").Process(
            target=_write_slowly, args=("test-follow", 50, may_end)
        )
        child.start()
        while ring.status == "initializing":
            time.sleep(0.001)
        yield "test-follow"
        may_end.set()
        child.join()


@pytest.mark.slow
def test_follow_prints_a_line_each_interval_until_the_end_of_the_stream(
    stream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", stream, "--follow", "--every", "50ms"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    counts = [int(line.split()[heading.split().index("commit")]) for line in lines]
    assert counts == sorted(counts)
    assert counts[-1] == 50
    assert lines[-1].split()[1] == "eos"


@pytest.mark.slow
def test_follow_prints_json_for_programs(stream: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", stream, "--follow", "--every", "50ms", "--json"])
    samples = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert samples[0]["per_second"]["commit"] is None
    assert all(sample["per_second"]["commit"] >= 0 for sample in samples[1:])
    assert samples[-1]["counters"]["commit"] == 50


def _run_in_terminal(arguments: list[str], size: tuple[int, int], may_end: Event) -> str:
    """Run the command in a terminal of `size` lines and columns; return all it wrote there.

    The stream may end once it has been drawn four times.
    """
    may_end.clear()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "strand.cli", *arguments]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # what a terminal answers whose other end is closed
        while piece := os.read(ours, 4096):
            written += piece
            if written.count(b"\x1b[J") > 3:
                may_end.set()
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


@pytest.mark.slow
def test_follow_draws_in_place_on_a_terminal(stream: str, may_end: Event) -> None:
    command = ["inspect", stream, "--follow", "--every", "100ms"]
    written = _run_in_terminal(command, (40, 70), may_end)
    frames = re.split(r"\x1b\[\d+F\x1b\[J", written)
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).splitlines() for frame in frames]
    assert len(frames) > 2
    assert all(len(line) <= 70 for frame in plain for line in frame)
    assert "test-follow" in plain[-1][0]
    assert "eos" in plain[-1][1]
    assert any("█" in line for line in plain[-1])
    assert written.rstrip().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.slow
def test_follow_fits_a_terminal_of_few_lines(stream: str, may_end: Event) -> None:
    command = ["inspect", stream, "--follow", "--every", "100ms"]
    written = _run_in_terminal(command, (8, 40), may_end)
    assert {int(lines) for lines in re.findall(r"\x1b\[(\d+)F", written)} == {7}


@pytest.mark.slow
def test_bench_prints_every_kind_of_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strand.bench, "_REPEATS", 1)
    monkeypatch.setattr(strand.bench, "_SHARE", 0.02)
    assert main(["bench"]) == 0
    shown = capsys.readouterr().out
    for work in ("records one by one", "rows in and out", "numpy", "payloads", "wake", "seek"):
        assert work in shown

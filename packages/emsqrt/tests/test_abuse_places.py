"""Targets, spill folders, streams, limits and caps that cannot work: a clear error, nothing left."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from abuse_runs import carry_out, command, remaining_files

from emsqrt import Engine, EngineConfig, scan
from emsqrt.memory.auto import machine_bytes, parse_cap
from emsqrt.spill import SpillError, SpillLost
from emsqrt.spill.area import RunFolder
from sennit_core.errors import (
    CapacityError,
    Denied,
    NotFound,
    SennitError,
    StorageFull,
    Unsupported,
    UsageError,
)
from sennit_core.ids import new_id

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("k,v\n2,b\n1,a\n")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 8 MB, which spill under a small cap."""
    path = tmp_path_factory.mktemp("large") / "in.csv"
    rows = (f"{n * 2_654_435_761 % 150_000},{'text of a row ' * 3}\n" for n in range(150_000))
    path.write_text("k,v\n" + "".join(rows))
    return path


def refuse(small: Path, target: Path, kind: type[SennitError], reason: str) -> None:
    for tier in ("text", "arrow"):
        with pytest.raises(kind, match=reason):
            carry_out(scan(small).sort("k"), tier, target)
    assert remaining_files(small.parent) == []


def test_a_folder_is_no_target(small: Path) -> None:
    target = small.with_name("folder.csv")
    target.mkdir()
    refuse(small, target, UsageError, "folder")
    link = small.with_name("link.csv")
    link.symlink_to(target)
    refuse(small, link, UsageError, "folder")


def test_devices_and_pipes_are_not_replaced(small: Path) -> None:
    pipe, device = small.with_name("pipe.csv"), small.with_name("device.csv")
    os.mkfifo(pipe)
    device.symlink_to("/dev/null")
    for target in (pipe, device):
        refuse(small, target, UsageError, "which no file may replace")
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_path_through_a_file_is_no_target(small: Path) -> None:
    refuse(small, small / "out.csv", UsageError, "no folder")


def test_a_target_where_nothing_can_be_made_is_refused(small: Path) -> None:
    with pytest.raises((NotFound, Denied)):
        scan(small).sink("/proc/out.csv").run(in_process=True)


def test_names_may_be_as_long_as_the_file_system_has_them(small: Path) -> None:
    longest = small.with_name(f"{'x' * 251}.csv")
    assert carry_out(scan(small).sort("k"), "text", longest) == b"k,v\n1,a\n2,b\n"
    refuse(small, small.with_name(f"{'x' * 300}.csv"), UsageError, "too long")


def test_missing_folders_of_a_target_are_made(small: Path) -> None:
    target = small.parent / "not" / "there" / "out.csv"
    assert carry_out(scan(small).sort("k"), "arrow", target) == b"k,v\n1,a\n2,b\n"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a file", "below a file", "/proc", "a dangling link"])
def test_a_file_is_refused_as_the_spill_folder(small: Path, place: str) -> None:
    link = small.with_name("link")
    link.symlink_to("nowhere")
    where = {"a file": small, "below a file": small / "x", "a dangling link": link}
    folder = where.get(place, Path(place))
    with pytest.raises(SpillLost, match=str(folder)) as caught:
        Engine(EngineConfig(spill_dir=folder)).run(scan(small).sort("k").sink("o.csv").plan)
    assert caught.value.hint


def test_memory_is_no_place_to_spill_however_it_is_called(large: Path, tmp_path: Path) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm here")
    link = tmp_path / "link"
    link.symlink_to("/dev/shm")
    inner = tmp_path / "out.csv"
    plan = scan(large).sort("k").sink(inner).plan
    with pytest.raises(Unsupported, match="which is memory"):
        Engine(EngineConfig(spill_dir=link / f"emsqrt-{os.getpid()}")).run(plan, mem_cap="22MiB")
    assert not inner.exists()
    shutil.rmtree(Path("/dev/shm") / f"emsqrt-{os.getpid()}", ignore_errors=True)


def test_links_in_a_spill_folder_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    root = tmp_path / "spill"
    root.mkdir()
    (root / ".sweep").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        RunFolder(root)
    assert not victim.exists()


def test_files_that_cannot_be_swept_are_left(tmp_path: Path) -> None:
    foreign = tmp_path / new_id()
    (foreign / "lock").mkdir(parents=True)
    RunFolder(tmp_path).close()
    assert foreign.is_dir()


@pytest.mark.parametrize("cap", [-1, float("nan"), 1.5, True, "", "12 parsecs", "NaN", "-1", b"1"])
def test_caps_that_make_no_sense_are_refused(cap: str) -> None:
    with pytest.raises(UsageError):
        parse_cap(cap)
    with pytest.raises(UsageError):
        EngineConfig(mem_cap_bytes=cap)  # type: ignore[arg-type]


@pytest.mark.parametrize("cap", [10**18, "1000000 PiB"])
def test_a_cap_beyond_the_machine_is_the_machine(small: Path, cap: str | int) -> None:
    assert (
        parse_cap(cap)
        == machine_bytes()
        == EngineConfig(mem_cap_bytes=parse_cap(cap)).mem_cap_bytes
    )


def test_a_deadline_is_a_number(small: Path) -> None:
    plan = scan(small).sink(small.with_name("o.csv")).plan
    for seconds in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="deadline"):
            Engine().run(plan, deadline_seconds=seconds)


def test_settings_of_the_environment_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMSQRT_MAX_PARALLEL_TASKS", "many")
    with pytest.raises(UsageError, match="EMSQRT_MAX_PARALLEL_TASKS"):
        EngineConfig.from_environment()


SORT = ("sort", "in.csv", "-", "--by", "k", "--mem-cap", "32MiB", "--spill-dir", "spill", "--quiet")


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("streams", "status", "message"),
    [
        (">/dev/full", 7, "no space left at standard output"),
        (">&-", 2, "standard output: it is closed"),
        (">out.csv 2>&-", 0, ""),
        (">out.csv 2>/dev/full", 0, ""),
        ("<&- >out.csv", 0, ""),
    ],
)
def test_streams_that_are_closed_or_full(
    small: Path, streams: str, status: int, message: str
) -> None:
    ended = command(*SORT, folder=small.parent, wrapped=f'"$@" {streams}')
    assert ended.status == status, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err
    if status == 0:
        assert small.with_name("out.csv").read_bytes() == b"k,v\n1,a\n2,b\n"
    assert remaining_files(small.parent) == []


@pytest.mark.slow
def test_standard_input_by_its_other_names(small: Path) -> None:
    words = ("sort", "/dev/stdin", "/dev/stdout", "--by", "k", "--mem-cap", "48MiB", "--quiet")
    ended = command(*words, folder=small.parent, wrapped='cat in.csv | "$@"')
    assert (ended.status, ended.out) == (0, b"k,v\n1,a\n2,b\n"), ended.err
    ended = command(*words, folder=small.parent, wrapped='"$@" <&-')
    assert ended.status == 2
    assert "standard input: it is closed" in ended.err


def test_a_removed_working_folder_is_reported(small: Path) -> None:
    inner = small.parent / "inner"
    inner.mkdir()
    words = ("sort", small, small.with_name("o.csv"), "--by", "k", "--mem-cap", "32MiB")
    ended = command(*words, folder=inner, before="import os; os.rmdir(os.getcwd())")
    assert ended.status == 5
    assert "working directory of this process" in ended.err


def limited(kind: int, limit: int) -> str:
    return f"import resource; resource.setrlimit({kind}, ({limit}, {limit}))"


LIMITS = {
    "nofile 32": (resource.RLIMIT_NOFILE, 32, {0}),
    "nofile 12": (resource.RLIMIT_NOFILE, 12, {0, 1, 7}),
    "nofile 8": (resource.RLIMIT_NOFILE, 8, {1, 7}),
    "file size 1 MiB": (resource.RLIMIT_FSIZE, MIB, {7}),
    "file size 0": (resource.RLIMIT_FSIZE, 0, {7}),
    "address space 1 GiB": (resource.RLIMIT_AS, 1 << 30, {0}),
    "address space 100 MiB": (resource.RLIMIT_AS, 100 * MIB, {0, 1, 3}),
    "data 20 MiB": (resource.RLIMIT_DATA, 20 * MIB, {0, 1, 3, 4}),
}


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_the_process_are_reported(
    large: Path, tmp_path: Path, name: str, target: str
) -> None:
    kind, limit, statuses = LIMITS[name]
    cap = "24MiB" if target == "out.csv" else "64MiB"
    words = ("sort", large, target, "--by", "k", "--mem-cap", cap, "--spill-dir", "spill")
    ended = command(*words, folder=tmp_path, before=limited(kind, limit))
    assert ended.status in statuses, ended.err
    assert "Traceback" not in ended.err
    assert (tmp_path / target).exists() == (ended.status == 0)
    if ended.status == 0:
        assert scan(tmp_path / target).collect()["k"].to_pylist() == list(range(150_000))
    if name != "nofile 8":  # with so few not even a folder can be looked into; the next run does
        assert remaining_files(tmp_path) == []


ODD = {
    "nothing": {},
    "no home": {"PATH": os.environ.get("PATH", "")},
    "odd zone and language": {"TZ": "Mars/Olympus", "LANG": "xx_YY.KOI8", "LC_ALL": "tlh"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "no place for scratch files": {"TMPDIR": "/nonexistent"},
    "without asserts": {"PYTHONOPTIMIZE": "2"},
}


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("name", ODD)
def test_odd_environments_change_nothing(
    large: Path, tmp_path: Path, name: str, target: str
) -> None:
    cap = "24MiB" if target == "out.csv" else "64MiB"
    words = ("sort", large, target, "--by", "k", "--mem-cap", cap, "--spill-dir", "spill")
    ended = command(*words, folder=tmp_path, environment=ODD[name])
    assert (ended.status, "Traceback" in ended.err) == (0, False), ended.err
    assert scan(tmp_path / target).collect()["k"].to_pylist() == list(range(150_000))
    assert remaining_files(tmp_path) == []


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """Mount a disk of so many MiB; without the right to, the test is skipped."""
    image, place = folder / "image", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    for words in (
        ["mkfs.ext4", "-q", "-F", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
    ):
        try:
            subprocess.run(words, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.nightly
@pytest.mark.parametrize("full", ["output", "spill"])
@pytest.mark.parametrize(("suffix", "cap"), [("csv", "22MiB"), ("parquet", "64MiB")])
def test_a_full_disk_ends_a_run_and_room_on_it_the_next(
    large: Path, tmp_path: Path, full: str, suffix: str, cap: str
) -> None:
    with small_disk(tmp_path, 24) as disk, (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, 19 * MIB)
        target = (disk if full == "output" else tmp_path) / f"out.{suffix}"
        spill = disk / "spill" if full == "spill" else tmp_path / "spill"
        options = {"compression": "none"} if suffix == "parquet" else {}
        plan = scan(large).sort("v", "k").sink(target, **options).plan
        with Engine(EngineConfig(spill_dir=spill)) as engine:
            with pytest.raises(SpillError if full == "spill" else StorageFull) as caught:
                engine.run(plan, mem_cap=cap)
            assert str(spill if full == "spill" else target) in str(caught.value)
            assert not target.exists()
            assert not [name for name in remaining_files(tmp_path) if not name.endswith("lock")]
            filler.truncate(0)
            assert engine.run(plan, mem_cap=cap).rows_out == 150_000
        assert remaining_files(tmp_path) == remaining_files(disk) == []


def test_memory_that_the_system_refuses_is_reported(small: Path) -> None:
    script = (
        "import resource\n"
        "from emsqrt.memory import Arena, MemoryBudget\n"
        "from sennit_core.errors import CapacityError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: Arena(8 << 30, MemoryBudget(16 << 30))\n"
        "except CapacityError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert b"a working set of 8.0 GiB" in done.stdout
    assert issubclass(StorageFull, CapacityError)

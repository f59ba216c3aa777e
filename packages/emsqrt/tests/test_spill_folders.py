"""Where a run spills, and what is left of runs that were killed or terminated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emsqrt import EngineConfig, scan
from emsqrt.io.files import open_whole
from emsqrt.io.staging import locked, staged_name
from sennit_core.errors import UsageError

SORT = """
import sys
from emsqrt import Engine, EngineConfig, scan
from pathlib import Path
source, target, spill = sys.argv[1:]
engine = Engine(EngineConfig(spill_dir=Path(spill)))
engine.run(scan(source).sort("k").sink(target).plan, mem_cap="64MiB")
"""
WRITE = """
import os, signal, sys
from pathlib import Path
from emsqrt.io.files import open_whole
with open_whole(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("spelled", [str, Path])
@pytest.mark.parametrize("uri", ["s3://bucket/runs", "gs://bucket", "az://container/a/b"])
def test_a_store_named_as_spill_dir_is_spilled_to(uri: str, spelled: Callable[[str], Any]) -> None:
    config = EngineConfig(spill_dir=spelled(uri))
    assert (config.spill_dir, config.spilling["uri"]) == (None, uri)


def test_the_environment_names_a_store_or_a_folder() -> None:
    store = EngineConfig.from_environment({"EMSQRT_SPILL_DIR": "s3://bucket/runs"})
    folder = EngineConfig.from_environment(
        {"EMSQRT_SPILL_DIR": "file:///var/spill"}, {"spill_uri": "s3://bucket"}
    )
    assert store.spill_uri == "s3://bucket/runs"
    assert (folder.spill_dir, folder.spill_uri) == (Path("/var/spill"), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spill_dir": "http://host/x"}, "http://host/x is no place to spill"),
        ({"spill_dir": "s3://one", "spill_uri": "s3://other"}, "name one of them"),
    ],
)
def test_places_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        EngineConfig(**settings)
    assert message in f"{caught.value} {caught.value.hint}"


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_the_next_run_removes_partial_outputs_of_killed_ones(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", WRITE, str(target)], check=False)
    assert len(temporaries(tmp_path)) == 1
    (tmp_path / "in.csv").write_text("k\n2\n1\n")
    scan(tmp_path / "in.csv").sort("k").sink(target).run(mem_cap="32MiB")
    assert temporaries(tmp_path) == []
    assert target.read_text() == "k\n1\n2\n"


def test_files_that_another_run_still_writes_are_left(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    other = tmp_path / ".out.csv.backup.tmp"
    other.touch()
    with open_whole(target) as first:
        first.write(b"first")
        with open_whole(target) as second:
            second.write(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert temporaries(tmp_path) == [other.name]


@pytest.mark.slow
def test_the_folder_of_a_killed_partitioned_run_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "parts"
    abandoned, written = staged_name(target), staged_name(target)
    for folder in (abandoned, written):
        folder.mkdir()
        (folder / "part-0.parquet").touch()
    (tmp_path / "in.csv").write_text("k,v\n2,1\n1,1\n")
    with locked(written):
        rows = scan(tmp_path / "in.csv").sink(target, "parquet", partition_by=["k"])
        rows.run(mem_cap="96MiB")
    assert temporaries(tmp_path) == [written.name]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows for a run to be met at work."""
    path = tmp_path_factory.mktemp("data") / "in.csv"
    with path.open("w") as file:
        file.write("k,v\n")
        for number in range(1_500_000):
            file.write(f"{number * 2_654_435_761 % 1_500_000},{'text of a row ' * 3}\n")
    return path


def ask_to_end(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Send SIGTERM once the run has begun its output; return its status."""
    while not temporaries(folder):
        assert process.poll() is None, "it ended before it was terminated"
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def left(folder: Path) -> list[str]:
    """What runs left: their folders have names without a dot."""
    spilled = [path.name for path in (folder / "spill").glob("[!.]*")]
    return temporaries(folder) + spilled


@pytest.mark.nightly
@pytest.mark.parametrize("extra", [[], ["--limit", "1400000"]])
def test_sigterm_ends_a_verb_without_traces(source: Path, tmp_path: Path, extra: list[str]) -> None:
    words = ["sort", str(source), str(tmp_path / "out.csv"), "--by", "k", "--cap", "32MiB"]
    words += ["--spill-dir", str(tmp_path / "spill"), "--quiet", *extra]
    emsqrt = Path(sys.executable).with_name("emsqrt")
    process = subprocess.Popen([emsqrt, *words], stderr=subprocess.PIPE)
    status = ask_to_end(process, tmp_path)
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert status == 128 + signal.SIGTERM
    assert left(tmp_path) == []


@pytest.mark.nightly
def test_sigterm_keeps_a_run_that_can_be_resumed(source: Path, tmp_path: Path) -> None:
    words = ["sort", str(source), str(tmp_path / "out.csv"), "--by", "k", "--cap", "20MiB"]
    words += ["--spill-dir", str(tmp_path / "spill"), "--quiet", "--resume", "night"]
    emsqrt = Path(sys.executable).with_name("emsqrt")
    journal = tmp_path / "spill" / "checkpoints" / "night" / "journal"
    process = subprocess.Popen([emsqrt, *words])
    while not journal.exists():
        assert process.poll() is None, "it ended before it was terminated"
        time.sleep(0.002)
    assert ask_to_end(process, tmp_path) == -signal.SIGTERM
    assert journal.exists()
    subprocess.run([emsqrt, *words], check=True)
    assert temporaries(tmp_path) == []
    assert (tmp_path / "out.csv").read_bytes().count(b"\n") == 1_500_001
    assert not journal.exists()


@pytest.mark.slow
def test_the_next_run_of_a_name_continues_after_sigterm(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    lines = [f"{number:06},{'text of a row ' * 3}\n" for number in range(150_000)]
    source.write_text("k,v\n" + "".join(reversed(lines)))
    emsqrt = Path(sys.executable).with_name("emsqrt")
    command: list[str | Path] = [emsqrt, "sort", source, "-", "--by", "k", "--cap", "16MiB"]
    command += ["--spill-dir", tmp_path / "spill", "--resume", "night", "--quiet"]
    journal = tmp_path / "spill" / "checkpoints" / "night" / "journal"
    # Nothing reads the output yet, so the run cannot end before it is cancelled.
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while not journal.exists():
            assert process.poll() is None, "it ended without a checkpoint"
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    assert journal.exists()
    resumed = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert resumed.stdout == ("k,v\n" + "".join(lines)).encode()
    assert not journal.exists()


@pytest.mark.sample(1)
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_the_child_of_a_program_that_ends_cleans_up(
    source: Path, tmp_path: Path, target: str
) -> None:
    words = [str(source), str(tmp_path / target), str(tmp_path / "spill")]
    process = subprocess.Popen([sys.executable, "-c", SORT, *words], env={**os.environ})
    assert ask_to_end(process, tmp_path) == -signal.SIGTERM
    end = time.monotonic() + 60
    while temporaries(tmp_path):
        assert time.monotonic() < end, left(tmp_path)
        time.sleep(0.01)
    assert not (tmp_path / target).exists()

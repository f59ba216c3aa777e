"""Where spill goes, what is refused, and what is left when a process dies or the disk is full."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emsqrt.spill import SpillFull, SpillManager, default_spill_dir, placement
from emsqrt.spill.area import RunFolder, sweep
from emsqrt.spill.local import STEP_BYTES
from sennit_core.errors import Unsupported
from sennit_core.ids import new_id

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /tmp rw - tmpfs tmpfs rw
23 21 0:21 / /mnt/with\\040blank rw - xfs /dev/sdb rw
24 22 8:2 / /tmp rw - ext4 /dev/sdc rw
25 21 0:22 / /dev/shm rw shared:4 - tmpfs shm rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.fixture
def disk() -> Path:
    return default_spill_dir() / "tests"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory."""
    shared = Path("/dev/shm")
    if not placement.is_in_memory(shared) or not os.access(shared, os.W_OK):
        pytest.skip("there is no /dev/shm in memory here")
    folder = shared / f"emsqrt-tests-{os.getpid()}"
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/x", "ext4"),
        ("/tmp/x", "ext4"),  # the last mount at a place is on top
        ("/mnt/with blank/x", "xfs"),
        ("/dev/shm", "tmpfs"),
        ("/dev/shmall", "ext4"),
    ],
)
def test_the_file_system_of_a_path(mounts: Path, path: str, kind: str) -> None:
    assert placement.file_system(Path(path), mounts) == kind


def test_no_list_of_mounts_is_no_knowledge(tmp_path: Path) -> None:
    assert placement.file_system(Path("/"), tmp_path / "none") == ""


def test_memory_is_refused_for_spill(memory: Path) -> None:
    with pytest.raises(Unsupported, match="which is memory"):
        SpillManager(memory)
    assert not memory.exists()


def test_forced_memory_is_counted_to_the_last_byte(memory: Path) -> None:
    changes: list[int] = []
    with SpillManager(
        memory, force_shared_memory=True, on_shared_bytes=changes.append, codec="none"
    ) as spill:
        with spill.create("a") as writer:
            writer.append(bytes(1000), 1)
            segment = writer.finish()
        with spill.create("b") as writer:
            writer.append(bytes(500), 1)
        assert sum(changes) == segment.size_bytes
    assert sum(changes) == 0


def test_a_disk_is_not_counted(disk: Path) -> None:
    changes: list[int] = []
    with SpillManager(disk, on_shared_bytes=changes.append) as spill, spill.create("a") as writer:
        writer.append(b"abc", 1)
        writer.finish()
    assert changes == []


def test_the_default_is_tmp_then_var_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory: set[Path] = set()
    monkeypatch.setattr(placement, "is_in_memory", lambda path: path in in_memory)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert default_spill_dir() == tmp_path / "tmp" / "emsqrt-spill"
    in_memory.add(tmp_path / "tmp" / "emsqrt-spill")
    assert default_spill_dir() == Path(f"/var/tmp/emsqrt-spill-{os.getuid()}")


@pytest.mark.parametrize("made", ["by all", "a link"])
def test_a_folder_that_others_can_change_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "emsqrt-spill"
    if made == "by all":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.symlink_to("/var/tmp")
    assert default_spill_dir() != folder


_DIES = """
import sys
from emsqrt.spill import SpillManager
spill = SpillManager(sys.argv[1])
writer = spill.create("a")
for number in range(10_000):
    writer.append(bytes(1 << 20), 1)
    if number == 4:
        print(spill.store.folder, flush=True)
"""


@pytest.mark.crash
def test_a_killed_runs_files_are_swept_and_a_living_ones_are_not(disk: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _DIES, disk], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        living = RunFolder(disk)
        assert folder.is_dir(), "it lives"
        os.kill(child.pid, signal.SIGKILL)
    assert any(folder.glob("a-*"))
    assert sweep(disk) == 1
    assert not folder.exists()
    assert living.folder.is_dir()
    living.close()


def test_only_folders_of_runs_are_swept() -> None:
    root = default_spill_dir() / f"sweep-{os.getpid()}"
    (root / "alice" / new_id()).mkdir(parents=True)
    (root / "precious").write_text("file")
    (root / new_id()).mkdir()
    assert sweep(root) == 1
    assert len(list((root / "alice").iterdir())) == 1
    assert (root / "precious").exists()
    subprocess.run(["rm", "-rf", root], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, which only root may mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(spill: SpillManager) -> None:
    with spill.create("a") as writer:
        for _ in range(100):
            writer.append(os.urandom(100_000), 1)


def test_a_full_disk_is_an_error_of_its_own_and_is_free_again(small_disk: Path) -> None:
    with SpillManager(small_disk / "spill", force_shared_memory=True) as spill:
        with pytest.raises(SpillFull, match="no space left") as caught:
            fill(spill)
        assert caught.value.needed_bytes
        assert spill.stats.live_bytes == 0
        with spill.create("b") as writer:
            writer.append(bytes(3_000_000), 1)
            assert writer.finish().rows == 1


_LIMITED = """
import os, resource, sys
from emsqrt.spill import SpillFull, SpillManager
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with SpillManager(sys.argv[1], codec="none") as spill, spill.create("a") as writer:
    try:
        for _ in range(100):
            writer.append(bytes(100_000), 1)
    except SpillFull as error:
        print(error.code)
"""


def test_a_limit_on_file_sizes_is_a_full_disk(disk: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "spill-full\n"


def test_spilled_bytes_do_not_stay_in_the_page_cache(disk: Path) -> None:
    size = 3 * STEP_BYTES
    with SpillManager(disk, codec="none") as spill:
        with spill.create("a") as writer:
            for _ in range(size >> 20):
                writer.append(os.urandom(1 << 20), 1)
            segment = writer.finish()
        path = spill.store.folder / segment.name  # type: ignore[attr-defined]
        assert cached_bytes(path) < size // 4
        buffer = bytearray(segment.block_raw_max)
        with spill.open(segment) as reader:
            while reader.read_into(buffer) != (0, 0):
                pass
        assert cached_bytes(path) < size // 4


def cached_bytes(path: Path) -> int:
    """Return how much of a file the page cache has, as mincore(2) says."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    with (
        path.open("rb") as file,
        mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        ) as view,
    ):
        pages = -(-len(view) // mmap.PAGESIZE)
        there = (ctypes.c_ubyte * pages)()
        anchor = ctypes.c_char.from_buffer(view)
        failed = library.mincore(
            ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(len(view)), there
        )
        del anchor
        assert not failed
        return sum(page & 1 for page in there) * mmap.PAGESIZE

"""Shared memory that is full: an error when the ring is made, never a SIGBUS in a write."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import strand
from sennit_core.errors import StorageFull

# Runs alone in a mount namespace: an 8 MiB /dev/shm of its own.
SMALL = """
import os, sys, strand
from pathlib import Path
from sennit_core.errors import StorageFull
folder = Path("/dev/shm")
kept = strand.open_ring(strand.BLOCKS, 1024, "4MiB", name="kept")
before = sorted(os.listdir("/proc/self/fd"))
try:
    strand.open_ring(strand.BLOCKS, 1024, "8MiB", name="refused")
except StorageFull as full:
    print("full:", Path(full.path).name)
assert sorted(os.listdir("/proc/self/fd")) == before
(folder / "filler").write_bytes(bytes(os.statvfs(folder).f_bavail * 4096))
assert os.statvfs(folder).f_bavail == 0
writer, view = kept.producer(), kept.consumer()
for seq in range(9):
    writer.write_bytes(bytes([seq]) * (2 << 20))
    assert view._read_block(seq) and view.acknowledge_read(seq + 1) is None
kept.close()
print("left:", *sorted(path.name for path in folder.iterdir()))
"""


def test_a_full_dev_shm_refuses_new_rings_and_harms_none() -> None:
    unshare, shell = shutil.which("unshare"), shutil.which("sh")
    mount = 'mount -t tmpfs -o size=8m none /dev/shm && exec "$@"'
    if unshare is None or shell is None:
        pytest.skip("needs unshare")
    inside = [unshare, "--user", "--map-root-user", "--mount", shell, "-c", mount, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount here")
    done = subprocess.run(
        [*inside, sys.executable, "-c", SMALL],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "full: strand-refused\nleft: filler\n"


@pytest.mark.parametrize("name", [None, "test-huge"])
def test_more_than_the_machine_has_is_refused_at_once(name: str | None) -> None:
    wide = strand.build_schema([(f"f{at}", "f64") for at in range(200)])
    with pytest.raises(StorageFull) as full:
        strand.open_ring(wide, 1 << 31, 1 << 31, name=name)
    assert full.value.needed_bytes is not None
    assert full.value.needed_bytes > (1 << 31) * 1600
    assert not Path("/dev/shm/strand-test-huge").exists()


LIMITED = """
import resource, strand
from sennit_core.errors import StorageFull
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
strand.open_ring(strand.BLOCKS, 8, "256KiB").close()
try:
    strand.open_ring(strand.BLOCKS, 8, "2MiB")
except StorageFull:
    print("refused")
"""


def test_a_limit_on_file_sizes_is_an_error_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "refused\n")


# Truncation cannot be forbidden for a file with a name: its owner may do it, and then a touch beyond
# the new end is a SIGBUS. That is why rings without a name, which are sealed, are the default.
TRUNCATED = """
import os, resource, strand
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ring = strand.open_ring(strand.BLOCKS, 8, "64KiB", name="test-truncated")
writer = ring.producer()
os.truncate("/dev/shm/strand-test-truncated", 0)
os.unlink("/dev/shm/strand-test-truncated")
print("cut", flush=True)
writer.write_bytes(b"x")
"""


def test_truncating_a_named_rings_file_kills_its_users() -> None:
    done = subprocess.run([sys.executable, "-c", TRUNCATED], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (-7, b"cut\n")  # SIGBUS

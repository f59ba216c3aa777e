"""Real processes killed at named points: what was acknowledged is there, the rest whole or absent."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from elkyn._failpoints import POINTS
from elkyn.testing import replayed

pytestmark = pytest.mark.crash

CHILD = """
import os, signal, sys
from elkyn import ElkynStore, _failpoints

folder, point, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0

def stop(reached):
    global seen
    seen += reached == point
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)

def say(line):
    os.write(1, f"{line}\\n".encode())

store = ElkynStore(folder, map_size=256 * 1024, durability=sys.argv[4])
_failpoints.hook = stop
for number in range(100_000):
    store.set(f"/live/n{number % 5}", number, ephemeral=True)
    store.set("/last", {"number": number, "text": "x" * 3000})
    say(f"last {number}")
    store.update("/", {f"a/n{number}": "x" * 500, f"b/n{number}": "x" * 2500})
    say(f"pair {number}")
    store.set("/live", {"all": number})
    say(f"live {number}")
    say(f"position {store.position}")
    if number % 4 == 3:
        store.admin.compact()
        store.admin.backup(f"{folder}-backup-{number}")
"""


def run_until_killed(
    folder: Path, point: str, count: int, durability: str = "always"
) -> dict[str, int]:
    command = [sys.executable, "-c", CHILD, str(folder), point, str(count), durability]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged: dict[str, int] = {}
    for line in done.stdout.splitlines():
        name, number = line.split()
        acknowledged[name] = int(number)
    return acknowledged


def check(folder: Path, acknowledged: dict[str, int]) -> dict[str, Any]:
    with ElkynStore(folder) as store:
        assert store.admin.verify() == []
        tree: dict[str, Any] = store.get("/")
        with store.admin.snapshot() as view:
            durable, position = view.tree.get(()), view.position
        assert position == store.position >= acknowledged["position"]
        assert replayed(store.oplog.read(0)) == durable, "the log and the data disagree"
        store.set("/after", 1)
        assert store.position == position + 1
    assert tree["last"]["number"] in (acknowledged["last"], acknowledged["last"] + 1)
    assert tree["last"]["text"] == "x" * 3000
    a, b = tree["a"], tree["b"]
    assert list(a) == list(b), "an update was torn"
    assert len(a) in (acknowledged["pair"] + 1, acknowledged["pair"] + 2)
    assert all(value == "x" * 500 for value in a.values())
    assert all(value == "x" * 2500 for value in b.values())
    return tree


@pytest.mark.sample(3)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("later", [False, True])
def test_a_process_killed_at_a_named_point_loses_nothing_acknowledged(
    tmp_path: Path, point: str, later: bool
) -> None:
    count = {"grown": 2, "rebuilt": 1, "compacted": 1, "copied": 1}.get(point, 4) + later
    acknowledged = run_until_killed(tmp_path / "t", point, count)
    check(tmp_path / "t", acknowledged)
    for folder in tmp_path.glob("t-backup-*"):
        with ElkynStore(folder) as copy:
            assert copy.admin.verify() == []


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_the_end_of_the_process_alone_loses_nothing_that_was_not_synced(
    tmp_path: Path, durability: str
) -> None:
    acknowledged = run_until_killed(tmp_path / "t", "committed", 9, durability)
    check(tmp_path / "t", acknowledged)


def test_killed_between_environments_the_durable_tree_is_the_old_one(tmp_path: Path) -> None:
    acknowledged = run_until_killed(tmp_path / "t", "between-environments", 7)
    tree = check(tmp_path / "t", acknowledged)
    assert tree["live"] == {"all": acknowledged["live"]}


@pytest.mark.parametrize("ephemeral", [False, True])
def test_the_disk_is_synced_before_a_write_is_acknowledged_unless_ephemeral(
    tmp_path: Path, ephemeral: bool
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    code = (
        "import os, sys; from elkyn import ElkynStore; store = ElkynStore(sys.argv[1])\n"
        f"store.set('/a', 0, ephemeral={ephemeral}); os.write(1, b'ack')\n"
        f"store.set('/a', 1, ephemeral={ephemeral}); os.write(1, b'ack')"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-o", str(trace), "-e", "trace=write,fdatasync,fsync,msync"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code, str(tmp_path / "t")],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        pytest.skip(f"strace cannot trace here: {done.stderr[-200:]!r}")
    between = trace.read_text().split('write(1, "ack"')[1]
    assert ("sync(" in between) is not ephemeral


def test_the_store_survives_repeated_kills(tmp_path: Path) -> None:
    for count in (3, 4, 6):
        folder = tmp_path / "t"
        acknowledged = run_until_killed(folder, "committed", count * 3)
        tree = json.loads(json.dumps(check_last(folder)))
        assert tree["number"] in (acknowledged["last"], acknowledged["last"] + 1)


def check_last(folder: Path) -> Any:
    with ElkynStore(folder) as store:
        return store.get("/last")

"""Appends that wait at a real node while the node that writes the dataset is away, and crashes of the sender."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from networks import all_become_alive, eventually, invite, start
from peer_proxy import free_port

from nodes import RunningNode, platform
from sennit_core.errors import NotFound, SennitError

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
]  # several processes, killed and started
CRASHING = """
import runpy, sys
from lake import _failpoints
_failpoints.crash_at = sys.argv[1]
sys.argv = ["platform", *sys.argv[5:]]
runpy.run_module("sennit.cli", run_name="__main__")
"""


def ids(node: RunningNode) -> list[int]:
    with node.session() as session:
        return [row[0] for row in session.sql("SELECT id FROM trips ORDER BY id").rows]


def queue(node: RunningNode) -> list[dict[str, Any]]:
    with node.session() as session:
        return session.network.queue()


def accepts(node: RunningNode) -> bool:
    try:
        with node.session() as session:
            return session.network.sharing("trips")["readOnly"] is False
    except NotFound:
        return False


class Places:
    """Where two nodes are, also after a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {"oslo": free_port(), "rome": free_port()}

    def start(
        self, name: str, *arguments: str, crash_at: str = ""
    ) -> AbstractContextManager[RunningNode]:
        """Start a node, which ends as by `kill -9` when it reaches a point."""
        config = f"peer_port = {self._ports[name]}\n"
        within = (sys.executable, "-c", CRASHING, crash_at) if crash_at else ()
        return start(self._folder, name, *arguments, config=config, within=within)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Oslo shares a dataset with Rome; both nodes are down."""
    found = Places(tmp_path)
    with found.start("oslo") as oslo:
        (tmp_path / "trips.csv").write_text("id,name\n1,a\n")
        platform("put", str(tmp_path / "trips.csv"), "--wait", "--copy", data=oslo.data)
        with found.start("rome", "--join", invite(oslo)) as rome:
            all_become_alive(oslo, rome)
            platform("share", "trips", "--with", "rome", data=oslo.data)
            eventually(lambda: accepts(rome))
    return found


def test_users_queue_appends_list_them_and_take_them_back(tmp_path: Path, places: Places) -> None:
    more = tmp_path / "more.csv"
    more.write_text("id,name\n2,b\n3,\n")
    with places.start("rome") as rome:
        refused = platform("sql", "INSERT INTO trips VALUES (9, 'x')", data=rome.data, check=False)
        assert refused.returncode == 3
        assert "--queue" in refused.stderr
        put = ("put", str(more), "--name", "trips", "--mode", "append", "--queue")
        assert "platform net queue" in platform(*put, data=rome.data).stderr
        linked = json.loads(platform(*put, "--copy", "--json", data=rome.data).stdout)
        done = platform(
            "sql", "INSERT INTO trips VALUES (4, 'd')", "--queue", "--json", data=rome.data
        )
        [[inserted]] = json.loads(done.stdout)["rows"]
        listed = json.loads(platform("net", "queue", "--json", data=rome.data).stdout)
        assert [each["state"] for each in listed] == ["waiting"] * 3
        assert [listed[1]["id"], listed[2]["id"]] == [linked[0]["queued"], inserted]
        assert "waiting" in platform("net", "queue", data=rome.data).stdout
        removed = platform("net", "queue", "--remove", linked[0]["queued"], data=rome.data)
        assert "was waiting" in removed.stdout
        missing = platform("net", "queue", "--retry", "nothing", data=rome.data, check=False)
        assert missing.returncode == 4
        answer = httpx.post(
            f"{rome.url}/api/query",
            json={"sql": "INSERT INTO trips VALUES (5, 'e')", "queue": True},
            headers=rome.headers,
        )
        assert [[answer.headers["sennit-queued"]]] == answer.json()["rows"]
        check_tokens(rome, inserted)
        rome.kill()
    with places.start("rome") as rome, places.start("oslo") as oslo:
        eventually(lambda: not queue(rome))
        assert ids(oslo) == [1, 2, 3, 4, 5]


def check_tokens(rome: RunningNode, append: str) -> None:
    """A user sees and removes no append of another one."""
    made = httpx.post(
        f"{rome.url}/api/tokens", json={"name": "eve", "role": "writer"}, headers=rome.headers
    ).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    assert httpx.get(f"{rome.url}/api/network/queue", headers=headers).json() == []
    found = httpx.delete(f"{rome.url}/api/network/queue/{append}", headers=headers)
    assert found.status_code == 404


@pytest.mark.parametrize(
    "point", ["append-sending", "append-queued", "append-dropped", "append-pinned"]
)
def test_a_node_killed_at_any_point_delivers_once(
    tmp_path: Path, places: Places, point: str
) -> None:
    """What was acknowledged is committed once; what was not, once or not at all."""
    more = tmp_path / "more.csv"
    more.write_text("id,name\n2,b\n3,\n")
    acknowledged = False
    with places.start("rome", crash_at=point) as rome:
        try:
            with rome.session() as session:
                made = session.put(more, "trips", mode="append", queue=True)
                acknowledged = made.queued is not None
        except SennitError:
            pass
        assert acknowledged == (point in ("append-sending", "append-dropped"))
        if acknowledged:
            with places.start("oslo"):
                assert rome.process.wait(120) == -signal.SIGKILL
        else:
            assert rome.process.wait(60) == -signal.SIGKILL
    with places.start("oslo") as oslo, places.start("rome") as rome:
        # The interrupted upload goes on by itself.
        eventually(lambda: not queue(rome) and ids(oslo) != [1])
        assert ids(oslo) == [1, 2, 3]
    with places.start("oslo") as oslo:
        assert ids(oslo) == [1, 2, 3]

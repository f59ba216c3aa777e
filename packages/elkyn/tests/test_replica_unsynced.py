"""Followers that have never received a full state of their leader: not ready, and not read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from elkyn_server import Served, until

from elkyn import ElkynStore
from elkyn.cli.remote import RemoteTree
from elkyn.errors import NotSynced

Start = Callable[..., Served]


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port in use, at which no server answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def follow(start_server: Start, tmp_path: Path) -> Callable[[str, str, str], Served]:
    def start(url: str, token: str, name: str) -> Served:
        file = tmp_path / "leader.token"
        file.write_text(token)
        return start_server("--follow", url, "--follow-token-file", str(file), data=tmp_path / name)

    return start


def refused(served: Served, path: str) -> bool:
    answer = served.client.get(path)
    assert answer.status_code in (200, 503)
    if answer.status_code == 503:
        assert "not received its leader's state" in answer.json()["error"]
        assert answer.headers["retry-after"] == "1"
    return answer.status_code == 503


@pytest.mark.slow
def test_a_follower_that_never_reached_its_leader_is_not_ready_and_not_read(
    follow: Any, nowhere: str
) -> None:
    served = follow(nowhere, "token", "follower")
    ready = served.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "not-synced"})
    assert served.client.get("/healthz").status_code == 200
    for path in ("/.json", "/a.json?shallow=true", '/a.json?orderBy="$key"', "/a.json?ns=other"):
        assert refused(served, path), path
    with served.stream("/a.json") as named, served.stream("/a/.watch") as unnamed:
        assert [event[:2] for event in named] == [("not-synced", None)]
        assert [event[1]["type"] for event in unnamed] == ["not-synced"]
    with RemoteTree(served.url, served.token) as tree, pytest.raises(NotSynced):
        next(iter(tree.watch("/a")))


@pytest.mark.nightly
def test_a_follower_is_ready_once_it_has_the_leaders_state_and_after_a_restart_without_it(
    start_server: Start, follow: Any, tmp_path: Path
) -> None:
    leader = start_server(data=tmp_path / "leader")
    leader.client.put("/a.json", json=1)
    served = follow(leader.url, leader.token, "follower")
    until(lambda: served.client.get("/readyz").status_code == 200)
    assert served.client.get("/a.json").json() == 1
    leader.client.put("/b.json?ns=later", json=2)
    until(lambda: served.client.get("/.replica/status").json()["namespaces"]["default"]["synced"])
    assert served.client.get("/readyz").status_code == 200
    leader.stop()
    served.stop()
    served = follow(leader.url, leader.token, "follower")
    assert served.client.get("/readyz").status_code == 200
    assert served.client.get("/a.json").json() == 1


@pytest.mark.nightly
def test_an_empty_leader_is_a_state_too(start_server: Start, follow: Any) -> None:
    leader = start_server()
    served = follow(leader.url, leader.token, "follower")
    until(lambda: served.client.get("/readyz").status_code == 200)
    assert served.client.get("/.json").json() is None


@pytest.mark.slow
def test_a_listen_waits_for_the_first_state(follow: Any, nowhere: str) -> None:
    served = follow(nowhere, "token", "follower")
    with served.wire("default") as wire:
        assert wire.ask("auth", cred=served.token)["s"] == "ok"
        wire.send("q", p="/a", h="")
        with pytest.raises(TimeoutError):
            wire.socket.recv(timeout=0.5)


@pytest.mark.slow
def test_a_replica_store_raises_until_its_first_state(
    start_server: Start, nowhere: str, tmp_path: Path
) -> None:
    with ElkynStore(tmp_path / "r", mode="replica", cluster_url=nowhere, token="t") as replica:
        for read in (
            lambda: replica.get("/"),
            lambda: replica.keys("/"),
            lambda: replica.query("/", limit_to_first=1),
            lambda: replica.watch("/"),
            lambda: replica.on("/", "value", print),
        ):
            with pytest.raises(NotSynced, match="not received its leader's state"):
                read()
        assert replica.replica is not None
        assert not replica.replica.status.synced
        assert not replica.replica.wait_for(0, timeout_seconds=0)
    leader = start_server()
    leader.client.put("/a.json", json=1)
    options: Any = {"mode": "replica", "cluster_url": leader.url, "token": leader.token}
    with ElkynStore(tmp_path / "r", **options) as replica:
        assert replica.replica is not None
        assert replica.replica.wait_for(0, timeout_seconds=60)
        assert replica.get("/a") == 1
    leader.stop()
    with ElkynStore(tmp_path / "r", **options) as replica:
        assert replica.get("/a") == 1

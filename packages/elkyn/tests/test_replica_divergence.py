"""Followers whose log has writes that the new leader never had: no client is sent those any more."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_server import Served, until
from websockets.exceptions import ConnectionClosed

from elkyn.cli.remote import RemoteTree
from elkyn.errors import Diverged

Start = Callable[..., Served]
LARGE = 24
PIECE_BYTES = 16 * 1024


class Line:
    """The way to a server: open, cut, or so slow that a snapshot does not come to its end."""

    def __init__(self, url: str) -> None:
        host, _colon, port = url.removeprefix("http://").partition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = True
        self.slow = True
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                if self.cut:
                    near.close()
                    continue
                far = socket.create_connection(self._to)
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                if len(data) == PIECE_BYTES and self.slow:
                    time.sleep(0.5)
                target.sendall(data)
        for end in (source, target):
            end.close()

    def break_off(self) -> None:
        self.cut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.slow = False
        self._listener.close()
        self.break_off()


@pytest.fixture
def line_to() -> Iterator[Callable[[Served], Line]]:
    made: list[Line] = []

    def make(served: Served) -> Line:
        made.append(Line(served.url))
        return made[-1]

    yield make
    for line in made:
        line.close()


def state(served: Served) -> Any:
    return served.client.get("/.replica/status").json()["namespaces"]["default"]


def connected(served: Served) -> bool:
    return bool(state(served)["connected"]) and not state(served)["lag"]


def refused(served: Served) -> bool:
    """Whether reads are refused, in words and headers that say what to do."""
    answer = served.client.get("/lost.json")
    if answer.status_code != 503:
        return False
    assert answer.headers["retry-after"] == "1"
    assert "leader never had" in answer.json()["error"]
    return True


def promote(served: Served) -> None:
    words = [sys.executable, "-m", "elkyn.cli", "promote", "--data", str(served.data)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)


class Cluster:
    """A leader that has lost its place to `new`, and `behind`, which followed the old one."""

    def __init__(self, start: Start, line_to: Callable[[Served], Line], folder: Path) -> None:
        self._start, self._folder = start, folder
        self.old = start(data=folder / "old")
        for number in range(LARGE):
            value = random.Random(number).randbytes(100_000).hex()
            self.old.client.put(f"/kept/{number}.json?print=silent", json=value)
        near = line_to(self.old)
        near.cut = near.slow = False
        self.new = self.follow(self.old, "new", near.url)
        self.behind = self.follow(self.old, "behind", self.old.url)
        until(lambda: connected(self.new) and connected(self.behind))
        near.break_off()
        lost = self.old.client.put("/lost.json", json=1)
        self.lost_at = lost.headers["x-elkyn-position"]
        until(lambda: self.behind.client.get("/lost.json").json() == 1)
        promote(self.new)
        for number in range(3):
            self.new.client.put("/new.json", json=number)
        self.line = line_to(self.new)

    def follow(self, leader: Served, name: str, url: str) -> Served:
        token = str(leader.data / "admin.token")
        return self._start("--follow", url, "--follow-token-file", token, data=self._folder / name)

    def follow_new(self, name: str) -> Served:
        return self.follow(self.new, name, self.line.url)


@pytest.fixture
def cluster(start_server: Start, line_to: Callable[[Served], Line], tmp_path: Path) -> Cluster:
    return Cluster(start_server, line_to, tmp_path)


@pytest.mark.nightly
def test_an_old_leader_is_not_read_before_it_has_the_new_leaders_state(cluster: Cluster) -> None:
    cluster.old.stop()
    old = cluster.follow_new("old")  # the new leader cannot be reached yet
    assert refused(old)
    assert old.client.get("/readyz").status_code == 503
    assert old.client.get("/healthz").status_code == 200
    cluster.line.cut = False
    until(lambda: state(old)["connected"])
    assert refused(old)
    assert state(old)["diverged"] is True
    cluster.line.break_off()
    old.stop()
    old = cluster.follow_new("old")  # it remembers
    assert refused(old)
    cluster.line.cut = cluster.line.slow = False
    until(lambda: connected(old))
    assert old.client.get("/lost.json").json() is None
    assert old.client.get("/.json").json() == cluster.new.client.get("/.json").json()
    assert old.client.get("/readyz").status_code == 200
    old.stop()
    cluster.line.cut = True
    old = cluster.follow_new("old")  # what it has is the leader's: read also without it
    assert old.client.get("/new.json").json() == 2


@pytest.mark.nightly
def test_a_follower_that_never_reached_its_leader_is_read_when_it_is_promoted(
    start_server: Start, line_to: Callable[[Served], Line], tmp_path: Path
) -> None:
    leader = start_server(data=tmp_path / "leader")
    leader.client.put("/led.json", json=1)
    token = str(leader.data / "admin.token")

    def follow(name: str, line: Line) -> Served:
        words = ("--follow", line.url, "--follow-token-file", token)
        return start_server(*words, data=tmp_path / name)

    one, two = line_to(leader), line_to(leader)
    one.cut = False
    replica = follow("replica", one)
    until(lambda: connected(replica))
    one.break_off()
    replica.stop()
    replica = follow("replica", one)
    promote(replica)
    assert replica.client.put("/led.json", json=2).status_code == 200
    replica.stop()
    replica = follow("replica", two)  # it has led
    assert refused(replica)
    promote(replica)
    assert replica.client.get("/led.json").json() == 2
    assert replica.client.get("/readyz").status_code == 200


@pytest.mark.nightly
def test_streams_and_sockets_of_a_diverged_follower(cluster: Cluster) -> None:
    cluster.behind.stop()
    behind = cluster.follow_new("behind")
    with (
        behind.stream("/lost.json") as named,
        behind.stream("/lost/.watch") as unnamed,
        behind.wire("default") as wire,
    ):
        assert wire.ask("auth", cred=behind.token)["s"] == "ok"
        assert wire.ask("q", p="/lost", h="")["s"] == "ok"
        assert (next(named)[1]["data"], next(unnamed)[1]["data"]) == (1, 1)
        cluster.line.cut = False
        assert [event[:2] for event in named] == [("diverged", None)]
        assert [event[1]["type"] for event in unnamed] == ["diverged"]
        with pytest.raises(ConnectionClosed, match="1013"):
            wire.read()
    assert refused(behind)
    with behind.stream("/lost.json") as named:
        assert [event[:2] for event in named] == [("diverged", None)]
    with RemoteTree(behind.url, behind.token) as tree, pytest.raises(Diverged):
        next(iter(tree.watch("/lost")))
    with behind.wire("default") as wire:
        assert wire.ask("auth", cred=behind.token)["s"] == "ok"
        listening, reading = wire.send("q", p="/lost", h=""), wire.send("g", p="/new")
        with pytest.raises(TimeoutError):
            wire.socket.recv(timeout=1)
        cluster.line.slow = False
        assert wire.answer(listening)["s"] == "ok"
        assert wire.drain() == [("d", {"p": "lost", "d": None})]
        assert wire.answer(reading) == {"s": "ok", "d": 2}
    until(lambda: connected(behind))
    assert behind.client.get("/lost.json").json() is None


@pytest.mark.nightly
def test_a_stream_of_the_old_leader_does_not_resume_in_another_history(cluster: Cluster) -> None:
    headers = {"Accept": "text/event-stream", **cluster.new.headers}

    def first(last_seen: str) -> tuple[str, Any]:
        url = f"{cluster.new.url}/new.json"
        with httpx.stream(
            "GET", url, headers={**headers, "Last-Event-ID": last_seen}, timeout=20
        ) as answer:
            lines = answer.iter_lines()
            name, data, number = next(lines), next(lines), next(lines)
            assert name == "event: put"
            number, _dot, time_ms = number.rpartition(".")
            assert int(time_ms)
            return number, json.loads(data.removeprefix("data: "))["data"]

    at = int(cluster.lost_at)
    assert first(str(at)) == (f"id: {at + 2}.2", 2)  # not 1, which is what comes after `at` there
    assert first(f"{at}.2") == (f"id: {at + 1}.2", 1)
    assert first(str(at - 1)) == (f"id: {at}.2", 0)
    with RemoteTree(cluster.new.url, cluster.new.token) as tree:
        event = next(iter(tree.watch("/new")))
        assert (event.data, event.position) == (2, at + 2)

"""A leader and its follower under writes and streams, killed and stalled at random."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_server import Served, until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]
SEED = int(os.environ.get("CHAOS_SEED", "1"))
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6")) * 2
WRITERS = 3
READ_SECONDS = 5.0


class Pair:
    """Two servers of one tree.

    Args:
        folder: where both keep theirs.
        options: further words of `elkyn serve` for both.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.leader = Served(folder / "a", *options)
        self.follower = self._following(self.leader, folder / "b")

    @property
    def both(self) -> tuple[Served, Served]:
        return self.leader, self.follower

    def _following(self, leader: Served, folder: Path) -> Served:
        token_file = str(leader.data / "admin.token")
        return Served(
            *(folder, "--follow", leader.url, "--follow-token-file", token_file), *self._options
        )

    def disturb(self, dice: random.Random) -> None:
        """Do to one of them what machines do to programs."""
        served = dice.choice(self.both)
        match dice.choice(("kill", "kill", "stop", "stall")):
            case "kill":
                logged = served.kill()
                assert "Traceback" not in logged, logged
                served.start()
            case "stop":
                code, logged = served.stop()
                assert code == 0, logged
                assert "Traceback" not in logged, logged
                served.start()
            case "stall":
                served.process.send_signal(signal.SIGSTOP)
                time.sleep(dice.uniform(0.2, 2.0))
                served.process.send_signal(signal.SIGCONT)

    def change_leader(self) -> None:
        """Kill the leader, promote the follower, and have the old leader follow it."""
        old = self.leader
        logged = old.kill()
        assert "Traceback" not in logged, logged
        elkyn("promote", "--data", str(self.follower.data))
        self.leader, self.follower = self.follower, self._following(self.follower, old.data)
        until(lambda: connected(self.follower))


class Writer:
    """Pushes numbers, each until it is acknowledged, to whichever server is there."""

    def __init__(self, pair: Pair, name: str, seed: str) -> None:
        self.acknowledged: list[tuple[str, int]] = []
        self._pair = pair
        self._name = name
        self._dice = random.Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ending.is_set():
            self.acknowledged.append((self._push(number), number))
            number += 1

    def _push(self, number: int) -> str:
        while True:
            served = self._dice.choice(self._pair.both)
            headers = {**served.headers, "Idempotency-Key": f"{self._name}-{number}"}
            try:
                answer = httpx.post(
                    f"{served.url}/log/{self._name}.json",
                    headers=headers,
                    json=number,
                    timeout=READ_SECONDS,
                )
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                return str(answer.json()["name"])
            fenced = answer.status_code == 409 and "another store leads" in answer.text
            assert fenced or answer.status_code in (503, 504), answer.text

    def end(self) -> None:
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


class Watcher:
    """Follows a path of one server by an event stream that it resumes, and keeps the events."""

    def __init__(self, served: Served, path: str) -> None:
        self.value: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.resumed = 0
        self._served = served
        self._path = path
        self._at: str | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending:
            try:
                self._listen()
            except (httpx.HTTPError, json.JSONDecodeError):
                time.sleep(0.05)

    def _listen(self) -> None:
        headers = {"Accept": "text/event-stream", **self._served.headers}
        if self._at is not None:
            headers["Last-Event-ID"] = self._at
        url = f"{self._served.url}/{self._path}.json"
        with httpx.stream("GET", url, headers=headers, timeout=READ_SECONDS) as answer:
            answer.raise_for_status()
            self.resumed += self._at is not None
            for name, data, number in events(answer.iter_lines()):
                if name in ("put", "patch"):
                    self._apply(name, data["path"], data["data"])
                    self._at = number
                if self._ending:
                    return

    def _apply(self, name: str, path: str, data: Any) -> None:
        if path == "/":
            changed = data or {}
            gone = {} if name == "patch" else self.value.keys() - changed.keys()
            if gone:
                self.wrong.append(f"{len(gone)} entries went: {sorted(gone)[:3]}")
            self.value = {**self.value, **changed} if name == "patch" else changed
        elif path[1:] in self.value:
            self.wrong.append(f"{path} came twice")
        else:
            if self.value and data != max(self.value.values()) + 1:
                self.wrong.append(f"{data} came after {max(self.value.values())}")
            self.value[path[1:]] = data

    def end(self) -> None:
        self._ending = True


def elkyn(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run([sys.executable, "-m", "elkyn.cli", *words], check=True, timeout=60)


def connected(served: Served) -> bool:
    """Whether a follower has all that its leader has."""
    state = served.client.get("/.replica/status").json()["namespaces"]["default"]
    return bool(state["connected"]) and not state["lag"]


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any, str]]:
    """Parse an event stream as (name, data, id)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _colon, value = line.partition(": ")
            fields[name] = value
            continue
        if fields.get("event") in ("put", "patch"):
            yield fields["event"], json.loads(fields["data"]), fields["id"]
        fields = {}


@contextmanager
def pair_at(folder: Path, *options: str) -> Iterator[Pair]:
    pair = Pair(folder, *options)
    try:
        yield pair
    finally:
        for served in reversed(pair.both):
            code, logged = served.stop()
            assert code == 0, logged
            assert "Traceback" not in logged, logged


def test_writes_and_streams_of_a_pair_that_is_disturbed(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    names = [f"w{number}" for number in range(WRITERS)]
    with pair_at(tmp_path) as pair:
        writers = [Writer(pair, name, f"{SEED}-{name}") for name in names]
        watchers = [Watcher(served, f"log/{name}") for served in pair.both for name in names]
        for _round in range(ROUNDS):
            time.sleep(dice.uniform(0.1, 1.0))
            pair.disturb(dice)
        for writer in writers:
            writer.end()
        expected = {
            name: dict(writer.acknowledged) for name, writer in zip(names, writers, strict=True)
        }
        assert all(len(numbers) > ROUNDS for numbers in expected.values())
        assert pair.leader.client.get("/log.json").json() == expected
        for name in names:  # the order of push ids is that of the acknowledgements
            assert list(expected[name]) == sorted(expected[name])
        until(lambda: pair.follower.client.get("/log.json").json() == expected)
        until(lambda: [watcher.value for watcher in watchers] == 2 * list(expected.values()))
        for watcher in watchers:
            watcher.end()
        assert [watcher.wrong for watcher in watchers] == [[]] * len(watchers)
        assert all(watcher.resumed for watcher in watchers)


def test_writes_acknowledged_by_a_replica_outlive_its_leaders(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with pair_at(tmp_path, "--ack", "replicas:1", "--ack-timeout", "2") as pair:
        until(lambda: connected(pair.follower))
        writers = [Writer(pair, f"w{number}", f"{SEED}-{number}") for number in range(WRITERS)]
        for _round in range(ROUNDS):
            time.sleep(dice.uniform(0.5, 1.5))
            pair.change_leader()
        for number, writer in enumerate(writers):
            writer.end()
            assert writer.acknowledged
            kept = pair.leader.client.get(f"/log/w{number}.json").json()
            assert kept == dict(writer.acknowledged)
        tree = pair.leader.client.get("/.json").json()
        until(lambda: pair.follower.client.get("/.json").json() == tree)

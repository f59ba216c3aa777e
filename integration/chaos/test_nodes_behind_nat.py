"""Two nodes that cannot reach each other share a dataset through a third one, which can read none of it.

    left ── public ── right

Each is in a network namespace of its own. The public node's namespace forwards no packets, and the
other two nodes listen nowhere, as behind a NAT: all connections are those that they have dialed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from networks import eventually, start

from nodes import platform

pytestmark = [
    pytest.mark.nightly,  # needs the right to make network namespaces
    pytest.mark.timeout(600),
]
PUBLIC, PRIVATE = "public", ("left", "right")
ADDRESS, PORT = "10.91.0.1", 8701
"""Of the public node; each of the others has a route to it alone."""
DIAL = """
import contextlib, socket, sys
with contextlib.suppress(ConnectionRefusedError):
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
"""
ROWS = 150_000
TABLE = f"SELECT range AS payrollkey, hash(range) >> 2 AS amount FROM range({ROWS})"
# Its parts are not small: the values themselves are moved.
QUERY = "SELECT count(DISTINCT amount) AS n, median(amount)::BIGINT AS middle FROM payroll"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Namespaces:
    """The network namespaces of a test."""

    def __init__(self) -> None:
        self._names = {name: f"sennit-{os.getpid()}-{name}" for name in (PUBLIC, *PRIVATE)}

    def open(self) -> None:
        for space in self._names.values():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        public = self._names[PUBLIC]
        ip("-n", public, "address", "add", f"{ADDRESS}/32", "dev", "lo")
        for number, name in enumerate(PRIVATE, 1):
            space, near = self._names[name], f"to-{name}"
            ip("-n", public, "link", "add", near, "type", "veth",
               "peer", "name", "out", "netns", space)  # fmt: skip
            ip("-n", public, "address", "add", f"10.91.{number}.1/24", "dev", near)
            ip("-n", public, "link", "set", near, "up")
            ip("-n", space, "address", "add", f"10.91.{number}.2/24", "dev", "out")
            ip("-n", space, "link", "set", "out", "up")
            ip("-n", space, "route", "add", "default", "via", f"10.91.{number}.1")
        stop = ("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        subprocess.run([*self.within(PUBLIC), *stop], check=True, capture_output=True)

    def close(self) -> None:
        """Remove them, with the links between them."""
        for space in self._names.values():
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)

    def within(self, name: str) -> tuple[str, ...]:
        """Return the command that runs another one in a namespace."""
        return ("ip", "netns", "exec", self._names[name])

    def reaches(self, name: str, host: str) -> bool:
        """Return whether the packets of one get to a host, whether or not it listens there."""
        command = [*self.within(name), sys.executable, "-c", DIAL, host, str(PORT)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    if shutil.which("ip") is None:
        pytest.skip("needs the command `ip` of iproute2")
    found = Namespaces()
    try:
        try:
            found.open()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot make network namespaces: {error.stderr}")
        yield found
    finally:
        found.close()


class Nodes:
    """The three nodes, seen by their owners."""

    def __init__(self, folder: Path, namespaces: Namespaces) -> None:
        self._folder, self._namespaces = folder, namespaces

    def platform(self, name: str, *words: str, check: bool = True) -> str:
        data, within = self._folder / name, self._namespaces.within(name)
        return platform(*words, data=data, check=check, within=within).stdout

    def others(self, name: str) -> dict[str, dict[str, Any]]:
        """Return what a node knows of each node."""
        found = json.loads(self.platform(name, "net", "nodes", "--json"))
        return {each["name"]: each for each in found["nodes"]}

    def forwarded(self) -> tuple[int, int]:
        """Return how many bytes the public node got from the left one, and sent to the right one."""
        found = [self.others(PUBLIC)[name]["connection"] for name in PRIVATE]
        return found[0]["receivedBytes"], found[1]["sentBytes"]

    def has_on_disk(self, name: str, text: bytes) -> bool:
        """Return whether a file of a node has a text in it."""
        files = (each for each in (self._folder / name).rglob("*") if each.is_file())
        return any(text in each.read_bytes() for each in files)


def test_a_dataset_is_queried_through_a_node_that_cannot_read_it(
    tmp_path: Path, namespaces: Namespaces
) -> None:
    left, right = PRIVATE
    nodes = Nodes(tmp_path, namespaces)
    with ExitStack() as stack:

        def up(name: str, *words: str, config: str) -> None:
            within = namespaces.within(name)
            stack.enter_context(start(tmp_path, name, *words, config=config, within=within))

        up(PUBLIC, config=f'peer_host = "{ADDRESS}"\npeer_port = {PORT}\n')
        for name in PRIVATE:
            invite = nodes.platform(PUBLIC, "net", "invite").strip()
            up(name, "--join", invite, config="peer_listen = false\n")
        assert namespaces.reaches(left, ADDRESS)
        assert not namespaces.reaches(left, "10.91.2.2")
        assert not namespaces.reaches(right, "10.91.1.2")
        nodes.platform(left, "sql", f"CREATE TABLE payroll AS {TABLE}")
        eventually(lambda: nodes.others(left).get(right, {}).get("state") == "alive")
        nodes.platform(left, "share", "payroll", "--with", right)
        eventually(lambda: "payroll" in nodes.platform(right, "datasets"))
        before = nodes.forwarded()

        answer = nodes.platform(right, "sql", QUERY, "--json")

        assert answer == nodes.platform(left, "sql", QUERY, "--json")
        assert nodes.others(right)[left]["connection"]["relay"] == PUBLIC
        moved = [after - was for after, was in zip(nodes.forwarded(), before, strict=True)]
        assert min(moved) > ROWS * 4, moved
        assert "payroll" not in nodes.platform(PUBLIC, "datasets")
    # A shard has the names of its columns in clear, wherever it is.
    holders = [name for name in (*PRIVATE, PUBLIC) if nodes.has_on_disk(name, b"payrollkey")]
    assert left in holders
    assert PUBLIC not in holders
    assert not nodes.has_on_disk(PUBLIC, b"payroll"), "it knows the name of the dataset"

"""Two machines of one local network find each other by mDNS, and again after an address has changed.

    north ── south

Each is in a network namespace of its own; a virtual cable connects the two.
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
HOSTS = {"north": "10.92.0.1", "south": "10.92.0.2"}
MOVED = "10.92.0.77"
CONFIG = 'discovery = true\npeer_host = "0.0.0.0"\n'


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def space(name: str) -> str:
    return f"sennit-{os.getpid()}-{name}"


def within(name: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", space(name))


@pytest.fixture
def cable() -> Iterator[None]:
    if shutil.which("ip") is None:
        pytest.skip("needs the command `ip` of iproute2")
    try:
        try:
            for name in HOSTS:
                ip("netns", "add", space(name))
                ip("-n", space(name), "link", "set", "lo", "up")
            ip("-n", space("north"), "link", "add", "lan", "type", "veth",
               "peer", "name", "lan", "netns", space("south"))  # fmt: skip
            for name, host in HOSTS.items():
                ip("-n", space(name), "address", "add", f"{host}/24", "dev", "lan")
                ip("-n", space(name), "link", "set", "lan", "up")
                # As the default route of an office: a node asks for it which address it has.
                ip("-n", space(name), "route", "add", "default", "dev", "lan")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot make network namespaces: {error.stderr}")
        yield
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "delete", space(name)], check=False, capture_output=True)


def test_nodes_of_a_local_network_find_each_other(tmp_path: Path, cable: None) -> None:
    def run(name: str, *words: str) -> Any:
        answer = platform(*words, data=tmp_path / name, within=within(name))
        return json.loads(answer.stdout) if "--json" in words else answer.stdout

    def discovered(name: str) -> list[dict[str, Any]]:
        return list(run(name, "net", "discover", "--json")["nodes"])

    def state(name: str, other: str) -> str | None:
        nodes = run(name, "net", "nodes", "--json")["nodes"]
        return {each["name"]: str(each["state"]) for each in nodes}.get(other)

    with ExitStack() as stack:
        life = {name: stack.enter_context(ExitStack()) for name in HOSTS}

        def up(name: str) -> None:
            life[name].enter_context(start(tmp_path, name, config=CONFIG, within=within(name)))

        for name in HOSTS:
            up(name)
        run("north", "net", "invite")  # founds the network
        eventually(lambda: discovered("south"))
        [north] = discovered("south")
        assert not north["member"]
        assert [each.rpartition(":")[0] for each in north["addresses"]] == [HOSTS["north"]]

        command = [*within("south"), sys.executable, "-m", "sennit.cli", "net", "join"]
        with subprocess.Popen(
            [*command, north["fingerprint"], "--data", str(tmp_path / "south"), "--wait", "90"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as joining:  # fmt: skip
            eventually(lambda: run("north", "net", "nodes", "--json")["waiting"])
            [waiting] = run("north", "net", "nodes", "--json")["waiting"]
            run("north", "net", "accept", waiting["fingerprint"])
            output, errors = joining.communicate(timeout=90)
        assert "joined network" in output, errors
        eventually(lambda: state("south", "north") == state("north", "south") == "alive")

        for name in HOSTS:
            life[name].close()
        ip("-n", space("north"), "address", "flush", "dev", "lan")
        ip("-n", space("north"), "address", "add", f"{MOVED}/24", "dev", "lan")
        for name in ("south", "north"):
            up(name)
        eventually(lambda: state("south", "north") == state("north", "south") == "alive")
        [north] = discovered("south")
        assert north["member"]
        assert [each.rpartition(":")[0] for each in north["addresses"]] == [MOVED]
        text = run("south", "net", "discover")
        assert north["fingerprint"] in text
        assert "yes" in text

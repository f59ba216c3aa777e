"""What the settings of networks of nodes do."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from opened_node import OpenNodes
from setting_effects import effect_of

from elytra.client.transport import wait_for
from nodes import platform, running_node
from sennit_core.errors import Conflict, TooLarge
from sennit_core.units import MIB


@effect_of(
    "network.name", "network.zone", "network.peer_host", "network.peer_port",
    "network.peer_listen", "network.peer_addresses",
)  # fmt: skip
def other_nodes_see_this_one(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.5", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("SENNIT_NETWORK__PEER_LISTEN", "false")
    with (
        running_node(folder / "hidden", "--api-only") as node,
        node.session() as session,
        pytest.raises(Conflict, match="no address"),
    ):
        session.network.invite()
    monkeypatch.delenv("SENNIT_NETWORK__PEER_LISTEN")
    given = {"NAME": "oslo", "ZONE": "north", "PEER_HOST": "127.0.0.5", "PEER_PORT": str(port)}
    for name, value in given.items():
        monkeypatch.setenv(f"SENNIT_NETWORK__{name}", value)
    with running_node(folder / "node", "--api-only") as node, node.session() as session:
        session.network.invite()
        [own] = session.network.show()["nodes"]
        assert (own["name"], own["zone"]) == ("oslo", "north")
        assert own["addresses"] == [f"127.0.0.5:{port}"]
        socket.create_connection(("127.0.0.5", port), timeout=5).close()
    (folder / "node" / "config.toml").write_text('[network]\npeer_addresses = ["oslo.test:7000"]\n')
    with running_node(folder / "node", "--api-only") as node, node.session() as session:
        assert session.network.show()["nodes"][0]["addresses"] == ["oslo.test:7000"]


@effect_of("network.peers")
def a_node_finds_a_member_that_has_moved(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(name: str, *join: str) -> Any:
        # No node connects to rome, so it has to find oslo.
        monkeypatch.setenv("SENNIT_NETWORK__NAME", name)
        monkeypatch.setenv("SENNIT_NETWORK__PEER_LISTEN", "false" if name == "rome" else "true")
        return running_node(folder / name, "--api-only", *join)

    def sees_oslo(rome: Any) -> bool | None:
        states = {each["name"]: each["state"] for each in rome.network.show()["nodes"]}
        return states.get("oslo") == "alive" or None

    with start("oslo") as node, node.session() as oslo:
        invite = oslo.network.invite()
        with start("rome", "--join", invite) as node, node.session() as rome:
            wait_for(lambda: sees_oslo(rome), what="oslo", seconds=60)
    with start("oslo") as node, node.session() as oslo:
        [address] = oslo.network.show()["nodes"][0]["addresses"]
        (folder / "rome" / "config.toml").write_text(f'[network]\npeers = ["{address}"]\n')
        with start("rome") as node, node.session() as rome:
            wait_for(lambda: sees_oslo(rome), what="oslo where it is now", seconds=60)


@effect_of("network.discovery")
def nodes_of_the_local_network_are_listed(
    opened: OpenNodes, _folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = opened({}).client.get("/api/network/discover")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "network.discovery" in answer.json()["hint"]
    # Nothing is sent on the networks of the machine that runs the tests.
    monkeypatch.setattr("lake.peers.members.discovery.private_interfaces", list)
    client = opened({"network.discovery": True}).client

    def problem() -> str | None:
        found = client.get("/api/network/discover").json()
        assert (found["announced"], found["nodes"]) == (False, [])
        return found["problem"] if "private" in found["problem"] else None

    wait_for(problem, what="discovery", seconds=20)


@effect_of("storage.copy_bytes", "storage.replication")
def copies_are_made_where_there_is_room(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shards(name: str) -> list[Path]:  # manifests, which each node has, are smaller
        objects = (folder / name / "lake" / "objects").rglob("*")
        return [each for each in objects if each.stat().st_size > 40_000 and each.is_file()]

    def under_replicated() -> int:
        found = httpx.get(f"{oslo.url}/api/datasets/t/sharing", headers=oslo.headers)
        return int(found.json()["state"]["underReplicated"])

    numbers = Random(1)
    rows = (f"{numbers.getrandbits(62)}\n" for _ in range(10_000))
    (folder / "t.csv").write_text("a\n" + "".join(rows))
    monkeypatch.setenv("SENNIT_STORAGE__REPLICATION", "3")
    with ExitStack() as stack:

        def start(name: str, *join: str) -> Any:
            monkeypatch.setenv("SENNIT_NETWORK__NAME", name)
            return stack.enter_context(running_node(folder / name, "--api-only", *join))

        oslo = start("oslo")
        with oslo.session() as session:
            invites = [session.network.invite() for _ in range(2)]
        start("bern", "--join", invites[0])
        monkeypatch.setenv("SENNIT_STORAGE__COPY_BYTES", "0")
        start("rome", "--join", invites[1])
        platform("put", str(folder / "t.csv"), data=oslo.data)
        platform("share", "t", "--with", "all", data=oslo.data)
        wait_for(lambda: shards("bern") or None, what="a copy at bern", seconds=60)
        assert shards("rome") == []
        assert under_replicated() == 1


@effect_of("network.query_bytes")
def a_query_receives_so_much(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "t.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "rules.json").write_text(
        '{"rules": [{"principal": "*@*", "columns": [{"name": "b"}]}]}'
    )
    with ExitStack() as stack:

        def start(name: str, *join: str) -> Any:
            monkeypatch.setenv("SENNIT_NETWORK__NAME", name)
            return stack.enter_context(running_node(folder / name, "--api-only", *join))

        oslo = start("oslo")
        with oslo.session() as session:
            invites = [session.network.invite() for _ in range(2)]
        bern = start("bern", "--join", invites[0])
        monkeypatch.setenv("SENNIT_NETWORK__QUERY_BYTES", "1")
        rome = start("rome", "--join", invites[1])
        platform("put", str(folder / "t.csv"), data=oslo.data)
        platform("policy", "t", "--set", str(folder / "rules.json"), data=oslo.data)
        platform("share", "t", "--with", "all", data=oslo.data)

        def answers(node: Any, wanted: str) -> bool | None:
            query = {"sql": "SELECT a FROM t"}
            found = httpx.post(
                f"{node.url}/api/query", json=query, headers=node.headers, timeout=60
            )
            return wanted in found.text or None

        wait_for(lambda: answers(bern, "[[1],[3]]"), what="the rows at bern", seconds=60)
        wait_for(lambda: answers(rome, "network.query_bytes"), what="the limit at rome", seconds=60)


@effect_of("network.copy_rate_bytes", "network.copy_hours")
def copies_are_made_slowly_and_at_their_hours(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(name: str) -> int:
        files = (folder / name / "lake" / "incoming-copies").iterdir()
        return sum(each.stat().st_size for each in files)

    numbers = Random(1)
    rows = (f"{numbers.getrandbits(62)}\n" for _ in range(300_000))
    (folder / "t.csv").write_text("a\n" + "".join(rows))
    later = (datetime.now().hour + 6) % 24  # noqa: DTZ005 - local, as the setting
    with ExitStack() as stack:

        def start(name: str, *join: str) -> Any:
            monkeypatch.setenv("SENNIT_NETWORK__NAME", name)
            return stack.enter_context(running_node(folder / name, "--api-only", *join))

        oslo = start("oslo")
        with oslo.session() as session:
            invites = [session.network.invite() for _ in range(2)]
        monkeypatch.setenv("SENNIT_NETWORK__COPY_HOURS", f"{later:02}:00-{later:02}:59")
        start("bern", "--join", invites[0])
        monkeypatch.delenv("SENNIT_NETWORK__COPY_HOURS")
        # The first chunk, of 1 MiB, is there at once, and the second one after 52 seconds, as is the
        # first if it was received and not written since the plan has changed meanwhile.
        monkeypatch.setenv("SENNIT_NETWORK__COPY_RATE_BYTES", "20000")
        start("rome", "--join", invites[1])
        platform("put", str(folder / "t.csv"), data=oslo.data)
        platform("share", "t", "--with", "all", "--copies", "3", data=oslo.data)
        wait_for(lambda: fetched("rome") or None, what="a chunk at rome", seconds=180)
        assert fetched("rome") == MIB
        assert fetched("bern") == 0


@effect_of("network.change_bytes")
def a_change_sends_few_rows(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "t.csv").write_text("a\n1\n")
    with ExitStack() as stack:

        def start(name: str, *join: str) -> Any:
            monkeypatch.setenv("SENNIT_NETWORK__NAME", name)
            return stack.enter_context(running_node(folder / name, "--api-only", *join))

        oslo = start("oslo")
        with oslo.session() as session:
            invite = session.network.invite()
        monkeypatch.setenv("SENNIT_NETWORK__CHANGE_BYTES", "10")
        rome = start("rome", "--join", invite)
        platform("put", str(folder / "t.csv"), data=oslo.data)

        def may_append() -> bool | None:
            found = httpx.get(f"{rome.url}/api/datasets/t/sharing", headers=rome.headers)
            return found.json().get("readOnly") is False or None

        with oslo.session() as session:
            wait_for(
                lambda: len(session.network.show()["nodes"]) == 2 or None, what="rome", seconds=60
            )
        platform("share", "t", "--with", "rome", data=oslo.data)
        with rome.session() as session:
            wait_for(may_append, what="the dataset", seconds=60)
            with pytest.raises(TooLarge, match="sends to another node"):
                session.put(folder / "t.csv", "t", mode="append")

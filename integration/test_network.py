"""Networks of real nodes, as their owners form, see and break them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from networks import UP, all_become_alive, eventually, invite, shown, start, states

from lake.catalog.node_key import NodeKey
from lake.peers.members.invites import Invite
from nodes import RunningNode, platform, quiet_environment
from sennit_core.errors import Conflict, Denied

pytestmark = pytest.mark.timeout(300)  # of several processes
HIDDEN = "peer_listen = false\n"
Offices = dict[str, RunningNode]


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offices]:
    """Oslo founds the network, Rome joins with an invite, and Bern is accepted by its fingerprint.

    Only Oslo can be dialed.
    """
    folder = tmp_path_factory.mktemp("offices")
    with ExitStack() as stack:
        oslo = stack.enter_context(start(folder, "oslo", config='zone = "north"\n'))
        joining = ("--join", invite(oslo))
        with ThreadPoolExecutor() as pool:
            rome, bern = pool.map(
                stack.enter_context,
                (
                    start(folder, "rome", *joining, config=HIDDEN),
                    start(folder, "bern", config=HIDDEN),
                ),
            )
        accept(oslo, bern)
        found = {"oslo": oslo, "rome": rome, "bern": bern}
        all_become_alive(*found.values())
        yield found


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that is in no network, before and after each test."""
    with start(tmp_path_factory.mktemp("guest"), "paris") as node:
        yield node


def accept(host: RunningNode, node: RunningNode) -> None:
    """Let a node ask to join, and accept it as its owner reads its fingerprint out."""
    found = shown(host)
    address, own = f"127.0.0.1:{found['node']['port']}", shown(node)["node"]
    asking = subprocess.Popen(
        [sys.executable, "-m", "sennit.cli", "net", "join", address, "--node", found["node"]["id"],
         "--data", str(node.data)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet_environment(),
    )  # fmt: skip
    eventually(lambda: [each["id"] for each in shown(host)["waiting"]] == [own["id"]])
    assert own["fingerprint"] in platform("net", "nodes", data=host.data).stdout
    accepted = platform("net", "accept", own["fingerprint"], "--json", data=host.data)
    assert json.loads(accepted.stdout)["id"] == own["id"]
    out, err = asking.communicate(timeout=60)
    assert asking.returncode == 0, err
    assert f"platform net accept {own['fingerprint']}" in err
    assert out.startswith("joined network")


def test_nodes_are_listed_with_state_zone_and_address(offices: Offices) -> None:
    printed = platform("net", "nodes", data=offices["rome"].data).stdout
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    assert "not dialable" in lines["rome"]
    assert {"alive", "north", "admin"} <= set(lines["oslo"].split())
    document = json.loads(platform("net", "nodes", "--json", data=offices["rome"].data).stdout)
    assert [each["name"] for each in document["nodes"]] == ["rome", "bern", "oslo"]
    assert all(each["cannot"] == [] for each in document["nodes"])
    assert document["network"] == shown(offices["oslo"])["node"]["id"]


def test_two_nodes_that_cannot_be_dialed_reach_each_other_through_the_third(
    offices: Offices,
) -> None:
    def is_measured(node: str, other: str) -> bool:
        [found] = [each for each in shown(offices[node])["nodes"] if each["name"] == other]
        return found["addresses"] == [] and found["rttSeconds"] is not None

    eventually(lambda: is_measured("rome", "bern") and is_measured("bern", "rome"))


def test_the_check_finds_no_problem_and_the_map_the_relayed_connection(offices: Offices) -> None:
    def is_relayed() -> bool:
        printed = platform("net", "map", data=offices["rome"].data).stdout
        return bool(re.search(r"(bern - rome|rome - bern) .*through oslo", printed))

    eventually(is_relayed)
    done = platform("net", "check", data=offices["rome"].data)
    assert {"ok       node bern", "ok       node oslo"} <= {
        line.partition(":")[0] for line in done.stdout.splitlines()
    }
    assert done.stdout.endswith("\n0 problems\n")


def own_addresses(node: RunningNode) -> dict[str, Any]:
    """What a check that fails finds of the node's own addresses."""
    done = platform("net", "check", "--json", data=node.data, check=False)
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    [problem] = [each for each in findings if each["subject"] == "this node's addresses"]
    assert not problem["ok"]
    return dict(problem)


@pytest.mark.nightly
def test_the_check_fails_where_the_only_address_leads_nowhere(
    offices: Offices, tmp_path: Path
) -> None:
    lost = 'peer_addresses = ["127.0.0.1:1024"]\n'
    with start(tmp_path, "wien", "--join", invite(offices["oslo"]), config=lost) as wien:
        eventually(lambda: list(states(wien).values()).count("alive") == 4)
        # Until a member that can try the address has a connection.
        eventually(lambda: "127.0.0.1:1024" in own_addresses(wien)["found"])
        problem = own_addresses(wien)
        platform("net", "revoke", "wien", "--yes", data=offices["oslo"].data)
    assert "network.peer_addresses" in problem["remedy"]


def test_an_invite_is_refused_that_was_used_or_is_over_or_not_an_admins(
    offices: Offices, guest: RunningNode
) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    network, address = shown(oslo)["network"], f"127.0.0.1:{shown(oslo)['node']['port']}"
    keys = {name: NodeKey(offices[name].data / "lake" / "node.key") for name in ("oslo", "rome")}

    def made(by: str, now: float) -> str:
        return Invite.make(keys[by], network, [address], now=now, seconds=60).text

    over = platform("net", "join", made("oslo", time.time() - 3600), data=guest.data, check=False)
    assert (over.returncode, "expired" in over.stderr) == (5, True), over.stderr
    other = platform("net", "join", made("rome", time.time()), data=guest.data, check=False)
    assert (other.returncode, "answers there" in other.stderr) == (5, True), other.stderr
    with rome.session() as session, pytest.raises(Denied, match="admin of the network"):
        session.network.invite()
    with rome.session() as session, pytest.raises(Conflict, match="leave it first"):
        session.network.join(invite(oslo))
    garbled = platform("net", "join", "sennit-invite:abc", data=guest.data, check=False)
    assert garbled.returncode == 2
    assert "copy the whole line" in garbled.stderr
    assert shown(guest)["network"] is None


def test_a_node_is_revoked_while_it_is_connected_and_cannot_come_back(
    offices: Offices, guest: RunningNode
) -> None:
    oslo, used = offices["oslo"], invite(offices["oslo"])
    platform("net", "join", used, data=guest.data)
    name = shown(guest)["node"]["name"]
    all_become_alive(*offices.values(), guest)
    platform("sql", "CREATE TABLE guests AS SELECT 1 AS a", data=guest.data)
    platform("share", "guests", "--with", "all", data=guest.data)
    eventually(lambda: "guests" in platform("datasets", data=oslo.data).stdout)
    # Refused before it asks: nothing answers here.
    unknown = platform("net", "revoke", name + "x", data=oslo.data, check=False)
    assert (unknown.returncode, "for ever?" in unknown.stderr) == (4, False), unknown.stderr
    shown_member = platform("net", "revoke", name, "--yes", "--json", data=oslo.data).stdout
    assert json.loads(shown_member)["revoked"] is True
    all_become_alive(*offices.values())
    eventually(lambda: shown(guest)["revoked"])
    assert "was removed" in platform("net", "nodes", data=guest.data).stdout
    left = platform("net", "leave", "--yes", "--json", data=guest.data).stdout
    assert json.loads(left)["left"] is True
    for text, reason in ((used, "revoked"), (invite(oslo), "revoked")):
        refused = platform("net", "join", text, data=guest.data, check=False)
        assert (refused.returncode, reason in refused.stderr) == (5, True), refused.stderr
    rows = httpx.get(f"{oslo.url}/nodes.json?ns=sys", headers=oslo.headers).json()
    assert set(rows) == {shown(each)["node"]["id"] for each in offices.values()}
    # What came from it stays, and is shown as what it is.
    listed = platform("datasets", data=oslo.data)
    assert "guests" in listed.stdout
    assert "guests: it is of a node, which was removed from the network" in listed.stderr
    assert "removed from the network" in platform("share", "guests", data=oslo.data).stdout
    [found] = httpx.get(f"{oslo.url}/api/network/datasets", headers=oslo.headers).json()
    assert found["writerRevoked"] is True


def test_a_node_leaves_and_comes_back(offices: Offices) -> None:
    oslo, bern = offices["oslo"], offices["bern"]
    with bern.session() as session:
        session.network.leave()
    assert shown(bern)["network"] is None
    assert list(httpx.get(f"{bern.url}/nodes.json?ns=sys", headers=bern.headers).json()) == [
        shown(bern)["node"]["id"]
    ]
    eventually(lambda: states(oslo)["bern"] == states(offices["rome"])["bern"] == "left")
    with bern.session() as session:
        session.network.join(invite(oslo))
    all_become_alive(*offices.values())


def test_readers_see_the_network_and_change_nothing(offices: Offices) -> None:
    oslo = offices["oslo"]
    body = {"name": "eve", "role": "reader"}
    made = httpx.post(f"{oslo.url}/api/tokens", json=body, headers=oslo.headers).json()
    environment = quiet_environment() | {"SENNIT_URL": oslo.url, "SENNIT_TOKEN": made["token"]}
    for words, status in (("nodes",), 0), (("invite",), 5), (("revoke", "rome", "--yes"), 5):
        done = subprocess.run(
            [sys.executable, "-m", "sennit.cli", "net", *words], cwd=oslo.data.parent,
            env=environment | {"SENNIT_DATA": str(oslo.data / "none")}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
    assert states(oslo)["rome"] == "alive"


@pytest.mark.crash
@pytest.mark.nightly
def test_a_node_that_is_killed_is_seen_dead_and_comes_back(
    offices: Offices, tmp_path: Path
) -> None:
    oslo = offices["oslo"]
    with ExitStack() as stack:
        node = stack.enter_context(start(tmp_path, "kiel", "--join", invite(oslo)))
        eventually(lambda: states(oslo).get("kiel") == "alive")
        node.kill()
        # Its run file stays, as after a power cut; `running_node` expects it to be gone.
        (node.data / "run.json").unlink()
    eventually(lambda: states(oslo)["kiel"] == "dead")
    with start(tmp_path, "kiel") as node:
        eventually(lambda: states(oslo)["kiel"] == "alive" and states(node)["rome"] == "alive")
        platform("net", "revoke", "kiel", "--yes", data=oslo.data)
    all_become_alive(*offices.values())


@pytest.mark.nightly
def test_a_node_that_is_stopped_for_a_while_accuses_no_other(offices: Offices) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    os.kill(rome.process.pid, signal.SIGSTOP)
    try:
        eventually(lambda: states(oslo)["rome"] == "dead")
    finally:
        os.kill(rome.process.pid, signal.SIGCONT)
    assert set(states(rome).values()) <= {"alive", "suspect"}
    all_become_alive(*offices.values())


@pytest.mark.nightly
def test_three_nodes_of_one_machine_form_a_network_once(tmp_path: Path) -> None:
    words = ("up", "--nodes", "3", "--detach", *UP, "--name", "lab", "--port", "0")
    try:
        for _ in range(2):
            lines = platform(*words, data=tmp_path).stdout.splitlines()
            said = [line for line in lines if " is up" in line]
            assert [line.partition(" is up")[0] for line in said] == [
                "Node lab-0", "Node lab-1", "Node lab-2", "Sennit"
            ]  # fmt: skip
            found = json.loads(platform("net", "nodes", "--json", data=tmp_path).stdout)
            assert {each["name"] for each in found["nodes"]} == {"lab-0", "lab-1", "lab-2"}
            platform("down", data=tmp_path)
    finally:
        platform("down", data=tmp_path)


@pytest.mark.nightly
def test_the_founder_restarts_and_finds_its_network(tmp_path: Path) -> None:
    with start(tmp_path, "kiel") as kiel, start(tmp_path, "turku", "--join", invite(kiel)) as turku:
        all_become_alive(kiel, turku)
        platform("down", data=kiel.data)
        eventually(lambda: states(turku)["kiel"] == "dead")
        with start(tmp_path, "kiel") as again:
            all_become_alive(again, turku)


@pytest.mark.nightly
def test_the_examples_of_the_page_form_a_network_and_share_a_dataset(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "network.md").read_text(encoding="utf-8")
    parts = [part.partition("```")[0] for part in page.split("```sh\n")[1:]]
    forming, sharing, changing = parts[:3]
    appending, forking = (
        next(part for part in parts if text in part) for text in ("--mode append", "platform fork")
    )
    sharing, query, _ = re.split(r'platform sql "(.*)" --data rome\n', sharing)
    example = forming + sharing
    command = f"{sys.executable} -m sennit.cli "
    script = example.replace("platform ", command).replace("--port 8700", "--port 0")
    environment = quiet_environment() | {
        "SENNIT_NETWORK__PORT": "0", "SENNIT_EMSQRT__MEMORY_BYTES": "512MiB",
    }  # fmt: skip

    def run(text: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    try:
        assert {"oslo", "rome"} <= set(run(script))

        def answered() -> bool:
            found = platform("sql", query, data=tmp_path / "rome", check=False).stdout
            return found.split()[-4:] == ["Oslo", "5", "Rome", "2"]

        eventually(answered)
        assert run(changing.replace("platform ", command))[-1] == "5"
        run(appending.replace("platform ", command))
        assert run(forking.replace("platform ", command))[0] == "my_trips"
        sum_of_bern = "SELECT sum(km) FROM my_trips WHERE city = 'Bern'"
        assert platform("sql", sum_of_bern, data=tmp_path / "rome").stdout.split()[-1] == "7"
    finally:
        for name in ("rome", "oslo"):
            platform("down", data=tmp_path / name)

"""Discovery on a local network: what is announced, what of others is read, and what is dialed."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zeroconf import IPVersion, ServiceInfo, Zeroconf
from zeroconf.const import _TYPE_A, _TYPE_PTR, _TYPE_SRV, _TYPE_TXT

from elkyn import ElkynStore
from lake.peers.members import discovery
from lake.peers.members.announcements import (
    ANNOUNCED_ADDRESSES_MAX,
    SERVICE,
    TXT_BYTES_MAX,
    Announcement,
    Interface,
    Listening,
    network_tag,
    own_addresses,
    read_announcement,
    txt_of,
)
from lake.peers.members.discovery import (
    _FORGET_SECONDS,
    _IGNORE_SECONDS,
    SERVICES_MAX,
    LocalDiscovery,
)
from lake.peers.members.hints import DIAL_SECONDS, REMEMBERED_MAX, WRONG_KEY_SECONDS, Hints
from lake.peers.service import PeerOptions, PeerService

from .peers_world import identity
from .test_peers_service import FAST, eventually

NODE, OTHER = "ab" * 32, "cd" * 32
TAG = network_tag("n1")
LAN: list[Interface] = [
    ipaddress.ip_interface("10.1.2.3/24"), ipaddress.ip_interface("fd12::3/64")
]  # fmt: skip
LOOPBACK: list[Interface] = [ipaddress.ip_interface("127.0.0.1/8")]
TXT: dict[bytes, bytes | None] = {
    key.encode(): value.encode()
    for key, value in txt_of(Listening(NODE, "oslo", TAG, "10.1.2.3", 8601)).items()
}


def read(
    addresses: list[str], port: int = 8601, changes: Mapping[str, bytes | None] | None = None
) -> Announcement | None:
    txt = TXT | {key.encode(): value for key, value in (changes or {}).items()}
    return read_announcement(txt, addresses, port, LAN)


# What is announced, and read


def test_what_a_node_announces_is_read_back() -> None:
    found = read(["10.1.2.9", "fd12::9"])
    assert found == Announcement(NODE, "oslo", TAG, ("10.1.2.9:8601", "[fd12::9]:8601"))


def test_an_announcement_has_no_secret_and_no_dataset() -> None:
    assert set(TXT) == {b"v", b"id", b"name", b"net"}
    assert network_tag("a-network") != "a-network"[:16]
    longest = txt_of(Listening(NODE, "n" * 63, TAG, "", 0))
    assert sum(len(f"{key}={value}") + 1 for key, value in longest.items()) < TXT_BYTES_MAX


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "10.1.3.9", "192.168.0.1", "127.0.0.1", "169.254.169.254", "0.0.0.0", "10.1.2.0",
        "10.1.2.255", "224.0.0.251", "::1", "fe80::1", "2001:db8::1", "fd13::1", "metadata", "",
    ],
)  # fmt: skip
def test_addresses_outside_of_the_own_networks_are_dropped(address: str) -> None:
    assert read([address]) is None
    assert read([address, "10.1.2.9"]) == read(["10.1.2.9"])


@pytest.mark.parametrize(
    "changes",
    [
        {"v": b"2"}, {"v": None}, {"id": b"ab"}, {"id": NODE.upper().encode()}, {"id": None},
        {"name": b"a b"}, {"name": b"n" * 64}, {"name": b"\xff"}, {"name": None}, {"net": b"x"},
        {"net": TAG.encode() * 2},
    ],
)  # fmt: skip
def test_a_record_of_another_form_is_ignored(changes: dict[str, bytes | None]) -> None:
    assert read(["10.1.2.9"], changes=changes) is None


@pytest.mark.parametrize("port", [-1, 0, 22, 443, 1023, 65_536, 1 << 40])
def test_ports_of_the_system_are_ignored(port: int) -> None:
    assert read(["10.1.2.9"], port) is None


def test_the_number_of_addresses_is_limited() -> None:
    found = read([f"10.1.2.{n}" for n in range(10, 200)])
    assert found is not None
    assert len(found.addresses) == ANNOUNCED_ADDRESSES_MAX


@settings(max_examples=50)
@given(
    txt=st.dictionaries(
        st.sampled_from([b"v", b"id", b"name", b"net", b"x"]),
        st.one_of(st.none(), st.binary(max_size=80), st.sampled_from(list(TXT.values()))),
    ),
    addresses=st.lists(st.one_of(st.text(max_size=20), st.ip_addresses().map(str)), max_size=8),
    port=st.integers(),
)
def test_no_record_is_an_error(
    txt: dict[bytes, bytes | None], addresses: list[str], port: int
) -> None:
    found = read_announcement(TXT | txt, addresses, port, LAN)
    assert found is None or all(
        ipaddress.ip_address(each.rpartition(":")[0].strip("[]")).is_private
        for each in found.addresses
    )


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", ["10.1.2.3"]), ("0.0.0.0", ["10.1.2.3"]), ("::", ["10.1.2.3", "fd12::3"]),
        ("127.0.0.1", []), ("10.1.2.4", []),
    ],
)  # fmt: skip
def test_own_addresses_are_those_that_the_listener_has(host: str, expected: list[str]) -> None:
    assert [str(each) for each in own_addresses(host, LAN)] == expected


def test_loopback_and_link_local_interfaces_are_not_used() -> None:
    for each in discovery.private_interfaces():
        assert each.ip.is_private
        assert not each.ip.is_loopback
        assert not each.ip.is_link_local


# What is dialed


def announced(node: str, *addresses: str) -> Announcement:
    return Announcement(node, "oslo", TAG, addresses)


def test_only_wanted_nodes_are_dialed_and_one_in_a_while() -> None:
    chosen = Hints()
    found = [announced(NODE, "10.1.2.8:8601", "10.1.2.9:8601"), announced(OTHER, "10.1.2.7:8601")]
    dials = [chosen.choose(found, lambda node: node == NODE, now / 10) for now in range(30)]
    assert [each for each in dials if each] == [(NODE, "10.1.2.8:8601"), (NODE, "10.1.2.9:8601")]
    assert DIAL_SECONDS == 1.0


def test_forged_hints_do_not_keep_the_right_one_from_its_turn() -> None:
    chosen, now, right = Hints(), 0.0, (NODE, "10.1.2.9:8601")
    dialed: list[tuple[str, str] | None] = []
    while right not in dialed:
        # New wrong addresses all the time, as many as can be announced.
        forged = [announced(NODE, f"10.1.2.{10 + n}:{8000 + int(now)}") for n in range(60)]
        dialed.append(chosen.choose([*forged, announced(*right)], lambda _: True, now))
        now += DIAL_SECONDS
        assert now < 400


def test_a_wrong_key_ends_a_hint_for_a_while() -> None:
    chosen, found = Hints(), [announced(NODE, "10.1.2.9:8601")]
    assert chosen.choose(found, lambda _: True, 0.0) is not None
    chosen.refused(NODE, "10.1.2.9:8601", 0.0)
    assert chosen.choose(found, lambda _: True, WRONG_KEY_SECONDS - 1) is None
    assert chosen.choose(found, lambda _: True, WRONG_KEY_SECONDS + 1) is not None


def test_an_address_that_does_not_answer_is_tried_less_and_less() -> None:
    chosen, found, tries = Hints(), [announced(NODE, "10.1.2.9:8601")], []
    for now in range(3600):
        if chosen.choose(found, lambda _: True, float(now)) is not None:
            chosen.failed(NODE, "10.1.2.9:8601", float(now))
            tries.append(now)
    assert tries[:4] == [0, 20, 60, 140]
    assert len(tries) < 20


def test_what_is_remembered_of_hints_is_bounded() -> None:
    chosen = Hints()
    for number in range(2 * REMEMBERED_MAX):
        chosen.refused(NODE, f"10.1.2.9:{1024 + number}", 0.0)
    assert len(chosen._tried) == REMEMBERED_MAX


# mDNS on the loopback interface


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let discovery use the loopback interface only; skip where it carries no multicast."""
    monkeypatch.setattr(discovery, "private_interfaces", lambda: LOOPBACK)
    group = ("224.0.0.251", 15353)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.settimeout(1)
            receiver.bind(group)
            member = socket.inet_aton(group[0]) + socket.inet_aton("127.0.0.1")
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            sender.sendto(b"x", group)
            receiver.recv(1)
        except OSError as error:
            pytest.skip(f"the loopback interface carries no multicast: {error}")


@contextmanager
def node(folder: Path, name: str) -> Iterator[PeerService]:
    options = PeerOptions(name, membership=FAST, discovery=True)
    with (
        ElkynStore(folder / f"{name}.sys") as tree,
        PeerService(identity(folder, name), tree, options) as service,
    ):
        yield service


def names(service: PeerService) -> set[str]:
    assert service.discovery is not None
    return {each.name for each in service.discovery.found()}


def forge(label: str, port: int, address: str, **txt: str) -> ServiceInfo:
    return ServiceInfo(
        SERVICE, f"{label}.{SERVICE}", port=port, server=f"{label}.local.",
        addresses=[socket.inet_aton(address)], properties=txt,
    )  # fmt: skip


@contextmanager
def hostile(*services: ServiceInfo) -> Iterator[None]:
    """Another program of the network, which announces services."""
    responder = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        for each in services:
            responder.registry.async_add(each)
            responder.send(responder.generate_service_broadcast(each, None))
        yield
    finally:
        responder.close()


@pytest.mark.slow  # the delays of mDNS (RFC 6762), and those of the membership protocol
@pytest.mark.usefixtures("loopback")
def test_a_member_that_has_moved_is_found_in_spite_of_forged_announcements(tmp_path: Path) -> None:
    with node(tmp_path, "oslo") as oslo:
        with node(tmp_path, "rome") as rome:
            rome.join(oslo.invite())
            eventually(lambda: names(rome) == {"oslo"} and names(oslo) == {"rome"})
        eventually(lambda: names(oslo) == set())  # it has withdrawn its announcement
        own = oslo.identity.id
    with socket.create_server(("127.0.0.1", 0)) as decoy, node(tmp_path, "bern") as bern:
        bern.invite()  # another network: its key answers at its address
        decoy.setblocking(False)
        port = decoy.getsockname()[1]
        tag = network_tag("any")
        forged = [
            forge("wrong-key", bern.port, "127.0.0.1", v="1", id=own, name="oslo", net=tag),
            forge("outside", port, "8.8.8.8", v="1", id=own, name="oslo", net=tag),
            forge("no-member", port, "127.0.0.1", v="1", id=OTHER, name="eve", net=tag),
            forge("long", port, "127.0.0.1", v="1", id=own, name="oslo", net=tag, x="x" * 200,
                  y="y" * 200),
        ]  # fmt: skip
        with hostile(*forged), node(tmp_path, "rome") as rome, node(tmp_path, "oslo") as oslo:
            # Each listens on another port than before.
            eventually(lambda: {"oslo", "bern", "eve"} <= names(rome))
            eventually(lambda: any(each.state == "alive" for each in rome.nodes()[1:]))
            assert {each.member.name for each in rome.nodes()} == {"oslo", "rome"}
            with pytest.raises(BlockingIOError):
                decoy.accept()  # neither what is no member, nor the too long record, was dialed


@pytest.mark.nightly  # the delays of mDNS
@pytest.mark.usefixtures("loopback")
def test_a_flood_of_services_is_bounded_and_known_ones_stay() -> None:
    own = Listening(NODE, "oslo", TAG, "127.0.0.1", 8601)
    with (
        LocalDiscovery(OTHER, lambda: None) as reader,
        LocalDiscovery(NODE, lambda: own),
    ):
        eventually(lambda: {each.node for each in reader.found()} == {NODE})
        assert reader.problem == "it is in no network"
        flood = [
            forge(f"n{n}", 8601, "127.0.0.1", v="1", id=f"{n:064x}", name=f"n{n}", net=TAG)
            for n in range(2 * SERVICES_MAX)
        ]
        with hostile(*flood):
            eventually(lambda: len(reader.found()) == SERVICES_MAX)
            assert NODE in {each.node for each in reader.found()}


def test_a_node_that_is_not_announced_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "private_interfaces", list)
    own = Listening(NODE, "oslo", TAG, "127.0.0.1", 8601)
    with LocalDiscovery(NODE, lambda: own) as alone:
        eventually(lambda: "no interface" in str(alone.problem))
    assert "it listens on 127.0.0.1" in str(discovery._problem_of(own, False))
    hidden = Listening(NODE, "oslo", TAG, "", 0)
    assert "peer_listen" in str(discovery._problem_of(hidden, False))


def age(responder: Zeroconf, record_type: int) -> None:
    """Let the records of a type be older than they are valid, as if their node had sent nothing since."""
    cache = responder.cache
    found = [
        each for name in cache.names() for each in cache.entries_with_name(name)
        if each.type == record_type
    ]  # fmt: skip
    for each in found:
        each.created -= (each.ttl + 1) * 1000.0


def test_a_node_that_vanishes_without_a_goodbye_is_forgotten() -> None:
    gone = Listening(NODE, "oslo", TAG, "127.0.0.1", 8601)

    def records() -> list[Any]:
        """What the node announces, as of now."""
        service = forge("gone", gone.port, "127.0.0.1", **txt_of(gone))
        return [service.dns_service(), service.dns_text(), *service.dns_addresses()]

    pointer = forge("gone", gone.port, "127.0.0.1").dns_pointer()
    reader = LocalDiscovery(OTHER, lambda: None)
    reader._bound = tuple(LOOPBACK)
    responder = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        responder.cache.async_add_records([pointer, *records()])
        reader._read(responder, 0.0)
        assert [each.node for each in reader.found()] == [NODE]
        # Its own records are no longer valid. It is asked for, and listed for a while.
        for record_type in (_TYPE_SRV, _TYPE_TXT, _TYPE_A):
            age(responder, record_type)
        reader._read(responder, _FORGET_SECONDS - 1)
        assert [each.node for each in reader.found()] == [NODE]
        reader._read(responder, _FORGET_SECONDS + 1)
        assert reader.found() == ()
        # It comes back while the pointer to it is still known, which others keep for longer.
        responder.cache.async_add_records(records())
        reader._read(responder, _FORGET_SECONDS + _IGNORE_SECONDS + 2)
        assert [each.node for each in reader.found()] == [NODE]
        age(responder, _TYPE_PTR)
        reader._read(responder, _FORGET_SECONDS + _IGNORE_SECONDS + 3)
        assert reader.found() == ()
    finally:
        responder.close()


ANNOUNCING = """
import sys, time
from lake.peers.members import discovery
from lake.peers.members.announcements import Listening
from tests.test_peers_discovery import LOOPBACK, NODE, TAG
discovery._TTL_SECONDS = 2
own = Listening(NODE, "oslo", TAG, "127.0.0.1", 8601)
with discovery.LocalDiscovery(NODE, lambda: own, lambda: LOOPBACK):
    time.sleep(600)
"""


@pytest.mark.nightly  # a process, and the delays of mDNS
@pytest.mark.usefixtures("loopback")
def test_a_killed_node_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_FORGET_SECONDS", 3.0)
    with LocalDiscovery(OTHER, lambda: None) as reader:
        process = subprocess.Popen(
            [sys.executable, "-c", ANNOUNCING], cwd=Path(__file__).parents[1]
        )
        try:
            eventually(lambda: {each.node for each in reader.found()} == {NODE})
        finally:
            process.kill()  # it says no goodbye
            process.wait()
        assert {each.node for each in reader.found()} == {NODE}
        eventually(lambda: reader.found() == ())

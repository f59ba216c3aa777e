"""Which addresses of other nodes are dialed, and which one a node announces."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.peers.transport.addresses import dialable, network_of, parse_address, reachable_host
from sennit_core.errors import UsageError

OFFICE, LOCAL = "192.168.3.4:8601", "127.0.0.1:8601"
SPECIAL = ["169.254.1.1:8601", "[fe80::1]:8601", "224.0.0.1:8601", "0.0.0.0:8601", "[::]:8601"]


def test_a_node_on_loopback_dials_other_machines_before_its_own() -> None:
    assert dialable([LOCAL, OFFICE], from_loopback=True) == [OFFICE, LOCAL]


def test_a_node_of_a_network_dials_no_service_of_its_own_machine() -> None:
    own = [LOCAL, "localhost:9000", "[::1]:8601", "[::ffff:127.0.0.1]:8601"]
    assert dialable([*own, OFFICE, "oslo.example.org:8601"], from_loopback=False) == [
        OFFICE, "oslo.example.org:8601",
    ]  # fmt: skip


@pytest.mark.parametrize("from_loopback", [True, False])
def test_special_and_malformed_addresses_are_not_dialed(*, from_loopback: bool) -> None:
    malformed = ["", "host", "host:22", "host:99999", "a b:8601", "::1:8601", "host:８６０１"]
    assert dialable([*SPECIAL, *malformed], from_loopback=from_loopback) == []


def test_only_the_first_addresses_count() -> None:
    assert len(dialable([f"10.0.0.{n}:8601" for n in range(100)], from_loopback=False)) == 8


@given(st.text(max_size=40))
def test_an_address_is_parsed_or_refused(text: str) -> None:
    try:
        host, port = parse_address(text)
    except UsageError:
        return
    assert parse_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") == (host, port)


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::3", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_all_addresses_of_a_machine_count_together(host: str, owner: str) -> None:
    assert network_of(host) == owner


def test_a_listener_on_all_addresses_announces_one_of_the_machine() -> None:
    assert reachable_host("192.0.2.7") == "192.0.2.7"
    for everywhere in ("0.0.0.0", "::"):
        found = reachable_host(everywhere)
        assert found is None or not ipaddress.ip_address(found).is_unspecified

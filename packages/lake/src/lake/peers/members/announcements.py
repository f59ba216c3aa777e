"""What a node announces on its local network by DNS-SD (RFC 6763), and how others read it.

Anybody on the network can announce anything, so nothing here is believed: an announcement is a hint
where a node may listen. Only the TLS handshake, with the key of the node that is expected, decides
who answers there. So that a forged one makes no node connect to other services, an address counts only
if it is a private one in a network of this node's own interfaces.

A TXT record has the node's id, its name and a hash of its network's id: no secrets, no datasets.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lake.peers.members.roster import check_node_name
from lake.peers.transport.addresses import parse_address
from sennit_core.errors import SennitError

__all__ = [
    "ANNOUNCED_ADDRESSES_MAX",
    "SERVICE",
    "TXT_BYTES_MAX",
    "Announcement",
    "Interface",
    "Listening",
    "network_tag",
    "own_addresses",
    "read_announcement",
    "txt_of",
]

SERVICE = "_sennit._tcp.local."
TXT_BYTES_MAX = 512
"""An own one has at most 170 bytes."""
ANNOUNCED_ADDRESSES_MAX = 4
_VERSION = b"1"
_ID = re.compile(r"[0-9a-f]{64}")
_TAG = re.compile(r"[0-9a-f]{16}")

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Listening:
    """What a node may announce.

    Args:
        node: Its id.
        name: What it is called.
        network: As of `network_tag`.
        host: The address that its listener is bound to; "" if it does not listen.
        port: The listener's port.
    """

    node: str
    name: str
    network: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """What was announced of a node; none of it is verified.

    Args:
        node: Its id.
        name: What it is called.
        network: The tag of its network, as of `network_tag`.
        addresses: Where it may listen, as `host:port`.
    """

    node: str
    name: str
    network: str
    addresses: tuple[str, ...]


def network_tag(network: str) -> str:
    """Return what distinguishes the announcements of one network, without its id."""
    return hashlib.sha256(b"sennit-network-1\n" + network.encode()).hexdigest()[:16]


def txt_of(own: Listening) -> dict[str, str]:
    """Return the TXT record of a node."""
    return {"v": _VERSION.decode(), "id": own.node, "name": own.name, "net": own.network}


def own_addresses(host: str, interfaces: Sequence[Interface]) -> list[Address]:
    """Return the addresses of this machine's interfaces at which a listener is reached.

    Args:
        host: The IP address that it is bound to.
        interfaces: Those that are announced on.
    """
    bound = ipaddress.ip_address(host.partition("%")[0])
    if not bound.is_unspecified:
        return [each.ip for each in interfaces if each.ip == bound]
    # One that is bound to `::` accepts IPv4 too (ipv6(7), IPV6_V6ONLY).
    return [each.ip for each in interfaces if each.version <= bound.version]


def read_announcement(
    txt: Mapping[bytes, bytes | None],
    addresses: Iterable[str],
    port: int,
    interfaces: Sequence[Interface],
) -> Announcement | None:
    """Return what a service announces; None if it is not that of a node that may be dialed.

    Args:
        txt: Its TXT record.
        addresses: Its IP addresses.
        port: Its port.
        interfaces: Of this machine, with the networks in which others may be.
    """
    if txt.get(b"v") != _VERSION:
        return None
    node, name, network = (_text(txt.get(key)) for key in (b"id", b"name", b"net"))
    if not (_ID.fullmatch(node) and _TAG.fullmatch(network)):
        return None
    try:
        check_node_name(name)
        found = [_address(each, port) for each in addresses if _is_near(each, interfaces)]
    except SennitError:
        return None
    if not found:
        return None
    return Announcement(node, name, network, tuple(found[:ANNOUNCED_ADDRESSES_MAX]))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", errors="replace")


def _address(host: str, port: int) -> str:
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    parse_address(text)  # refuses ports of the system's own services
    return text


def _is_near(host: str, interfaces: Sequence[Interface]) -> bool:
    """Return whether an address is of another machine, or this one, in a network of this one."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    networks = [each.network for each in interfaces if ip in each.network]
    edges = {edge for each in networks for edge in (each.network_address, each.broadcast_address)}
    return bool(networks) and ip not in edges

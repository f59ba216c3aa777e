"""Which addresses of peers this node dials.

Peers announce where they listen, so without a check one of them could make every other node connect to
a service in its own network. A connection sends only a TLS handshake before the node at the other end
has proved its key, and even that goes only to addresses that a node of this network can have.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from sennit_core.errors import UsageError

__all__ = ["ADDRESSES_MAX", "dialable", "network_of", "parse_address", "reachable_host"]

ADDRESSES_MAX = 8
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PORT_MIN = 1024
# Of a network that does not exist (RFC 5737, RFC 3849); nothing is sent there.
_OUTSIDE = {4: (socket.AF_INET, "192.0.2.1"), 6: (socket.AF_INET6, "2001:db8::1")}


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and port of `host:port` or `[IPv6]:port`.

    Raises:
        UsageError: It is none, or the port is below 1024.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_ip = _ip(bare) is not None
    if not (is_ip or (_HOST.fullmatch(bare) and ":" not in host)) or (":" in bare and bare == host):
        raise UsageError(f"{text[:80]!r} is not an address", hint="use host:port or [IPv6]:port")
    if not (port.isascii() and port.isdigit() and _PORT_MIN <= int(port) <= 65535):
        raise UsageError(f"{text[:80]!r} has no port from {_PORT_MIN} to 65535")
    return bare, int(port)


def dialable(addresses: Iterable[str], *, from_loopback: bool) -> list[str]:
    """Return those of a peer's addresses that this node may dial.

    Args:
        addresses: As the peer announced them.
        from_loopback: Whether no other machine reaches this node, as it listens on a loopback address
            or not at all. Such a node may be one of several on a machine, so it dials loopback
            addresses too, after the others.
    """
    found, local = [], []
    for text in list(addresses)[:ADDRESSES_MAX]:
        try:
            host, _ = parse_address(text)
        except UsageError:
            continue
        ip = _ip(host)
        is_loopback = ip.is_loopback if ip is not None else host.casefold() == "localhost"
        is_special = ip is not None and (
            ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved
        )
        if is_loopback:
            local.append(text)
        elif not is_special:
            found.append(text)
    return [*found, *local] if from_loopback else found


def reachable_host(listens_on: str) -> str | None:
    """Return the host under which others reach a listener; None if there is none.

    Args:
        listens_on: The address that it is bound to. For all addresses of the machine (`0.0.0.0`) it is
            that from which the machine would connect to others.
    """
    ip = _ip(listens_on)
    if ip is None or not ip.is_unspecified:
        return listens_on
    family, outside = _OUTSIDE[ip.version]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
        except OSError:  # no route: the machine is in no network
            return None


def network_of(host: str) -> str:
    """Return whose an IP address is, as far as limits of one machine go.

    It is the address itself, or the first 64 bits of an IPv6 one: a machine has all addresses of its
    network (RFC 4291, 2.5.4).
    """
    ip = _ip(host.partition("%")[0])
    if ip is None or ip.version == 4:
        return host if ip is None else str(ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(ip, "ipv4_mapped", None)
    return mapped or ip

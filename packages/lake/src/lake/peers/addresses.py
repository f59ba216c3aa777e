"""Which addresses of peers this node dials.

Peers announce where they listen, so without a check one of them could make every other node connect to
a service in its own network. A connection sends only a TLS handshake before the node at the other end
has proved its key, and even that goes only to addresses that a node of this network can have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from sennit_core.errors import UsageError

__all__ = ["ADDRESSES_MAX", "dialable", "parse_address"]

ADDRESSES_MAX = 8
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PORT_MIN = 1024


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
        from_loopback: Whether this node itself listens on a loopback address, as the nodes of one
            machine do; then it dials only such addresses, and otherwise none of them.
    """
    found = []
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
        if is_loopback == from_loopback and not (is_special and not is_loopback):
            found.append(text)
    return found


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(ip, "ipv4_mapped", None)
    return mapped or ip

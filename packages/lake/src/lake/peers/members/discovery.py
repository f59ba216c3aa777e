"""Announces this node on its local networks, and lists the nodes that are announced there.

    with LocalDiscovery(node_id, describe) as discovery:
        discovery.found()

mDNS (RFC 6762) runs in threads of its own: a flood of packets delays no heartbeat. What zeroconf keeps of
packets is bounded by it; of its records only those of `SERVICES_MAX` services are read.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lake.peers.members.announcements import (
    SERVICE,
    TXT_BYTES_MAX,
    Announcement,
    Interface,
    Listening,
    own_addresses,
    read_announcement,
    txt_of,
)
from sennit_core.errors import Unsupported
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

__all__ = ["SERVICES_MAX", "LocalDiscovery", "private_interfaces"]

_log = get_logger(__name__)

SERVICES_MAX = 64
_INTERFACES_MAX = 16
_TICK_SECONDS = 1.0
_INTERFACE_SECONDS = 10.0
"""Between looks at the interfaces: a laptop that changes its network is announced anew."""
_TTL_SECONDS = 120
"""Of own records; RFC 6762, 10, has that for what changes with addresses."""
_FORGET_SECONDS = 180.0
"""After which a service without readable records is forgotten: a TTL, and time to ask again."""
_IGNORE_SECONDS = 60.0
_IGNORED_MAX = 1024
_ASK_SECONDS = 1.0


def private_interfaces() -> list[Interface]:
    """Return the private addresses of this machine with their networks, none of them loopback."""
    import ifaddr

    found: list[Interface] = []
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            host = each.ip if isinstance(each.ip, str) else each.ip[0]
            interface = ipaddress.ip_interface(f"{host}/{each.network_prefix}")
            if interface.ip.is_private and not (
                interface.ip.is_loopback or interface.ip.is_link_local
            ):
                found.append(interface)
    return found[:_INTERFACES_MAX]


class LocalDiscovery:
    """Announces this node, and lists others; a context manager, and thread-safe.

    Args:
        node: The id of this node.
        describe: Returns what there is to announce now; None in no network.
        interfaces: Returns the interfaces to use; None for `private_interfaces`.

    Raises:
        Unsupported: The library zeroconf is not installed.
    """

    def __init__(
        self,
        node: str,
        describe: Callable[[], Listening | None],
        interfaces: Callable[[], Sequence[Interface]] | None = None,
    ) -> None:
        try:
            import ifaddr  # noqa: F401
            import zeroconf  # noqa: F401
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"discovery on the local network without the library {error.name}",
                hint="pip install zeroconf, or set network.discovery to false",
            ) from None
        self._node = node
        self._describe = describe
        self._interfaces = interfaces or private_interfaces
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lake-discovery", daemon=True)
        # Replaced as a whole, so that other threads need no lock.
        self._found: tuple[Announcement, ...] = ()
        self.problem: str | None = "mDNS is starting"
        """Why this node is not announced; None if it is."""
        # What follows is used by the thread alone.
        self._responder: Zeroconf | None = None
        self._bound: tuple[Interface, ...] = ()
        self._looked_at = float("-inf")
        self._announced: ServiceInfo | None = None
        self._announced_as: object = None
        # By the service's name: what it said last, and when that could be read.
        self._services: dict[str, tuple[Announcement, float]] = {}
        # When the records of a service were asked for.
        self._asked: dict[str, float] = {}
        # Services that are none of nodes, or do not answer, and until when they are not looked at.
        self._ignored: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Withdraw the announcement, and end; may be called twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def found(self) -> tuple[Announcement, ...]:
        """Return what other nodes announce now; nothing of it is verified."""
        return self._found

    # In the thread

    def _run(self) -> None:
        from zeroconf import Error

        while True:
            try:
                self._tick(time.monotonic())
            except (OSError, Error) as error:
                # Of the sockets of an interface that is gone, or without multicast.
                self._set_problem(f"mDNS cannot be used: {error}")
                self._close_responder()
            except Exception:  # noqa: BLE001 - logged; no packet of another machine may end this
                self._set_problem("an unexpected error, see the log")
                _log.exception("discovery on the local network: an unexpected error")
                self._close_responder()
            if self._ended.wait(_TICK_SECONDS):
                break
        self._close_responder()

    def _tick(self, now: float) -> None:
        if now - self._looked_at >= _INTERFACE_SECONDS:
            self._looked_at = now
            interfaces = tuple(self._interfaces())
            if interfaces != self._bound or self._responder is None:
                self._close_responder()
                self._open_responder(interfaces)
        if self._responder is None:
            return
        self._announce(self._responder)
        self._read(self._responder, now)

    def _open_responder(self, interfaces: tuple[Interface, ...]) -> None:
        from zeroconf import IPVersion, ServiceBrowser, Zeroconf

        self._bound = interfaces
        hosts = [str(each.ip) for each in interfaces if each.version == 4]
        if not hosts:
            self._set_problem("no interface of this machine has a private IPv4 address")
            return
        self._responder = Zeroconf(interfaces=hosts, ip_version=IPVersion.V4Only)
        # Its records are read from the cache; the browser keeps asking for them.
        ServiceBrowser(self._responder, SERVICE, handlers=[lambda **_change: None])

    def _close_responder(self) -> None:
        responder, self._responder = self._responder, None
        self._announced = self._announced_as = None
        self._services.clear()
        self._asked.clear()
        self._ignored.clear()
        self._found = ()
        if responder is not None:
            responder.close()  # withdraws the announcement

    def _announce(self, responder: Zeroconf) -> None:
        from zeroconf import ServiceInfo

        own = self._describe()
        addresses = [] if own is None or not own.host else own_addresses(own.host, self._bound)
        self._set_problem(_problem_of(own, bool(addresses)))
        wanted = (own, addresses) if addresses else None
        if wanted == self._announced_as:
            return
        if self._announced is not None:
            responder.unregister_service(self._announced)
        self._announced, self._announced_as = None, wanted
        if own is None or not addresses:
            return
        label = own.node[:32]
        self._announced = ServiceInfo(
            SERVICE, f"{label}.{SERVICE}", port=own.port, properties=txt_of(own),
            server=f"sennit-{label}.local.", addresses=[each.packed for each in addresses],
            host_ttl=_TTL_SECONDS, other_ttl=_TTL_SECONDS,
        )  # fmt: skip
        # Without probes for conflicts: the name is of the key, and one who forges it is not to
        # silence this node.
        responder.register_service(self._announced, cooperating_responders=True)

    def _set_problem(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            if problem is not None:
                _log.warning("not announced on the local network: %s", problem)

    def _read(self, responder: Zeroconf, now: float) -> None:
        names = self._names(responder, now)
        self._services = {name: each for name, each in self._services.items() if name in names}
        infos = {name: _cached(responder, name) for name in names}
        # One question in each tick, in turn: a service may be announced that never answers.
        self._asked = {name: at for name, at in self._asked.items() if name in names}
        missing = [name for name, info in infos.items() if info is None]
        asked = min(missing, key=lambda name: self._asked.get(name, 0.0), default=None)
        if asked is not None:
            self._asked[asked] = now
            infos[asked] = _ask(responder, asked)
        for name, info in infos.items():
            if info is not None:
                self._note(name, info, now)
            elif name in self._services:
                if now - self._services[name][1] >= _FORGET_SECONDS:
                    self._ignore(name, now)
            elif name == asked:
                self._ignore(name, now)
        found = (each for each, _ in self._services.values())
        self._found = tuple(each for each in found if each.node != self._node)

    def _names(self, responder: Zeroconf, now: float) -> list[str]:
        """Return the services to look at: those that are known, and new ones as far as there is room."""
        from zeroconf import current_time_millis

        time_ms = current_time_millis()
        names = dict.fromkeys(
            str(each.alias)
            for each in responder.cache.entries_with_name(SERVICE)
            if hasattr(each, "alias") and not each.is_expired(time_ms)  # a PTR record
        )
        self._ignored = {
            name: until for name, until in self._ignored.items() if until > now and name in names
        }
        known = [name for name in names if name in self._services]
        others = [
            name for name in names if name not in self._services and name not in self._ignored
        ]
        return [*known, *others][:SERVICES_MAX]

    def _note(self, name: str, info: ServiceInfo, now: float) -> None:
        announcement = None
        if len(info.text) <= TXT_BYTES_MAX and info.port is not None:
            announcement = read_announcement(
                info.properties, info.parsed_addresses(), info.port, self._bound
            )
        if announcement is None:
            self._ignore(name, now)
        else:
            self._services[name] = (announcement, now)

    def _ignore(self, name: str, now: float) -> None:
        self._services.pop(name, None)
        self._ignored[name] = now + _IGNORE_SECONDS
        while len(self._ignored) > _IGNORED_MAX:
            del self._ignored[next(iter(self._ignored))]


def _problem_of(own: Listening | None, has_addresses: bool) -> str | None:
    if own is None:
        return "it is in no network"
    if not own.host:
        return "it does not listen for other nodes (network.peer_listen)"
    if not has_addresses:
        return (
            f"it listens on {own.host}, which is no private address that other machines reach; "
            "set network.peer_host"
        )
    return None


def _cached(responder: Zeroconf, name: str) -> ServiceInfo | None:
    """Return the records of a service that are known; None if some are not."""
    from zeroconf import BadTypeInNameException, ServiceInfo

    try:
        info = ServiceInfo(SERVICE, name)
    except BadTypeInNameException:
        return None
    return info if info.load_from_cache(responder) else None


def _ask(responder: Zeroconf, name: str) -> ServiceInfo | None:
    """Ask for the records of a service; None if it does not answer."""
    from zeroconf import BadTypeInNameException, ServiceInfo

    try:
        info = ServiceInfo(SERVICE, name)
    except BadTypeInNameException:
        return None
    return info if info.request(responder, _ASK_SECONDS * 1000) else None

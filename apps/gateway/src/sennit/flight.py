"""Flight SQL of a node: the lake's server with the node's tokens, address and limits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lake.routes.requester import as_requester
from lake.statements.limits import Requester
from sennit.node import Node
from sennit.settings import NetworkSettings
from sennit_core.errors import Conflict

__all__ = ["serve_flight"]

_audit = logging.getLogger("sennit.audit")


@contextmanager
def serve_flight(node: Node, port: int) -> Iterator[str | None]:
    """Serve Flight SQL while the context is open; yield its URL, None if it is off.

    Raises:
        Conflict: The port is in use.
    """
    network = node.settings.network
    if not network.flight:
        yield None
        return
    from lake.flight import FlightSqlServer

    def authenticate(token: str) -> Requester | None:
        principal = node.tokens.principal(token)
        if principal is None or not principal.may("reader"):  # a worker's token
            return None
        return as_requester(principal)

    try:
        server = FlightSqlServer(
            node.lake,
            authenticate,
            host=network.host,
            port=port,
            tls=_tls(network),
            ingest_bytes_max=node.settings.storage.upload_bytes_max,
            audit=_audit,
        )
    except Conflict as error:
        raise Conflict(str(error), hint="set network.flight_port, or use --no-flight") from error
    with server:
        node.flight_url = server.url
        try:
            yield server.url
        finally:
            node.flight_url = None


def _tls(network: NetworkSettings) -> tuple[bytes, bytes] | None:
    if network.tls_certificate is None or network.tls_key is None:
        return None
    return Path(network.tls_key).read_bytes(), Path(network.tls_certificate).read_bytes()

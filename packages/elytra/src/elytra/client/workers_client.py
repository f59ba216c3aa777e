"""The remote workers of a node, over its HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from elytra.client.transport import Transport

__all__ = ["WorkersClient"]


class WorkersClient:
    """The workers of the node that a client is connected to; changes need an admin.

    Args:
        transport: Sends the requests.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def show(self) -> dict[str, Any]:
        """Return the workers, how their results are checked, and the tokens that are excluded."""
        return dict(self._transport.json("GET", "/api/workers"))

    def invite(self, name: str = "worker") -> dict[str, Any]:
        """Create a token for one worker; return `{token, role}`, the token for the only time.

        Args:
            name: What the token is listed as.
        """
        document = {"name": name, "role": "worker"}
        return dict(self._transport.json("POST", "/api/tokens", document))

    def revoke(self, token_id: str) -> None:
        """Disconnect the workers with a token, and admit it no more.

        Raises:
            NotFound: There is no such token.
        """
        self._transport.request("DELETE", f"/api/tokens/{quote(token_id, safe='')}")

    def readmit(self, token_id: str) -> None:
        """Admit workers with an excluded token again.

        Raises:
            NotFound: It is not excluded.
        """
        query = quote(token_id, safe="")
        self._transport.request("DELETE", f"/api/workers/excluded?token={query}")

"""The cleanup of a node, over its HTTP API: what it removes, what can be restored, what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from elytra.client.transport import Transport

__all__ = ["CleanupClient"]


class CleanupClient:
    """Shows and steers the cleanup of unused datasets.

    Args:
        transport: Sends the requests.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def plan(self) -> list[dict[str, Any]]:
        """Return what the next run would remove, and why some of it stays; needs an admin."""
        return list(self._transport.json("GET", "/api/cleanup"))

    def trash(self) -> list[dict[str, Any]]:
        """Return the datasets that were removed and can be restored; needs an admin."""
        return list(self._transport.json("GET", "/api/trash"))

    def restore(self, dataset: str, name: str | None = None) -> dict[str, Any]:
        """Put a dataset of the trash back, with all its versions; needs an admin.

        Args:
            dataset: Its name or id.
            name: Another name for it, if its own is in use.
        """
        path = f"/api/trash/{quote(dataset, safe='')}/restore"
        return dict(self._transport.json("POST", path, document={"name": name}))

    def keep(self, dataset: str) -> None:
        """Keep a dataset from the cleanup."""
        self._transport.request("PUT", f"/api/datasets/{quote(dataset, safe='')}/keep")

    def release(self, dataset: str) -> None:
        """Let the cleanup remove a dataset again."""
        self._transport.request("DELETE", f"/api/datasets/{quote(dataset, safe='')}/keep")

"""The network of a node, over its HTTP API: who belongs to it, and how nodes come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from elytra.client.reports import last_report

if TYPE_CHECKING:
    from elytra.client.transport import Transport

__all__ = ["NetworkClient"]


class NetworkClient:
    """The network of the node that a client is connected to; all changes need an admin.

    Args:
        transport: Sends the requests.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def show(self) -> dict[str, Any]:
        """Return the network, this node, all nodes with their states, and those that wait."""
        return dict(self._transport.json("GET", "/api/network"))

    def check(self) -> dict[str, Any]:
        """Examine the network; return `{ok, findings}`, each finding with what to do."""
        return dict(self._transport.json("GET", "/api/network/check"))

    def map(self) -> dict[str, Any]:
        """Return the nodes, the connections between all of them, and what each node lacks."""
        return dict(self._transport.json("GET", "/api/network/map"))

    def heal(
        self,
        dataset: str | None = None,
        *,
        on_progress: Callable[[Mapping[str, Any]], object] = lambda report: None,
    ) -> dict[str, Any]:
        """Repair the copies of a shared dataset, or of all, now; return the last report.

        Args:
            dataset: Id or name; None for all.
            on_progress: Called with each report.

        Raises:
            NotFound: The dataset is not shared.
        """
        document = {"dataset": dataset}
        return last_report(self._transport, "/api/network/heal", document, on_progress)

    def invite(self, *, seconds: float | None = None, admin: bool = False) -> str:
        """Return an invite for one node; found a network if the node is in none.

        Args:
            seconds: For how long it can be used; None for a day.
            admin: Whether the new node may admit and revoke others.
        """
        body: dict[str, Any] = {"admin": admin}
        if seconds is not None:
            body["seconds"] = seconds
        return str(self._transport.json("POST", "/api/network/invites", document=body)["invite"])

    def discover(self) -> dict[str, Any]:
        """Return the nodes that are announced on the local network, as `{announced, problem, nodes}`.

        Nothing of it is verified: compare the fingerprint of a node with its owner before it counts.

        Raises:
            Conflict: The node does not search there.
        """
        return dict(self._transport.json("GET", "/api/network/discover"))

    def join(self, invite: str) -> dict[str, Any]:
        """Join the network that an invite is of; return what `show` returns."""
        document = {"invite": invite}
        return dict(self._transport.json("POST", "/api/network/join", document=document))

    def ask_to_join(self, address: str, node: str) -> dict[str, Any]:
        """Ask the node at an address to be admitted.

        Args:
            address: `host:port` of its port for peers.
            node: Its id.

        Raises:
            WaitingToJoin: Nobody there has accepted this node yet.
        """
        document = {"address": address, "node": node}
        return dict(self._transport.json("POST", "/api/network/join", document=document))

    def accept(self, fingerprint: str) -> dict[str, Any]:
        """Admit a node that waits, by its whole fingerprint; return the member."""
        document = {"fingerprint": fingerprint}
        return dict(self._transport.json("POST", "/api/network/accept", document=document))

    def revocable(self, node: str) -> dict[str, Any]:
        """Return the member, by name or id, that `revoke` would remove; raises as it."""
        return dict(self._transport.json("GET", f"/api/network/nodes/{quote(node, safe='')}"))

    def revoke(self, node: str) -> dict[str, Any]:
        """Remove a node, by name or id, for ever; return the member."""
        path = f"/api/network/nodes/{quote(node, safe='')}"
        return dict(self._transport.json("DELETE", path))

    def consequences_of_leaving(self) -> dict[str, Any]:
        """Return the names of the datasets that others get no new versions of, and of those gone here."""
        return dict(self._transport.json("GET", "/api/network/leave"))

    def leave(
        self,
        *,
        wait_seconds: float = 0.0,
        on_progress: Callable[[Mapping[str, Any]], object] = lambda report: None,
    ) -> dict[str, Any]:
        """Leave the network; return the last report, whose `left` says whether the node has left.

        Args:
            wait_seconds: How long to wait until other nodes hold what this one does; 0 leaves at once.
            on_progress: Called with each report.
        """
        document = {"waitSeconds": wait_seconds}
        return last_report(self._transport, "/api/network/leave", document, on_progress)

    # Queued appends

    def queue(self) -> list[dict[str, Any]]:
        """Return the user's appends that wait for other nodes, or that these refused; all for an admin."""
        return list(self._transport.json("GET", "/api/network/queue"))

    def unqueue(self, append: str, *, forget: bool = False) -> dict[str, Any]:
        """Take an append back, or remove one that has ended; return it.

        Args:
            append: Its id.
            forget: Whether to remove it although the other node may have committed it.

        Raises:
            Conflict: It may be committed.
        """
        path = f"/api/network/queue/{quote(append, safe='')}"
        query = "?forget=true" if forget else ""
        return dict(self._transport.json("DELETE", path + query)["removed"])

    def requeue(self, append: str) -> dict[str, Any]:
        """Queue an append again that was refused, or has expired; return the new one."""
        path = f"/api/network/queue/{quote(append, safe='')}/retry"
        return dict(self._transport.json("POST", path))

    # Sharing

    def sharing(self, dataset: str) -> dict[str, Any]:
        """Return how a dataset is shared, who writes it, and the state of its copies."""
        return dict(self._transport.json("GET", _sharing(dataset)))

    def share(
        self,
        dataset: str,
        nodes: Sequence[str] | None,
        *,
        copies: int | None = None,
        pins: Sequence[str] = (),
        only: Sequence[str] = (),
        read_only: bool | None = None,
    ) -> dict[str, Any]:
        """Share a dataset of the node with other nodes.

        Args:
            dataset: Id or name.
            nodes: Names or ids of nodes; None for all, those that join later too.
            copies: How many nodes are to hold each shard, the writer included; None for the node's
                setting `storage.replication`.
            pins: Nodes that hold every shard.
            only: The only nodes that may hold one; empty for any.
            read_only: Whether the nodes only read it; else their users may change rows, if the nodes
                are named. None is read only for all nodes, and not for named ones.
        """
        document = {
            "nodes": nodes,
            "copies": copies,
            "pins": list(pins),
            "only": list(only),
            "readOnly": read_only,
        }
        return dict(self._transport.json("PUT", _sharing(dataset), document=document))

    def unshare(self, dataset: str) -> bool:
        """Make a dataset private again; return whether it was shared."""
        return bool(self._transport.json("DELETE", _sharing(dataset))["deleted"])

    def hand_over(self, dataset: str, node: str) -> dict[str, Any]:
        """Let another node become the writer of a dataset; return what `sharing` returns.

        Args:
            dataset: Id or name.
            node: Name or id of a node that the dataset is shared with, whose admin accepts that.
        """
        path = f"/api/datasets/{quote(dataset, safe='')}/hand-over"
        return dict(self._transport.json("PUT", path, document={"node": node}))

    def undo_hand_over(self, dataset: str) -> dict[str, Any]:
        """End a hand-over that is not signed yet, at either node; return what `sharing` returns."""
        path = f"/api/datasets/{quote(dataset, safe='')}/hand-over"
        return dict(self._transport.json("DELETE", path))

    def accept_hand_over(self, dataset: str, owner: str | None = None) -> dict[str, Any]:
        """Begin to write a dataset that its writer hands over to the node; `sharing` says when it does.

        Args:
            dataset: Id or name.
            owner: The user who owns it then, and whose quota it counts for; None for the caller.
        """
        path = f"/api/datasets/{quote(dataset, safe='')}/hand-over/accept"
        return dict(self._transport.json("POST", path, document={"owner": owner}))

    def fork(self, dataset: str, name: str) -> dict[str, Any]:
        """Create a dataset of the node with the rows of another one, which may be of another node.

        Args:
            dataset: Id or name of the other one.
            name: The name of the new one.
        """
        path = f"/api/datasets/{quote(dataset, safe='')}/fork"
        return dict(self._transport.json("POST", path, document={"name": name}))


def _sharing(dataset: str) -> str:
    return f"/api/datasets/{quote(dataset, safe='')}/sharing"

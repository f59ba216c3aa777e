"""Claims: a node's signed word for which of its users asks another node, and for what.

A claim is valid for a minute, at one node, for one request, and only on a connection of the node that
signed it. So another member cannot use a stolen one. The node itself can repeat one, which has the effect of
a new one: the request is the same, and the policy of that moment applies. That is why no node stores used
claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lake.catalog.node_key import NodeKey
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement, sign
from lake.statements.limits import Requester
from sennit_core.errors import Denied
from sennit_core.hashing import canonical_json, sha256_hex
from sennit_core.records import Record

__all__ = ["CLAIM_SECONDS_MAX", "Claim", "Claims", "request_digest"]

_KIND = "claim"
_CLAIM_SECONDS = 60.0
CLAIM_SECONDS_MAX = 300.0
"""The longest validity that a claim may have."""
_NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """Who asks for what, and where.

    Args:
        user: The user's name at the signing node; "" for the process that opened its lake.
        role: The user's role there.
        network: The id of the network.
        audience: The id of the node that is asked.
        request: The digest of the request (`request_digest`).
    """

    user: str
    role: str
    network: str
    audience: str
    request: str


def request_digest(message: Message) -> str:
    """Return the digest of a request without its claim, which is a member `claim`."""
    members = {name: value for name, value in message.to_json().items() if name != "claim"}
    return sha256_hex(canonical_json({"kind": message.kind, "members": members}))


class Claims:
    """Signs claims of this node's users, and checks those of others.

    Args:
        key: The node's key.
        network: The id of the network.
    """

    def __init__(self, key: NodeKey, network: str) -> None:
        self._key = key
        self._network = network

    def sign(self, user: Requester, audience: str, message: Message, now: float) -> Statement:
        """Return a claim.

        Args:
            user: The user.
            audience: The node that is asked.
            message: The request, with any claim.
            now: Unix seconds.
        """
        claim = Claim(user.name, user.role, self._network, audience, request_digest(message))
        return sign(self._key, _KIND, claim.to_json(), now=now, seconds=_CLAIM_SECONDS)

    def check(self, claim: Statement, peer: str, message: Message, now: float) -> Requester:
        """Return the user of another node for whom a request is.

        Args:
            claim: The claim.
            peer: The node that the connection is with.
            message: The request.
            now: Unix seconds.

        Raises:
            Denied: The claim is of another node, time, network, audience or request.
        """
        body: Mapping[str, Any] = claim.verify(_KIND, now, signer=peer)
        found = Claim.from_known(body)
        if not 0 < claim.expires_at - claim.issued_at <= CLAIM_SECONDS_MAX:
            raise _refused(f"it counts for longer than {CLAIM_SECONDS_MAX:g} seconds")
        if (found.network, found.audience) != (self._network, self._key.id):
            raise _refused("it is for another node")
        if found.request != request_digest(message):
            raise _refused("it is for another request")
        if len(found.user) > _NAME_MAX or len(found.role) > _NAME_MAX:
            raise _refused(f"a name in it has more than {_NAME_MAX} letters")
        # They are in histories, logs and lists.
        if not (found.user.isprintable() and found.role.isprintable()):
            raise _refused("a name in it has control characters")
        return Requester(found.user, role=found.role, node=peer)


def _refused(reason: str) -> Denied:
    return Denied(f"accepting a claim of a peer: {reason}")

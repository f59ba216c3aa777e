"""Invites: a signed text that lets one node join the network, once.

The text holds what the new node needs to reach the inviting node and to recognize it, so a copied text
is enough, and no server in between has to be trusted:

    sennit-invite:<base64url of the signed statement's JSON>

Redeeming it proves the new node's key: the request is a statement that the new node signs, over the
invite's digest and its own certificate. The inviting node records the digest before it admits the node,
so an invite that is used twice, or is replayed after a crash, is refused.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lake.catalog.node_key import NodeKey
from lake.peers.members.roster import check_node_name
from lake.peers.transport.identity import Identity, id_of_certificate
from lake.peers.transport.signed import Statement, sign
from sennit_core.errors import BadInput, Denied, SennitError
from sennit_core.hashing import canonical_json
from sennit_core.units import KIB

__all__ = ["INVITE_SECONDS", "Invite", "JoinRequest"]

INVITE_SECONDS = 24 * 3600.0
_PREFIX = "sennit-invite:"
_KIND = "invite"
_JOIN = "join"
_TEXT_MAX = 16 * KIB
_JOIN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite that was made here, or that a text holds.

    Args:
        network: The network's id.
        node: The inviting node, which redeems it.
        addresses: Where that listens, `host:port`.
        admin: Whether the new node is to be an admin.
        statement: The signed form.
    """

    network: str
    node: str
    addresses: tuple[str, ...]
    admin: bool
    statement: Statement

    @classmethod
    def make(
        cls,
        key: NodeKey,
        network: str,
        addresses: Sequence[str],
        *,
        now: float,
        seconds: float = INVITE_SECONDS,
        admin: bool = False,
    ) -> Self:
        """Return a new invite of this node.

        Args:
            key: The node's key.
            network: The network's id.
            addresses: Where this node listens.
            now: Unix seconds.
            seconds: For how long it can be redeemed.
            admin: Whether the new node is to be an admin.
        """
        body = {
            "network": network,
            "addresses": list(addresses),
            "admin": admin,
            "nonce": secrets.token_hex(16),
        }
        statement = sign(key, _KIND, body, now=now, seconds=seconds)
        return cls(network, key.id, tuple(addresses), admin, statement)

    @property
    def text(self) -> str:
        """The text for the owner of the new node."""
        document = canonical_json(self.statement.to_json())
        return _PREFIX + base64.urlsafe_b64encode(document).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, text: str, now: float) -> Self:
        """Read a text, and check it as far as a node can that knows no other one yet.

        Raises:
            BadInput: It is not an invite.
            Denied: It has expired, or was changed.
        """
        try:
            statement = _parse(text)
        except (ValueError, TypeError, SennitError) as error:
            raise BadInput(
                "the invite", reason=str(error), hint="copy the whole line that net invite printed"
            ) from error
        return cls.of(statement, now)

    @classmethod
    def of(cls, statement: Statement, now: float) -> Self:
        """Return the invite of a statement; raises as `parse`."""
        body = statement.verify(_KIND, now)
        try:
            network, addresses = str(body["network"]), tuple(map(str, body["addresses"]))
            return cls(network, statement.signer, addresses, body["admin"] is True, statement)
        except (LookupError, TypeError) as error:
            raise BadInput("the invite", reason=f"a member is missing or wrong: {error}") from error


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A node's request to be admitted.

    Args:
        node: Its id.
        name: Its name.
        certificate: Its certificate, in DER.
        invite: The digest of the invite; "" if it has none, and waits to be accepted.
        statement: The signed form.
    """

    node: str
    name: str
    certificate: bytes
    invite: str
    statement: Statement

    @classmethod
    def make(
        cls, identity: Identity, name: str, host: str, *, now: float, invite: Invite | None = None
    ) -> Self:
        """Return the request of this node.

        Args:
            identity: This node's.
            name: What it is to be called.
            host: The id of the node that is asked: the request is valid there alone.
            now: Unix seconds.
            invite: The invite, if there is one.
        """
        body: Mapping[str, Any] = {
            "host": host,
            "name": check_node_name(name),
            "certificate": base64.b64encode(identity.certificate).decode("ascii"),
            "invite": "" if invite is None else invite.statement.digest,
        }
        statement = sign(identity.key, _JOIN, body, now=now, seconds=_JOIN_SECONDS)
        return cls(identity.id, name, identity.certificate, str(body["invite"]), statement)

    @classmethod
    def of(cls, statement: Statement, host: str, now: float) -> Self:
        """Return the request that a statement is, which another node sent to this one.

        Raises:
            Denied: It is for another node, has expired, or its signature is wrong.
            BadInput: It has another form.
        """
        body = statement.verify(_JOIN, now)
        if body.get("host") != host:
            raise Denied("accepting a request to join, which was made for another node")
        try:
            certificate = base64.b64decode(body["certificate"], validate=True)
            name, invite = check_node_name(body["name"]), str(body["invite"])
        except (LookupError, ValueError, TypeError) as error:
            raise BadInput("a request to join", reason=str(error)) from error
        if id_of_certificate(certificate) != statement.signer:
            raise Denied("accepting a request to join that another node signed")
        return cls(statement.signer, name, certificate, invite, statement)


def _parse(text: str) -> Statement:
    text = text.strip()
    if not text.startswith(_PREFIX):
        raise ValueError(f"it does not begin with {_PREFIX}")
    if len(text) > _TEXT_MAX:
        raise ValueError(f"it is longer than {_TEXT_MAX} characters")
    encoded = text.removeprefix(_PREFIX)
    try:
        document = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        return Statement.from_json(json.loads(document))
    except (ValueError, TypeError, SennitError) as error:
        raise ValueError("it is cut off, or was changed") from error

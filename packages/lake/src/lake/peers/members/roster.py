"""Who belongs to the network: a set of signed statements that only grows.

    network    the founder's node id
    admission  {network, node, certificate, name, admin}
    revocation {network, node, keeps}

The founder admits and revokes any node; admins, which only the founder appoints, admit and revoke nodes
that are no admins. The members follow from the set of statements alone: two nodes that merge their
rosters by union, in any order, see the same members. A revocation always wins and is final, as the node
may have lost its key. What an admin signed stays valid after its revocation only if that names it in
`keeps`; else its key, once stolen, could admit nodes for ever.

    founder ──▶ admin ──▶ node        the chain of a statement has at most two links

So the founder's key is the root of trust, and without it no admin can be revoked.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lake.catalog.node_key import NodeKey
from lake.peers.transport.identity import Identity, id_of_certificate
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement, sign
from sennit_core.errors import Conflict, Denied, NotFound, SennitError, UsageError
from sennit_core.hashing import canonical_json, sha256_hex
from sennit_core.records import Record
from sennit_core.text import nearest
from sennit_core.units import KIB

__all__ = [
    "MEMBERS_MAX",
    "MESSAGES",
    "Member",
    "Roster",
    "RosterHead",
    "RosterNews",
    "check_node_name",
    "found_network",
    "parts_of",
]

_ADMISSION = "admission"
_REVOCATION = "revocation"
MEMBERS_MAX = 2048
"""Nodes that a network may ever have; a revocation of an admin names all that it admitted."""
_STATEMENTS_MAX = 4 * MEMBERS_MAX
_NAME_MAX = 63
_KEPT_DIGITS = 16
_PREFIX_MIN = 4


@dataclass(frozen=True, slots=True)
class RosterNews(Message):
    """Statements of the roster that the receiver may not have."""

    kind: ClassVar[str] = "roster"
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class RosterHead(Message):
    """The digest of all statements that the sender has; one with others sends them."""

    kind: ClassVar[str] = "roster-head"
    digest: str


MESSAGES: tuple[type[Message], ...] = (RosterNews, RosterHead)
_PART_BYTES = 160 * KIB


@dataclass(frozen=True, slots=True)
class Member(Record):
    """A node of the network.

    Args:
        id: Its node id.
        name: What people call it. Two nodes that were admitted at the same time may share a name.
        certificate: Base64 of its certificate in DER.
        admin: Whether it may admit and revoke others.
        by: The node that admitted it.
        since: Unix seconds of the admission.
        revoked: Whether it was removed.
    """

    id: str
    name: str
    certificate: str
    admin: bool
    by: str
    since: float
    revoked: bool = False


class Roster:
    """The members of a network, as one node knows them.

    Args:
        network: The founder's node id.
        statements: Those that were stored; invalid ones are left out.
    """

    def __init__(self, network: str, statements: Iterable[Statement] = ()) -> None:
        self.network = network
        # Statements with a valid signature, by digest. Whether one counts depends on the others.
        self._statements: dict[str, Statement] = {}
        self._members: dict[str, Member] = {}
        self._digest = ""  # computed when it is asked for
        self.merge(statements)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All statements, for another node to merge."""
        return tuple(self._statements.values())

    def introduction(self, *nodes: str) -> tuple[Statement, ...]:
        """Return as many statements as a message holds, first those that show that nodes are members.

        A new member gets the others by comparing digests.
        """
        admins = {self._members[each].by for each in nodes if each in self._members}
        about = {self.network, *nodes, *admins}
        ordered = sorted(self.statements, key=lambda each: each.body["node"] not in about)
        return next(parts_of(ordered), ())

    @property
    def digest(self) -> str:
        """Of all statements, in any order."""
        if not self._digest:
            self._digest = sha256_hex("".join(sorted(self._statements)).encode())
        return self._digest

    @property
    def members(self) -> Mapping[str, Member]:
        """All nodes that were ever admitted, by id."""
        return self._members

    def is_member(self, node: str) -> bool:
        """Return whether a node belongs to the network now."""
        member = self._members.get(node)
        return member is not None and not member.revoked

    def is_admin(self, node: str) -> bool:
        """Return whether a node may admit and revoke others now."""
        return self.is_member(node) and self._members[node].admin

    def certificates(self) -> list[bytes]:
        """Return the certificates of the members, in DER."""
        current = [each for each in self._members.values() if not each.revoked]
        return [base64.b64decode(each.certificate) for each in current]

    def name_of(self, node: str) -> str:
        """Return the name of a member, also of one that was revoked; else the beginning of the id."""
        member = self._members.get(node)
        return node[:16] if member is None else member.name

    def unique_name_of(self, node: str) -> str:
        """Return the name of a node, if no other has it: for authors and the audit log."""
        name = self.name_of(node)
        others = (each for each in self.members.values() if each.id != node)
        return node[:16] if any(each.name == name for each in others) else name

    def find(self, id_or_name: str) -> Member:
        """Return the member with this id, name, or beginning of an id.

        Raises:
            NotFound: There is none.
            Conflict: There are several.
        """
        current = [each for each in self._members.values() if not each.revoked]
        found = [each for each in current if id_or_name in (each.id, each.name)]
        if not found and len(id_or_name) >= _PREFIX_MIN:
            found = [each for each in current if each.id.startswith(id_or_name)]
        if not found:
            near = nearest(id_or_name, [each.name for each in current])
            hint = None if near else "`platform net nodes` lists them"
            raise NotFound("node", id_or_name, near, hint=hint)
        if len(found) > 1:
            raise Conflict(f"{len(found)} nodes match {id_or_name!r}", hint="use more of the id")
        return found[0]

    def merge(self, statements: Iterable[Statement]) -> list[Statement]:
        """Add statements; return those that are new, for other nodes.

        One whose signer is no admin as far as this node knows is kept too: the admission of that
        admin may still be on its way.
        """
        new = []
        for statement in statements:
            is_full = len(self._statements) >= _STATEMENTS_MAX
            if is_full or statement.digest in self._statements or not self._is_signed(statement):
                continue
            self._statements[statement.digest] = statement
            new.append(statement)
        if new:
            self._digest = ""
            self._members = self._derive()
        return new

    def admit(
        self, key: NodeKey, certificate: bytes, name: str, *, now: float, admin: bool = False
    ) -> Member:
        """Admit a node; one that is a member stays as it is.

        Args:
            key: That of this node.
            certificate: The node's, in DER.
            name: What it is to be called.
            now: Unix seconds.
            admin: Whether it may admit others.

        Raises:
            Denied: This node may not admit it, or it was revoked.
            Conflict: Another member has the name, or the network is full.
        """
        node = id_of_certificate(certificate)
        known = self._members.get(node)
        if known is not None and known.revoked:
            raise Denied(f"admitting node {node[:16]}, which was revoked", needed="a new node key")
        if known is not None:
            return known
        self.check_may(key.id, "admitting a node", as_founder=admin)
        if any(each.name == name and not each.revoked for each in self._members.values()):
            raise Conflict(f"a node named {name!r} is a member", hint="choose another network.name")
        if len(self._members) >= MEMBERS_MAX:
            raise Conflict(f"the network has {MEMBERS_MAX} nodes, the most that are possible")
        body = {
            "network": self.network,
            "node": node,
            "certificate": base64.b64encode(certificate).decode("ascii"),
            "name": check_node_name(name),
            "admin": admin,
        }
        self.merge([sign(key, _ADMISSION, body, now=now)])
        return self._members[node]

    def revoke(self, key: NodeKey, node: str, *, now: float) -> None:
        """Remove a node for ever; what it signed as an admin until now stays.

        Raises:
            NotFound: It is no member.
            Denied: This node may not revoke it; the founder cannot be revoked.
        """
        member = self.check_revoke(key.id, node)
        keeps = [
            digest[:_KEPT_DIGITS]
            for digest, each in self._statements.items()
            if member.admin and each.signer == node
        ]
        body = {"network": self.network, "node": node, "keeps": sorted(keeps)}
        self.merge([sign(key, _REVOCATION, body, now=now)])

    def check_revoke(self, signer: str, node: str) -> Member:
        """Return the member that a node may remove; raises as `revoke`."""
        member = self._members.get(node)
        if member is None:
            raise NotFound("node", node, suggestion=None)
        if node == self.network:
            raise Denied("revoking the founder of the network", needed="a new network")
        self.check_may(signer, "revoking a node", as_founder=member.admin)
        return member

    def check_may(self, signer: str, action: str, *, as_founder: bool) -> None:
        """Refuse what only an admin, or only the founder, may do.

        Raises:
            Denied: `signer` may not.
        """
        if signer == self.network:
            return
        if as_founder or not self.is_admin(signer):
            needed = "the founder of the network" if as_founder else "an admin of the network"
            able = [
                member.name
                for node, member in self._members.items()
                if node == self.network or (not as_founder and self.is_admin(node))
            ]
            raise Denied(action, needed, hint=f"do it at node {' or '.join(sorted(able)[:8])}")

    def _is_signed(self, statement: Statement) -> bool:
        """Return whether a statement is well-formed, of this network, and signed by its signer."""
        if statement.kind not in (_ADMISSION, _REVOCATION):
            return False
        try:
            # At its own time: these hold until they are revoked, at any time of any clock.
            body = statement.verify(statement.kind, statement.issued_at)
            if body["network"] != self.network:
                return False
            if statement.kind == _ADMISSION:
                _member_of(statement)
            return isinstance(body["node"], str)
        except (SennitError, LookupError, ValueError, TypeError):
            return False

    def _derive(self) -> dict[str, Member]:
        """Compute the members from the statements."""
        by_founder = [each for each in self._statements.values() if each.signer == self.network]
        members = _admitted(by_founder)
        revocations = _revocations(by_founder)
        admins = {node for node, member in members.items() if member.admin}
        by_admins = [
            statement
            for digest, statement in self._statements.items()
            if statement.signer in admins - {self.network}
            and (
                statement.signer not in revocations
                or digest[:_KEPT_DIGITS] in revocations[statement.signer]
            )
        ]
        for node, member in _admitted(by_admins).items():
            if not member.admin:
                members.setdefault(node, member)
        revoked = {*revocations, *(_revocations(by_admins).keys() - admins)} - {self.network}
        return {node: replace(member, revoked=node in revoked) for node, member in members.items()}


def parts_of(statements: Iterable[Statement]) -> Iterator[tuple[Statement, ...]]:
    """Divide statements over messages. An admission has about 1 KiB, a revocation up to 50."""
    part: list[Statement] = []
    size = 0
    for each in statements:
        found = len(canonical_json(each.to_json()))
        if part and size + found > _PART_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(each)
        size += found
    if part:
        yield tuple(part)


def found_network(identity: Identity, name: str, now: float) -> Roster:
    """Return the roster of a new network, whose founder is this node."""
    roster = Roster(identity.id)
    roster.admit(identity.key, identity.certificate, name, now=now, admin=True)
    return roster


def check_node_name(name: object) -> str:
    """Return a valid name of a node: letters, digits, `-` and `_`, as it is part of `user@name`.

    Raises:
        UsageError: It is not one.
    """
    text = name if isinstance(name, str) and name.isascii() else ""
    if not 0 < len(text) <= _NAME_MAX or text.strip("-_") == "" or not _is_word(text):
        raise UsageError(
            f"{str(name)[:80]!r} is not a name of a node",
            hint=f"use up to {_NAME_MAX} letters, digits, - and _",
        )
    return text


def _is_word(text: str) -> bool:
    return all(character.isalnum() or character in "-_" for character in text)


def _admitted(statements: Iterable[Statement]) -> dict[str, Member]:
    """Return the members of some admissions; the one with the least digest counts, in any order."""
    admissions = [each for each in statements if each.kind == _ADMISSION]
    found: dict[str, Member] = {}
    for statement in sorted(admissions, key=lambda each: each.digest):
        member = _member_of(statement)
        found.setdefault(member.id, member)
    return found


def _revocations(statements: Iterable[Statement]) -> dict[str, frozenset[str]]:
    """Return what each revoked node may keep, by node."""
    found: dict[str, frozenset[str]] = {}
    for statement in statements:
        if statement.kind == _REVOCATION:
            node, keeps = str(statement.body["node"]), statement.body.get("keeps", ())
            found[node] = found.get(node, frozenset()) | frozenset(map(str, keeps))
    return found


def _member_of(statement: Statement) -> Member:
    """Return the member that an admission describes.

    Raises:
        SennitError, LookupError, ValueError, TypeError: It describes none.
    """
    body: Mapping[str, Any] = statement.body
    if id_of_certificate(base64.b64decode(body["certificate"], validate=True)) != body["node"]:
        raise UsageError("the certificate of an admission is not that of its node")
    return Member(
        id=body["node"],
        name=check_node_name(body["name"]),
        certificate=body["certificate"],
        admin=body["admin"] is True,
        by=statement.signer,
        since=statement.issued_at,
    )

"""What a hostile member sends and signs: it is refused as an error of Sennit, or ignored."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.peers.copies import have_messages
from lake.peers.members import joining, membership, roster
from lake.peers.members.joining import Host, Join
from lake.peers.members.membership import Membership
from lake.peers.members.roster import RosterNews
from lake.peers.members.statuses import NodeStatus, StatementSigner
from lake.peers.sharing import publications
from lake.peers.sharing.publications import EVERYONE, LogKey, Publications, StatementEntrySigner
from lake.peers.transport import relay, session
from lake.peers.transport.hello import Hello
from lake.peers.transport.machine import Effect
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.signed import Statement, sign
from sennit_core.errors import BadInput, SennitError

from .peers_world import NOW, network_of

KINDS: tuple[type[Message], ...] = (
    Hello, *session.MESSAGES, *relay.MESSAGES, *joining.MESSAGES, *roster.MESSAGES,
    *membership.MESSAGES, *publications.MESSAGES, *have_messages.MESSAGES,
)  # fmt: skip
CODEC = MessageCodec(KINDS)
STATEMENTS = ("status", "suspicion", "publication", "admission", "revocation", "invite", "join")
MEMBERS = (
    "node", "number", "state", "addresses", "zone", "version", "features", "by", "publisher",
    "audience", "previous", "dataset", "item", "items", "part", "parts", "network", "certificate",
    "name", "admin", "keeps", "host", "invite", "nonce",
)  # fmt: skip


class Attacked:
    """Oslo's machines, and Rome, a member that has turned against it."""

    def __init__(self, folder: Path) -> None:
        [self.oslo, self.rome], [self.roster, _] = network_of(folder, "oslo", "rome")
        self.members = Membership(
            NodeStatus(self.oslo.id, 1), StatementSigner(self.oslo.key), self.roster.is_member,
            Random(0), now=0.0, wall=lambda: NOW,
        )  # fmt: skip
        self.logs = Publications(
            self.oslo.id, StatementEntrySigner(self.oslo.key), self.roster.is_member, Random(0),
            logs={}, wall=lambda: NOW,
        )  # fmt: skip
        self.host = Host(self.oslo.key, self.roster, lambda *_: True, lambda: NOW)

    def receive(self, message: Message) -> None:
        """Handle a message as `JoinedNetwork` does; only errors of Sennit are expected."""
        with suppress(SennitError):
            if isinstance(message, RosterNews):
                self.roster.merge(message.statements)
            elif isinstance(message, Join):
                self.host.admit(message)
            elif isinstance(message, membership.MESSAGES):
                perform(self.members.receive(self.rome.id, message, 1.0))
            elif isinstance(message, publications.MESSAGES):
                perform(self.logs.receive(self.rome.id, message, [self.rome.id]))


def perform(effects: Iterable[Effect]) -> None:
    """Run a generator of effects to its end, and encode what it sends."""
    for effect in effects:
        message = getattr(effect, "message", None)
        if isinstance(message, Message):
            CODEC.encode(message)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    return Attacked(tmp_path_factory.mktemp("keys"))


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, nodes: tuple[str, ...] = ("oslo", "rome", "*")) -> dict[str, Any]:
    """A body with members that some kind of statement has, right ones and others."""
    found: dict[str, Any] = {}
    for member in draw(st.lists(st.sampled_from(MEMBERS), unique=True)):
        found[member] = draw(values | st.sampled_from(nodes) | st.integers(0, 3))
    return found


def named(body: dict[str, Any], attacked: Attacked) -> dict[str, Any]:
    """Replace the names of nodes by their ids."""
    ids = {"oslo": attacked.oslo.id, "rome": attacked.rome.id}
    return {k: ids.get(v, v) if isinstance(v, str) else v for k, v in body.items()}


@given(kind=st.sampled_from(STATEMENTS), body=bodies(), fills=st.booleans())
def test_signed_garbage_is_refused_by_every_machine(
    attacked: Attacked, kind: str, body: dict[str, Any], fills: bool
) -> None:
    body = named(body, attacked)
    if fills:  # so that more of the code is reached
        own = {"node": attacked.rome.id, "by": attacked.rome.id, "publisher": attacked.rome.id}
        body = {**own, "network": attacked.roster.network, "number": 1, "audience": "*", **body}
    with suppress(SennitError, ValueError):  # what JSON cannot represent cannot be signed
        statement = sign(attacked.rome.key, kind, body, now=NOW, seconds=60)
        for message in (
            membership.News((statement,)), membership.Probe(1, (statement,)),
            publications.Entries((statement,)), RosterNews((statement,)), Join(statement, statement),
        ):  # fmt: skip
            attacked.receive(message)
    assert attacked.roster.is_member(attacked.oslo.id)
    assert attacked.roster.is_member(attacked.rome.id)
    assert not attacked.roster.is_admin(attacked.rome.id)


@given(kind=st.sampled_from([each.kind for each in KINDS]), members=values | bodies())
def test_malformed_messages_are_refused(attacked: Attacked, kind: str, members: Any) -> None:
    head = ormsgpack.packb({"t": kind, "m": members})
    frame = len(head).to_bytes(4, "little") + head
    try:
        message, _, _ = CODEC.decode(frame)
    except BadInput:
        return
    assert message is not None
    attacked.receive(message)


@given(
    log=st.text(max_size=80) | st.just("*/*"),
    after=st.integers(-(2**63), 2**63 - 1),
    heads=st.dictionaries(st.text(max_size=10), values, max_size=3),
    known=st.dictionaries(st.text(max_size=16), values, max_size=3),
)
def test_comparisons_of_a_hostile_member_are_answered_or_refused(
    attacked: Attacked, log: str, after: int, heads: dict[str, Any], known: dict[str, Any]
) -> None:
    own = LogKey(attacked.rome.id, EVERYONE).text
    attacked.receive(publications.Want(log, after))
    attacked.receive(publications.Heads({**heads, own: heads.get("x", [after, ""])}))
    attacked.receive(membership.Compare({**known, attacked.oslo.id[:16]: after}))


@given(st.binary(max_size=400))
def test_bytes_that_are_no_frame_are_refused(frame: bytes) -> None:
    with suppress(BadInput):
        CODEC.decode(frame)


def test_a_statement_that_another_node_has_signed_is_not_its_own(attacked: Attacked) -> None:
    forged = sign(attacked.rome.key, "status", NodeStatus(attacked.oslo.id, 99).to_json(), now=NOW)
    attacked.receive(membership.News((forged,)))
    assert attacked.members.own.number < 99
    assert isinstance(forged, Statement)

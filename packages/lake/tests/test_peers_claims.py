"""Claims: what is accepted, and what a hostile node tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lake.catalog.node_key import NodeKey
from lake.peers.changes.claims import CLAIM_SECONDS_MAX, Claim, Claims, request_digest
from lake.peers.queries.restricted import DescribeRestricted
from lake.peers.transport.signed import CLOCK_SKEW_SECONDS, Statement, sign
from lake.statements.limits import Requester
from sennit_core.errors import Denied

NOW = 1_000_000.0
ASKED = DescribeRestricted("d1")
ANN = Requester("ann", role="reader")


class World:
    """A writer, and a reader whose claims it checks."""

    def __init__(self, folder: Path) -> None:
        self.keys = {name: NodeKey(folder / name) for name in ("writer", "reader", "other")}
        self.ids = {name: key.id for name, key in self.keys.items()}
        self.writer = Claims(self.keys["writer"], "net")
        self.reader = Claims(self.keys["reader"], "net")

    def claim(self, **members: str) -> Statement:
        """A claim with other members than it should have, signed by the reader."""
        body = Claim("ann", "reader", "net", self.ids["writer"], request_digest(ASKED)).to_json()
        return sign(self.keys["reader"], "claim", {**body, **members}, now=NOW, seconds=60.0)

    def check(self, claim: Statement, now: float = NOW, peer: str = "reader") -> Requester:
        return self.writer.check(claim, self.ids[peer], ASKED, now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_claim_names_the_user_of_its_node(world: World) -> None:
    claim = world.reader.sign(ANN, world.ids["writer"], ASKED, NOW)
    assert world.check(claim) == Requester("ann", role="reader", node=world.ids["reader"])


def test_an_admin_of_another_node_is_not_trusted(world: World) -> None:
    admin = Requester("root", is_admin=True, role="admin", is_owner=True)
    found = world.check(world.reader.sign(admin, world.ids["writer"], ASKED, NOW))
    assert not any((found.is_trusted, found.is_admin, found.is_owner, found.may_write))
    nobody = world.check(world.reader.sign(Requester(), world.ids["writer"], ASKED, NOW))
    assert not nobody.is_trusted


def test_a_claim_is_of_no_use_to_another_node(world: World) -> None:
    claim = world.reader.sign(ANN, world.ids["writer"], ASKED, NOW)
    with pytest.raises(Denied, match="signed it"):
        world.check(claim, peer="other")


@pytest.mark.parametrize(
    "members",
    [
        {"network": "net2"},
        {"audience": "0" * 64},
        {"request": "0" * 64},
        {"user": "a" * 256},
        {"user": "ann\n"},
        {"user": "\x1b[2J"},
        {"role": "\u202e"},
    ],
)
def test_a_claim_is_for_one_network_node_and_request(world: World, members: dict[str, str]) -> None:
    with pytest.raises(Denied):
        world.check(world.claim(**members))


def test_a_changed_claim_is_refused(world: World) -> None:
    claim = world.claim()
    for forged in (
        replace(claim, body={**claim.body, "user": "root"}),
        replace(claim, expires_at=claim.expires_at + 60),
        replace(claim, kind="admission"),
        replace(claim, signature=""),
    ):
        with pytest.raises(Denied):
            world.check(forged)


@pytest.mark.parametrize("seconds", [None, 0.0, -1.0, CLAIM_SECONDS_MAX + 1, 1e300])
def test_no_claim_counts_for_long(world: World, seconds: float | None) -> None:
    body = world.claim().body
    claim = sign(world.keys["reader"], "claim", body, now=NOW, seconds=seconds)
    with pytest.raises(Denied, match="longer"):
        world.check(claim)


def test_an_expired_claim_is_refused(world: World) -> None:
    claim = world.claim()
    world.check(claim, NOW + 60 + CLOCK_SKEW_SECONDS)
    for now in (NOW + 61 + CLOCK_SKEW_SECONDS, NOW - 1 - CLOCK_SKEW_SECONDS):
        with pytest.raises(Denied):
            world.check(claim, now)

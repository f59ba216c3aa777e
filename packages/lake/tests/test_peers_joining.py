"""Whom a node admits: requests that are repeated, changed, or of another node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lake.peers.members import joining
from lake.peers.members.invites import INVITE_SECONDS, Invite, JoinRequest
from lake.peers.members.joining import WAITING_PER_HOST_MAX, Host, Join
from lake.peers.members.roster import Roster
from lake.peers.transport.identity import Identity
from lake.peers.transport.signed import CLOCK_SKEW_SECONDS
from sennit_core.errors import BadInput, Denied, NotFound, WaitingToJoin

from .peers_world import NOW, identity, network_of


class World:
    """Oslo, which admits nodes, and the time."""

    def __init__(self, folder: Path) -> None:
        [self.oslo], [self.roster] = network_of(folder, "oslo")
        self.now = NOW
        self.redeemed: dict[str, str] = {}
        self.host = Host(self.oslo.key, self.roster, self.redeem, lambda: self.now)

    def redeem(self, digest: str, node: str, _now: float) -> bool:
        return self.redeemed.setdefault(digest, node) == node

    def ask(self, node: Identity, host: str = "") -> None:
        """A request without an invite, which waits."""
        with pytest.raises(WaitingToJoin):
            self.host.admit(self.request(node, None, name=f"n{node.id[:8]}"), host)

    def invite(self) -> Invite:
        return Invite.make(self.oslo.key, self.roster.network, ["127.0.0.1:8601"], now=NOW)

    def request(
        self, node: Identity, invite: Invite | None, host: str | None = None, name: str = "rome"
    ) -> Join:
        made = JoinRequest.make(node, name, host or self.oslo.id, now=self.now, invite=invite)
        return Join(made.statement, None if invite is None else invite.statement)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def rome(tmp_path: Path) -> Identity:
    return identity(tmp_path, "rome")


def test_a_repeated_request_leads_to_the_same_member(world: World, rome: Identity) -> None:
    """Its welcome may have been lost."""
    request = world.request(rome, world.invite())
    assert world.host.admit(request) == world.host.admit(request)


def test_a_request_of_a_revoked_node_is_refused_however_often(world: World, rome: Identity) -> None:
    request = world.request(rome, world.invite())
    world.host.admit(request)
    world.roster.revoke(world.oslo.key, rome.id, now=NOW)
    for each in (request, world.request(rome, world.invite())):
        with pytest.raises(Denied, match="revoked"):
            world.host.admit(each)
    assert not world.roster.is_member(rome.id)


def test_an_invite_is_for_the_first_node_that_uses_it(
    world: World, rome: Identity, tmp_path: Path
) -> None:
    invite = world.invite()
    world.host.admit(world.request(rome, invite))
    bern = identity(tmp_path, "bern")
    with pytest.raises(Denied, match="was used"):
        world.host.admit(world.request(bern, invite, name="bern"))


def test_an_invite_of_another_node_or_network_is_refused(
    world: World, rome: Identity, tmp_path: Path
) -> None:
    other = identity(tmp_path, "other")
    foreign = Invite.make(other.key, world.roster.network, ["127.0.0.1:8601"], now=NOW)
    elsewhere = Invite.make(world.oslo.key, other.id, ["127.0.0.1:8601"], now=NOW)
    for invite in (foreign, elsewhere):
        with pytest.raises(Denied, match="of another node"):
            world.host.admit(world.request(rome, invite))


def test_an_invite_ends_with_its_time_and_the_difference_of_clocks(
    world: World, rome: Identity
) -> None:
    invite = world.invite()
    world.now = NOW + INVITE_SECONDS + CLOCK_SKEW_SECONDS + 1
    with pytest.raises(Denied, match="expired"):
        world.host.admit(world.request(rome, invite))
    world.now -= 2
    assert world.host.admit(world.request(rome, invite)).id == rome.id


def test_a_request_to_another_node_or_with_another_invite_is_refused(
    world: World, rome: Identity, tmp_path: Path
) -> None:
    invite = world.invite()
    with pytest.raises(Denied, match="made for another node"):
        world.host.admit(world.request(rome, invite, host=identity(tmp_path, "bern").id))
    swapped = replace(world.request(rome, world.invite()), invite=invite.statement)
    with pytest.raises(Denied, match="does not name"):
        world.host.admit(swapped)


def test_an_old_request_is_refused(world: World, rome: Identity) -> None:
    request = world.request(rome, world.invite())
    world.now += 3600
    with pytest.raises(Denied, match="expired"):
        world.host.admit(request)


def test_a_request_is_refused_whose_content_was_changed(world: World, rome: Identity) -> None:
    request = world.request(rome, world.invite()).request
    for body in ({**request.body, "name": "admin"}, {**request.body, "certificate": "x"}, {}):
        with pytest.raises((Denied, BadInput)):
            world.host.admit(Join(replace(request, body=body)))
    assert len(world.roster.members) == 1


def test_a_node_without_an_invite_waits_for_its_fingerprint(world: World, rome: Identity) -> None:
    with pytest.raises(WaitingToJoin, match="accept"):
        world.host.admit(world.request(rome, None))
    [waiting] = world.host.waiting
    for text in (waiting.fingerprint[:-1], rome.id[:31], "", "f" * 32):
        with pytest.raises(NotFound):
            world.host.accept(text)
    assert world.host.accept(waiting.fingerprint.upper()).id == rome.id
    assert world.host.waiting == []
    assert world.host.admit(world.request(rome, None)).id == rome.id


def test_a_host_that_asks_with_many_keys_displaces_its_own(world: World, tmp_path: Path) -> None:
    rome = identity(tmp_path, "rome")
    world.ask(rome, "10.0.0.1")
    for index in range(20):
        world.now += 1
        world.ask(identity(tmp_path, f"n{index}"), "10.0.0.2")
    assert len(world.host.waiting) == 1 + WAITING_PER_HOST_MAX
    assert world.host.accept(rome.id).id == rome.id


def test_many_hosts_displace_one_that_asks_again_not_at_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "WAITING_MAX", 12)
    rome = identity(tmp_path, "rome")
    keys = [identity(tmp_path, f"n{index}") for index in range(30)]
    for index, key in enumerate(keys):
        world.now += 1
        if index % 2 == 0:
            world.ask(rome, "10.0.0.1")
        world.ask(key, f"10.0.1.{index}")
        assert rome.id in [each.node for each in world.host.waiting]
    assert len(world.host.waiting) == 12


def test_a_node_that_asks_no_more_is_forgotten_after_an_hour(world: World, rome: Identity) -> None:
    since = world.now
    for _ in range(3):
        world.now += 1800
        world.ask(rome)
    assert [each.since for each in world.host.waiting] == [since + 1800]
    world.now += 3601
    assert world.host.waiting == []


def test_two_rosters_that_are_merged_have_the_members_of_both(world: World, rome: Identity) -> None:
    world.host.admit(world.request(rome, world.invite()))
    copy = Roster(world.roster.network, reversed(world.roster.statements))
    assert copy.members == world.roster.members
    assert copy.digest == world.roster.digest

"""Statements, rosters and invites: who is a member, in whatever order the news arrives."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.catalog.node_key import NodeKey
from lake.peers.members import roster as roster_module
from lake.peers.members.invites import Invite, JoinRequest
from lake.peers.members.roster import (
    MESSAGES,
    Member,
    Roster,
    RosterNews,
    check_node_name,
    found_network,
    parts_of,
)
from lake.peers.transport.identity import Identity, fingerprint, id_of_certificate
from lake.peers.transport.messages import MessageCodec
from lake.peers.transport.signed import STATEMENT_BYTES_MAX, Statement, sign
from sennit_core.errors import BadInput, Conflict, Denied, NotFound, UsageError

from .peers_world import NOW, identity


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: identity(folder, name) for name in ("oslo", "rome", "bern", "kyiv", "mallory")}


def network(keys: dict[str, Identity]) -> Roster:
    """Oslo founds the network, Rome is an admin and admits Bern."""
    roster = found_network(keys["oslo"], "oslo", NOW)
    roster.admit(keys["oslo"].key, keys["rome"].certificate, "rome", now=NOW, admin=True)
    roster.admit(keys["rome"].key, keys["bern"].certificate, "bern", now=NOW)
    return roster


def members(roster: Roster) -> dict[str, Member]:
    return {each.name: each for each in roster.members.values() if not each.revoked}


# Statements


def test_a_statement_is_accepted_by_its_signer_kind_and_time(keys: dict[str, Identity]) -> None:
    statement = sign(keys["oslo"].key, "claim", {"user": "ann"}, now=NOW, seconds=60)
    assert Statement.from_json(statement.to_json()).verify("claim", NOW) == {"user": "ann"}
    with pytest.raises(Denied, match="kind"):
        statement.verify("invite", NOW)
    with pytest.raises(Denied, match="expired"):
        statement.verify("claim", NOW + 3600)
    with pytest.raises(Denied, match="future"):
        statement.verify("claim", NOW - 3600)
    with pytest.raises(Denied, match="signed it"):
        statement.verify("claim", NOW, signer=keys["rome"].id)


@given(member=st.sampled_from(("kind", "body", "issued_at", "expires_at", "signature")))
def test_any_changed_member_of_a_statement_is_found(keys: dict[str, Identity], member: str) -> None:
    statement = sign(keys["oslo"].key, "claim", {"user": "ann"}, now=NOW, seconds=60)
    other = sign(keys["oslo"].key, "other", {"user": "eve"}, now=NOW + 1, seconds=61)
    forged = replace(statement, **{member: getattr(other, member)})
    with pytest.raises(Denied):
        forged.verify(forged.kind, NOW)


def test_a_statement_that_is_too_large_is_refused(keys: dict[str, Identity]) -> None:
    large = sign(keys["oslo"].key, "claim", {"x": "y" * STATEMENT_BYTES_MAX}, now=NOW)
    with pytest.raises(Denied, match="bytes"):
        large.verify("claim", NOW)


# Rosters


def test_an_admin_admits_and_a_plain_member_does_not(keys: dict[str, Identity]) -> None:
    roster = network(keys)
    assert set(members(roster)) == {"oslo", "rome", "bern"}
    with pytest.raises(Denied, match="admin"):
        roster.admit(keys["bern"].key, keys["kyiv"].certificate, "kyiv", now=NOW)
    with pytest.raises(Denied, match="founder"):
        roster.admit(keys["rome"].key, keys["kyiv"].certificate, "kyiv", now=NOW, admin=True)


def test_a_name_is_given_once(keys: dict[str, Identity]) -> None:
    roster = network(keys)
    with pytest.raises(Conflict, match="rome"):
        roster.admit(keys["oslo"].key, keys["kyiv"].certificate, "rome", now=NOW)


def test_statements_of_foreign_keys_are_left_out(keys: dict[str, Identity]) -> None:
    roster, mallory = network(keys), keys["mallory"]
    theirs = found_network(mallory, "mallory", NOW)
    body = {**theirs.statements[0].body, "network": roster.network}
    forged = sign(mallory.key, "admission", body, now=NOW)
    roster.merge([forged, *theirs.statements])
    assert set(members(roster)) == {"oslo", "rome", "bern"}


def test_a_revoked_node_stays_out(keys: dict[str, Identity]) -> None:
    roster = network(keys)
    roster.revoke(keys["rome"].key, keys["bern"].id, now=NOW)
    assert not roster.is_member(keys["bern"].id)
    with pytest.raises(Denied, match="revoked"):
        roster.admit(keys["oslo"].key, keys["bern"].certificate, "bern", now=NOW)
    with pytest.raises(Denied, match="founder"):
        roster.revoke(keys["rome"].key, keys["oslo"].id, now=NOW)


def test_the_key_of_a_revoked_admin_admits_no_one(keys: dict[str, Identity]) -> None:
    roster = network(keys)
    stolen = Roster(roster.network, roster.statements)
    roster.revoke(keys["oslo"].key, keys["rome"].id, now=NOW)
    assert set(members(roster)) == {"oslo", "bern"}  # whom it admitted before stays
    stolen.admit(keys["rome"].key, keys["mallory"].certificate, "mallory", now=NOW)
    roster.merge(stolen.statements)
    assert set(members(roster)) == {"oslo", "bern"}
    stolen.merge(roster.statements)
    assert members(stolen) == members(roster)


def test_rosters_agree_in_whatever_order_statements_arrive(keys: dict[str, Identity]) -> None:
    roster = network(keys)
    roster.admit(keys["oslo"].key, keys["kyiv"].certificate, "kyiv", now=NOW)
    roster.revoke(keys["oslo"].key, keys["rome"].id, now=NOW)
    expected = members(roster)
    for order in permutations(roster.statements):
        assert members(Roster(roster.network, order)) == expected


def test_two_admins_that_admit_the_same_node_agree(keys: dict[str, Identity]) -> None:
    one = network(keys)
    other = Roster(one.network, one.statements)
    one.admit(keys["oslo"].key, keys["kyiv"].certificate, "kyiv", now=NOW)
    other.admit(keys["rome"].key, keys["kyiv"].certificate, "kiev", now=NOW)
    merged = Roster(one.network, (*one.statements, *other.statements))
    again = Roster(one.network, (*other.statements, *one.statements))
    assert members(merged) == members(again)
    assert len(members(merged)) == 4


def test_a_member_is_found_by_name_id_or_prefix(keys: dict[str, Identity]) -> None:
    roster, rome = network(keys), keys["rome"].id
    assert roster.find("rome").id == roster.find(rome).id == roster.find(rome[:12]).id == rome
    with pytest.raises(NotFound):
        roster.find("paris")


@pytest.mark.parametrize("name", ["", "a@b", "a b", "a/b", "x" * 64, "ü", "--", None, 7])
def test_a_name_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(UsageError):
        check_node_name(name)


# Invites


def test_an_invite_survives_as_text_and_names_its_node(keys: dict[str, Identity]) -> None:
    made = Invite.make(keys["oslo"].key, keys["oslo"].id, ["10.0.0.1:8601"], now=NOW)
    read = Invite.parse(f"  {made.text}\n", NOW)
    assert (read.node, read.addresses, read.admin) == (keys["oslo"].id, ("10.0.0.1:8601",), False)
    with pytest.raises(Denied, match="expired"):
        Invite.parse(made.text, NOW + 2 * 86_400)


@pytest.mark.parametrize(
    "text", ["", "x", "sennit-invite:", "sennit-invite:!!", "sennit-invite:e30"]
)
def test_a_text_that_is_no_invite_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="net invite"):
        Invite.parse(text, NOW)


@given(place=st.integers(20, 300))
def test_a_changed_invite_is_refused(keys: dict[str, Identity], place: int) -> None:
    text = Invite.make(keys["oslo"].key, keys["oslo"].id, ["10.0.0.1:8601"], now=NOW).text
    changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    with pytest.raises((Denied, BadInput)):
        Invite.parse(changed, NOW)


def test_a_request_to_join_counts_for_one_host_and_key(keys: dict[str, Identity]) -> None:
    oslo, rome = keys["oslo"], keys["rome"]
    invite = Invite.make(oslo.key, oslo.id, ["10.0.0.1:8601"], now=NOW)
    request = JoinRequest.make(rome, "rome", oslo.id, now=NOW, invite=invite)
    read = JoinRequest.of(request.statement, oslo.id, NOW)
    assert (read.node, read.name, read.invite) == (rome.id, "rome", invite.statement.digest)
    with pytest.raises(Denied, match="another node"):
        JoinRequest.of(request.statement, keys["bern"].id, NOW)
    stolen = sign(keys["mallory"].key, "join", request.statement.body, now=NOW)
    with pytest.raises(Denied, match="another node"):
        JoinRequest.of(stolen, oslo.id, NOW)


def test_a_fingerprint_is_the_beginning_of_the_id(tmp_path: Path) -> None:
    own = Identity(NodeKey(tmp_path / "node.key"))
    assert id_of_certificate(own.certificate) == own.id
    assert own.id.startswith(fingerprint(own.id).replace(":", ""))


def test_large_statements_are_divided_over_messages(keys: dict[str, Identity]) -> None:
    keeps = [f"{n:016d}" for n in range(2000)]
    large = [
        sign(keys["oslo"].key, "revocation", {"node": str(n), "keeps": keeps}, now=NOW)
        for n in range(12)
    ]
    parts = list(parts_of(large))
    assert [each for part in parts for each in part] == large
    for part in parts:
        MessageCodec(MESSAGES).encode(RosterNews(part))


def test_a_new_member_of_a_large_network_sees_itself_and_its_host(
    keys: dict[str, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = network(keys)
    roster.admit(keys["rome"].key, keys["kyiv"].certificate, "kyiv", now=NOW)
    monkeypatch.setattr(roster_module, "_PART_BYTES", 3500)  # three admissions
    shown = roster.introduction(keys["rome"].id, keys["kyiv"].id)
    assert len(shown) < len(roster.statements)
    known = Roster(roster.network, shown)
    assert known.is_member(keys["kyiv"].id)
    assert known.is_admin(keys["rome"].id)

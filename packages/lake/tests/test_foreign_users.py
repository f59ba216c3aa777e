"""Users of other nodes in policies: which rule counts for them, and what their node is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from lake.access.policies import Policies
from lake.access.rules import NO_ACCESS, Access, ColumnRule, Policy, PolicyRule
from lake.distributed.foreign_users import SharedRule, foreign_rule, rules_for, with_node_ids
from lake.statements.limits import Requester
from sennit_core.errors import Corrupt

ROME, BERN = "a" * 64, "b" * 64
RULES = (
    PolicyRule(f"ann@{ROME}"),
    PolicyRule(f"role:writer@{ROME}", rows="id > 1"),
    PolicyRule(f"*@{ROME}", columns=(ColumnRule("pay"), ColumnRule("id", "0"))),
    PolicyRule("*@*", rows="false"),
    PolicyRule("ann"),
    PolicyRule("role:reader"),
    PolicyRule("*"),
)
CHOSEN = [
    (Requester("ann", node=ROME), f"ann@{ROME}"),
    (Requester("ann", node=BERN), "*@*"),
    (Requester("bob", role="writer", node=ROME), f"role:writer@{ROME}"),
    (Requester("ann", role="writer", node=ROME), f"ann@{ROME}"),
    (Requester("bob", role="reader", node=ROME), f"*@{ROME}"),
    (Requester("", node=ROME), f"*@{ROME}"),
    (Requester("*", node=BERN), "*@*"),
    (Requester("role:writer", node=ROME), f"*@{ROME}"),
    (Requester(f"ann@{ROME}", node=BERN), "*@*"),
]


@pytest.mark.parametrize(("user", "principal"), CHOSEN)
def test_the_most_specific_rule_of_a_node_counts(user: Requester, principal: str) -> None:
    found = foreign_rule(Policy(RULES), user)
    assert found is not None
    assert found.principal == principal


def test_local_rules_are_not_for_others() -> None:
    local = Policy(RULES[4:])
    assert foreign_rule(local, Requester("ann", role="reader", node=ROME)) is None
    assert list(rules_for(local, ROME)) == []


def test_a_node_is_told_what_its_own_users_see() -> None:
    assert list(rules_for(Policy(RULES), ROME)) == [
        SharedRule("ann"),
        SharedRule("role:writer"),
        SharedRule("*", hidden=("pay",)),
    ]
    assert list(rules_for(Policy(RULES), BERN)) == [SharedRule("*")]


def test_names_of_nodes_become_ids() -> None:
    def named(principal: str) -> str:
        return with_node_ids(PolicyRule(principal), {"rome": ROME}.get).principal

    assert named("ann@rome") == f"ann@{ROME}"
    assert named("role:reader@rome") == f"role:reader@{ROME}"
    # A user of this node may be called so, and the rest is no name of a node.
    for principal in ("ann@example.org", "*@*", "ann", "*", "@rome"):
        assert named(principal) == principal


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake(tmp_path) as lake:
        lake.append("t", pa.table({"id": [1]}))
        yield lake


def test_without_a_rule_a_foreign_user_sees_nothing(lake: Lake) -> None:
    info = lake.catalog.get("t")
    foreign = [
        Requester("", is_admin=True, node=ROME),
        Requester(info.owner, role="admin", is_admin=True, node=ROME),
        Requester("ann", role="reader", node=ROME),
    ]
    lake.policies.set(
        "t", [PolicyRule("ann", write=True), PolicyRule("role:admin"), PolicyRule("*")]
    )
    assert [lake.policies.access(info.id, user) for user in foreign] == [NO_ACCESS] * 3
    lake.policies.set("t", [PolicyRule("*@*", write=True, rows="owner = current_user")])
    found = lake.policies.access(info.id, foreign[2])
    assert (found.read, found.write) == (True, False)
    assert (found.user, found.role) == (f"ann@{ROME}", f"reader@{ROME}")


def test_a_local_user_with_a_foreign_name_is_no_foreign_user(lake: Lake) -> None:
    info = lake.catalog.get("t")
    lake.policies.set("t", [PolicyRule(f"ann@{ROME}"), PolicyRule("*@*")])
    for name in (f"ann@{ROME}", "*@*"):
        assert lake.policies.access(info.id, Requester(name, role="reader")) == NO_ACCESS
    lake.policies.set("t", [PolicyRule("ann@example.org")])
    found = lake.policies.access(info.id, Requester("ann@example.org", role="reader"))
    assert isinstance(found, Access)
    assert found.read


def test_a_damaged_policy_is_closed_to_foreign_users(lake: Lake) -> None:
    info = lake.catalog.get("t")
    lake.policies.set("t", [PolicyRule("*@*")])
    lake.tree.set(f"/policies/{info.id}/author", "somebody")
    with pytest.raises(Corrupt):
        Policies(lake.tree, lake.catalog).access(info.id, Requester("ann", node=ROME))

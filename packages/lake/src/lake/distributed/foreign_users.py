"""Users of other nodes in access policies: `alice@<node id>`, `role:reader@<node id>`, `*@<node id>`, `*@*`.

A user of another node is never one of this node: rules that name a local user, a role or `*` do not
apply to it, also if the names are equal, and without a rule of its own it sees nothing. A node is named by its
id, because an admin of the network decides which node has a name.

The other node says who its user is. So between the users of one node a policy is as good as that
node; what none of its rules shows to the node never gets there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lake.access.rules import Policy, PolicyRule
from lake.statements.limits import Requester
from sennit_core.records import Record

__all__ = [
    "EVERY_FOREIGN",
    "SharedRule",
    "foreign_rule",
    "is_foreign",
    "rules_for",
    "with_node_ids",
]

EVERY_FOREIGN = "*@*"
"""The principal of all users of all other nodes."""
_FOREIGN = re.compile(r"(?P<user>.+)@(?P<node>[0-9a-f]{64})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SharedRule(Record):
    """What users of another node see of a dataset, as published for that node.

    Args:
        principal: A user's name there, `role:` and a role, or `*` for all others.
        read: Whether they may read it.
        hidden: The columns that they do not see.
    """

    principal: str
    read: bool = True
    hidden: tuple[str, ...] = ()


def is_foreign(principal: str) -> bool:
    """Return whether a principal, or a user's name, has the form of a user of another node."""
    return principal == EVERY_FOREIGN or _FOREIGN.fullmatch(principal) is not None


def foreign_rule(policy: Policy, requester: Requester) -> PolicyRule | None:
    """Return the rule that counts for a user of another node; None if none does."""
    node = requester.node
    assert node, "it is a user of another node"
    rules = {rule.principal: rule for rule in policy.rules}
    keys = [f"*@{node}", EVERY_FOREIGN]
    if requester.role:
        keys.insert(0, f"role:{requester.role}@{node}")
    # A user may have any name there; one that looks like another kind of principal is none.
    if requester.name and requester.name != "*" and not requester.name.startswith("role:"):
        keys.insert(0, f"{requester.name}@{node}")
    return next((rules[key] for key in keys if key in rules), None)


def rules_for(policy: Policy, node: str) -> Iterator[SharedRule]:
    """Yield what the users of a node see, for that node."""
    rules = {rule.principal: rule for rule in policy.rules}
    if EVERY_FOREIGN in rules:
        rules.setdefault(f"*@{node}", rules[EVERY_FOREIGN])
    for principal, rule in rules.items():
        found = _FOREIGN.fullmatch(principal)
        if found is not None and found["node"] == node:
            hidden = tuple(each.name for each in rule.columns if each.mask is None)
            yield SharedRule(found["user"], rule.read, hidden)


def with_node_ids(rule: PolicyRule, find_node: Callable[[str], str | None]) -> PolicyRule:
    """Return a rule whose principal names a node by its id.

    Args:
        rule: The rule; `alice@oslo` stays as it is if no node is called `oslo`, as users of this
            node may be called so.
        find_node: Returns the id of a member of the network by its name.
    """
    user, at, node = rule.principal.rpartition("@")
    found = find_node(node) if at and user and node != "*" else None
    return rule if found is None else replace(rule, principal=f"{user}@{found}")

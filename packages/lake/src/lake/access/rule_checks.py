"""Checks the rules of an access policy, with their SQL, before they are set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lake.access.rules import Access, PolicyRule, check_rules, written_elsewhere
from lake.distributed.foreign_users import with_node_ids
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool

__all__ = ["checked_rules"]


def checked_rules(
    rules: Iterable[PolicyRule],
    dataset: DatasetInfo,
    pool: ExecutorPool,
    author: str,
    find_node: Callable[[str], str | None],
) -> tuple[PolicyRule, ...]:
    """Return rules that make sense together, and whose SQL an executor has checked.

    Args:
        rules: The rules.
        dataset: The dataset.
        pool: The executors.
        author: The user who sets them.
        find_node: Returns the id of another node of the network by its name.

    Raises:
        UsageError: A rule contradicts itself, or its SQL does not fit the dataset.
        Denied: The SQL does more than compute, or another node restricts the dataset.
    """
    if dataset.node is not None and dataset.head is None:
        raise written_elsewhere(dataset.name, dataset.node)  # the rules are that node's
    rules = check_rules(with_node_ids(rule, find_node) for rule in rules)
    policies = [
        Access(rows=rule.rows, columns=rule.columns, user="a user", role="reader").to_json()
        | {"write": rule.write}
        for rule in rules
        if rule.expressions or rule.columns
    ]
    if policies:
        request = {"engine": "policy", "schema": dataset.schema.to_json(), "rules": policies}
        with pool.submit("lake.sql", request, user=author, restartable=True) as execution:
            execution.result()
    return rules

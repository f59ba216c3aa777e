"""Checks the rules of an access policy, with their SQL, before they are set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lake.access import Access, PolicyRule, check_rules
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool

__all__ = ["checked_rules"]


def checked_rules(
    rules: Iterable[PolicyRule], schema: Schema, pool: ExecutorPool, author: str
) -> tuple[PolicyRule, ...]:
    """Return rules that make sense together, and whose SQL an executor has checked.

    Args:
        rules: The rules.
        schema: The columns of the dataset.
        pool: The executors.
        author: The user who sets them.

    Raises:
        UsageError: A rule contradicts itself, or its SQL does not fit the dataset.
        Denied: The SQL does more than compute.
    """
    rules = check_rules(rules)
    policies = [
        Access(rows=rule.rows, columns=rule.columns, user="a user", role="reader").to_json()
        | {"write": rule.write}
        for rule in rules
        if rule.expressions or rule.columns
    ]
    if policies:
        request = {"engine": "policy", "schema": schema.to_json(), "rules": policies}
        with pool.submit("lake.sql", request, user=author, restartable=True) as execution:
            execution.result()
    return rules

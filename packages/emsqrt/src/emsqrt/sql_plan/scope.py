"""The columns that a query can name, and their resolution."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from emsqrt.expr import Column, Expr, col
from emsqrt.plan import Plan, Project, Rename, check
from emsqrt.sql_plan.errors import fail
from sennit_core.schema import DataType
from sennit_core.text import nearest


@dataclass(frozen=True, slots=True)
class Visible:
    """A column that can be named.

    Args:
        table: the alias of its table.
        name: its name in that table.
        held: the plan's column that contains it.
        type: its type.
        starred: whether `*` includes it and a name without a table can refer to it; false for the
            two sides of a USING.
    """

    table: str
    name: str
    held: str
    type: DataType
    starred: bool = True


@dataclass(frozen=True, slots=True)
class Scope:
    """A plan and those of its columns that can be named, in the order of `*`."""

    plan: Plan
    columns: tuple[Visible, ...]

    def find(self, node: Any, text: str) -> Visible:
        """Return the column that a reference refers to.

        Raises:
            SqlError: none, or more than one.
        """
        table, name = node.table, node.name
        found = [
            each
            for each in self.columns
            if each.name.lower() == name.lower()
            and (each.table.lower() == table.lower() if table else each.starred)
        ]
        exact = [each for each in found if each.name == name]
        found = exact if len(found) > 1 and exact else found
        if len({each.held for each in found}) == 1:
            return found[0]
        if found:
            tables = " and ".join(each.table for each in found)
            fail(node, text, f"{name} is a column of {tables}", "write the table before it")
        names = [each.name for each in self.columns]
        if not names:
            fail(node, text, f"there is no column {node.sql(dialect='duckdb')} without FROM")
        guess = nearest(name, names)
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(names[:20])}"
        return fail(node, text, f"there is no column {node.sql(dialect='duckdb')}", hint)

    def column(self, node: Any, text: str) -> Expr:
        """Return the expression that reads a reference's column."""
        return Column(self.find(node, text).held)


def scope_of(plan: Plan, alias: str) -> Scope:
    """Return the scope of one table."""
    columns = tuple(Visible(alias, each.name, each.name, each.type) for each in check(plan))
    return Scope(plan, columns)


def apart(left: Scope, right: Scope) -> Scope:
    """Return `right` with renamed columns where `left` has the same name."""
    used = {each.held for each in left.columns}
    names = {each.held for each in right.columns}
    renamed: dict[str, str] = {}
    for each in right.columns:
        if each.held in used:
            renamed[each.held] = fresh(f"{each.table}.{each.name}", used | names)
            names.add(renamed[each.held])
    if not renamed:
        return right
    columns = tuple(replace(c, held=renamed.get(c.held, c.held)) for c in right.columns)
    return Scope(Rename(right.plan, tuple(renamed.items())), columns)


def fresh(name: str, used: Iterable[str]) -> str:
    """Return `name`, or the first of `name_1`, `name_2`, … that is unused."""
    known = set(used)
    number, made = 0, name
    while made in known:
        number += 1
        made = f"{name}_{number}"
    return made


def kept(plan: Plan, names: Iterable[str]) -> Plan:
    """Return the plan with these columns alone."""
    return Project(plan, tuple((name, col(name)) for name in names))

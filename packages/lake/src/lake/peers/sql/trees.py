"""Parts of a query's tree: conjuncts, subqueries, and the tables that they name."""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

__all__ = ["aliases_inside", "conjuncts", "free_aliases", "subqueries_of"]


def conjuncts(condition: exp.Expr | None) -> Iterator[exp.Expr]:
    """Yield what AND combines at the top of a condition."""
    if condition is None:
        return
    match condition:
        case exp.Where() | exp.Having() | exp.Paren():
            yield from conjuncts(condition.this)
        case exp.And():
            yield from conjuncts(condition.this)
            yield from conjuncts(condition.expression)
        case _:
            yield condition


def aliases_inside(node: exp.Expr) -> set[str]:
    """Return the names of all tables in the FROM clauses of a tree."""
    found = {each.alias for each in node.find_all(exp.Table, exp.Values)}
    return found | {each.alias for each in node.find_all(exp.Subquery) if each.alias}


def free_aliases(node: exp.Expr) -> set[str]:
    """Return the names of outer tables that a subquery uses: it is correlated if there are any."""
    return {each.table for each in node.find_all(exp.Column) if each.table} - aliases_inside(node)


def subqueries_of(node: exp.Expr) -> Iterator[exp.Query]:
    """Yield the queries directly inside an expression, not those inside these."""
    for child in node.walk(prune=lambda each: isinstance(each, exp.Query) and each is not node):
        if (
            child is not node
            and isinstance(child, exp.Query)
            and not isinstance(child, exp.Subquery)
        ):
            yield child
        elif isinstance(child, exp.Subquery) and child is not node:
            inner = child.unnest()
            assert isinstance(inner, exp.Query), "FROM has tables only"
            yield inner

"""Which columns of a SELECT are equal in every row that its filters let through.

Two rows of tables that are partitioned by the same buckets are in one unit if their keys are equal, so a
key is as good as any column that equals it. Only columns of one type count: a DOUBLE can equal two
different BIGINTs, whose rows may be in two units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlglot import exp

from lake.peers.sql.tables import key_class
from lake.peers.sql.trees import conjuncts

__all__ = ["ColumnId", "Equalities", "column_id"]

ColumnId = tuple[str, str]
"""The name of a table in FROM, and that of its column."""


def column_id(node: exp.Expr | None) -> ColumnId | None:
    """Return what column an expression is; None if it is none."""
    while isinstance(node, exp.Paren):
        node = node.this
    return (node.table, node.name) if isinstance(node, exp.Column) and node.table else None


class Equalities:
    """Sets of columns that are equal, from conjuncts of conditions.

    Args:
        type_of: Returns the type of a column; None if it is not known.
    """

    def __init__(self, type_of: Callable[[ColumnId], str | None]) -> None:
        self._type_of = type_of
        self._sets: dict[ColumnId, set[ColumnId]] = {}

    def add(self, condition: exp.Expr | None) -> None:
        """Add the equalities among the conjuncts of a condition."""
        for each in conjuncts(condition):
            if isinstance(each, exp.EQ):
                left, right = column_id(each.this), column_id(each.expression)
                if left and right and self._are_comparable(left, right):
                    both = self.of(left) | self.of(right)
                    self._sets |= dict.fromkeys(both, both)

    def of(self, column: ColumnId) -> set[ColumnId]:
        """Return a column and all that equal it."""
        return self._sets.get(column, {column})

    def closure(self, columns: Iterable[ColumnId]) -> frozenset[ColumnId]:
        """Return columns and all that equal one of them."""
        return frozenset().union(*(self.of(column) for column in columns))

    def _are_comparable(self, left: ColumnId, right: ColumnId) -> bool:
        one, other = self._type_of(left), self._type_of(right)
        return one is not None and other is not None and key_class(one) == key_class(other)

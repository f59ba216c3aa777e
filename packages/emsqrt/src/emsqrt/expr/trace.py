"""Python functions turned into expressions by calling them once with a stand-in for a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emsqrt.expr.nodes import Column, Expr, as_expr
from sennit_core.errors import UnknownColumn
from sennit_core.schema import Schema


class Row:
    """Stands for a row while a function is traced: `r.price` and `r["unit price"]` are columns."""

    __slots__ = ("_names",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> Column:
        if name not in self._names:
            raise UnknownColumn(name, known=self._names)
        return Column(name)

    def __getattr__(self, name: str) -> Column:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


def trace(fn: Callable[[Any], object], schema: Schema) -> Expr:
    """Return the expression that `fn` computes from a row of `schema`.

    `fn` is called once, with a stand-in whose attributes and items are columns:
    `trace(lambda r: r.price * r["qty"] > 500, schema)`.

    Args:
        fn: a function of one row that returns an expression or a constant.
        schema: the columns the row has.

    Raises:
        UnknownColumn: `fn` reads a column the schema does not have.
        UsageError: `fn` asks for a value with `if`, `and`, `in`, `int()`, an f-string, …
    """
    return as_expr(fn(Row(tuple(schema.names))))

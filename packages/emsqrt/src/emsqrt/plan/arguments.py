"""Validate the fields of plan nodes on construction, so that the error points at the mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from emsqrt.expr import Agg, Expr, SortKey
from sennit_core.errors import UsageError

Check: TypeAlias = Callable[[Any], bool]
_WRITTEN = 'build it, such as parse_expr("age > 25") of emsqrt.expr, or use emsqrt.scan, which does'


def check_arguments(node: Any, inputs: type) -> None:
    """Check that the fields of a node have the right types.

    Args:
        node: a plan's node that was just constructed.
        inputs: the class of the nodes that it may read from.

    Raises:
        UsageError: a field has a wrong type; names the field and its value.
    """
    name = type(node).__name__
    for field in ("input", "left", "right"):
        found = getattr(node, field, None)
        if hasattr(node, field) and not isinstance(found, inputs):
            raise _wrong(name, field, "a plan", found, "begin with Scan(Files(paths, format))")
    for field, wanted, check, hint in _CHECKS.get(name, ()):
        found = getattr(node, field)
        if not check(found):
            raise _wrong(name, field, wanted, found, hint)


def _wrong(node: str, field: str, wanted: str, found: object, hint: str) -> UsageError:
    return UsageError(f"{node}.{field} is {wanted}, not {found!r:.80}", hint=hint)


def _is_expr(value: object) -> bool:
    return isinstance(value, Expr)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _each(check: Check) -> Check:
    return lambda values: (
        isinstance(values, Iterable) and not isinstance(values, str) and all(map(check, values))
    )


def _named(kind: type) -> Check:
    def check(pair: Any) -> bool:
        return (
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], kind)
        )

    return _each(check)


_COLUMNS = ("columns", "pairs of a name and an expression", _named(Expr), _WRITTEN)
_KEYS = (
    "keys",
    "sort keys",
    _each(lambda key: isinstance(key, SortKey)),
    'write (SortKey(col("age")),), of emsqrt.expr',
)
_COUNT = ("count", "a number of rows", _is_count, "use an int")
_OFFSET = ("offset", "a number of rows", _is_count, "use an int")
_CHECKS: dict[str, tuple[tuple[str, str, Check, str], ...]] = {
    "Filter": (("predicate", "an expression", _is_expr, _WRITTEN),),
    "Project": (_COLUMNS,),
    "WithColumn": (_COLUMNS,),
    "Aggregate": (
        ("keys", "pairs of a name and an expression", _named(Expr), _WRITTEN),
        ("aggs", "pairs of a name and an aggregate", _named(Agg), _WRITTEN),
    ),
    "Sort": (_KEYS,),
    "TopK": (_KEYS, _COUNT, _OFFSET),
    "Limit": (_COUNT, _OFFSET),
    "Window": (
        ("partition_by", "a tuple of expressions", _each(_is_expr), _WRITTEN),
        ("order_by", *_KEYS[1:]),
    ),
}
"""By the class of a node: (field, description, predicate, hint)."""

"""Turn a condition on rows into a test of their shard: an expression over the bounds of its columns.

`x > 5` becomes `max_x > 5`, with the constant as written. Names in a test: `aN` and `zN` are the least
and the greatest value of column N, `nN` its NULLs, `bN` and `kN` its bucket and whether that is known, `rows`
the rows of the shard. A test is false only if no row of the shard fulfils the condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lake.sql.guard import expression_text
from lake.sql.scan_filters import Condition, Node
from lake.sql.types import literal
from lake.sql.volatility import volatile_names

__all__ = ["Statistics", "Test", "test_of"]

_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_MIRRORED = {"=": "=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_CONSTANT_CLASSES = frozenset(("CONSTANT", "CAST", "FUNCTION", "PARAMETER", "TYPE"))
# The time of the transaction, in which the query runs too.
_CLOCKS = frozenset(("now", "get_current_timestamp", "transaction_timestamp", "today"))
_LIST_MAX = 64
"""A longer IN is compared as a range: each element costs two comparisons for each shard."""
_NODES_MAX = 2000
"""A query with more nodes in a filter is not looked at: its text may be 8 MiB."""
# Functions of a date or time that grow with it.
_GROWING = {"year": 1, "date_trunc": 2}
_PREFIXED = frozenset(("~~", "starts_with", "prefix", "^@"))
"""LIKE, and functions of a text and what it begins with."""
_WILDCARDS = re.compile(r"[%_\\\\]")


@dataclass(frozen=True, slots=True)
class Test:
    """A test of shards.

    Args:
        text: An expression over their statistics.
        columns: The columns that it is about.
        has_clock: Whether it depends on the time of the transaction.
    """

    text: str
    columns: frozenset[str]
    has_clock: bool = False


class Statistics(Protocol):
    """What is known of the shards of a dataset; names of columns are in lower case."""

    def statistics_of(self, column: str) -> dict[str, Any] | None:
        """Return the statistics of a column; None if there are none."""

    def type_of(self, column: str) -> str:
        """Return the type of a column in DuckDB."""

    def place(self, column: str) -> int:
        """Return the number of a column in the names of a test."""

    def bucket_test(self, column: str, constants: Sequence[str]) -> str | None:
        """Return the test for the buckets of constants; None if one has no certain bucket."""

    def value(self, identifier: str) -> Any:
        """Return the value of a placeholder; None if it has none, or NULL."""


def test_of(condition: Condition, statistics: Statistics) -> Test | None:
    """Return the test of a condition; None if it is not understood."""
    translation = _Translation(statistics, condition)
    found = translation.test(condition.node)
    return None if found is None else replace(found, has_clock=translation.has_clock)


class _Translation:
    """Translates a condition on rows to one on the bounds of their shard."""

    def __init__(self, statistics: Statistics, condition: Condition) -> None:
        self._statistics = statistics
        self._condition = condition
        self.has_clock = False

    def test(self, node: Node, depth: int = 0) -> Test | None:
        """Return the test of a condition; None if it is not understood."""
        if depth > 100:
            return None
        match node.get("type"):
            case "CONJUNCTION_AND":
                found = [self.test(child, depth + 1) for child in node["children"]]
                return _joined([each for each in found if each is not None], " AND ")
            case "CONJUNCTION_OR":
                found = [self.test(child, depth + 1) for child in node["children"]]
                known = [each for each in found if each is not None]
                return _joined(known, " OR ") if len(known) == len(found) else None
            case "COMPARE_BETWEEN":
                lower, upper = node["lower"], node["upper"]
                low = self._compare(node["input"], ">=", [lower], other_end=upper)
                high = self._compare(node["input"], "<=", [upper], other_end=lower)
                return _joined([each for each in (low, high) if each is not None], " AND ")
            case "COMPARE_IN":
                return self._compare(node["children"][0], "=", node["children"][1:])
            case "OPERATOR_IS_NULL" | "OPERATOR_IS_NOT_NULL" as kind:
                return self._null_test(node["children"][0], is_null=kind == "OPERATOR_IS_NULL")
            case "FUNCTION" if node["function_name"] in _PREFIXED:
                return self._prefix_test(node)
            case kind if kind in _COMPARISONS:
                sign, left, right = _COMPARISONS[kind], node["left"], node["right"]
                return self._compare(left, sign, [right]) or self._compare(
                    right, _MIRRORED[sign], [left]
                )
        return None

    def _compare(
        self, value: Node, sign: str, constants: Sequence[Node], other_end: Node | None = None
    ) -> Test | None:
        """Return the test of a comparison with one of constants; None if it is not understood.

        Args:
            value: The column, or what grows with it.
            sign: The comparison.
            constants: What it is compared with.
            other_end: The other end of BETWEEN, which also decides as what type all are compared.
        """
        found = self._bounds(value)
        if found is None:
            return None
        column, wrap, is_plain = found
        texts = [self._constant(each, column) for each in constants]
        if not texts or None in texts:
            return None
        place = self._statistics.place(column)
        known = [text for text in texts if text is not None]
        low, high = wrap(f"a{place}"), wrap(f"z{place}")
        if self._are_rounded(column, constants if other_end is None else [*constants, other_end]):
            is_plain = False
            low, high, *known = (f"CAST({text} AS DOUBLE)" for text in (low, high, *known))
        if sign == "=":
            if len(known) > _LIST_MAX:
                listed = ", ".join(known)
                tests = [f"{low} <= greatest({listed}) AND {high} >= least({listed})"]
            else:
                tests = [f"{low} <= {text} AND {high} >= {text}" for text in known]
        else:
            tests = [f"{low if sign[0] == '<' else high} {sign} {known[0]}"]
        text = " OR ".join(f"coalesce({each}, true)" for each in tests)
        # A shard with NULLs alone has no bounds, and no row that compares.
        text = f"(coalesce(n{place} < rows, true) AND ({text}))"
        if sign == "=" and is_plain and len(known) <= _LIST_MAX:
            bucket = self._statistics.bucket_test(column, known)
            text = f"({text} AND {bucket})" if bucket else text
        return Test(text, frozenset((column,)))

    def _prefix_test(self, node: Node) -> Test | None:
        """Return the test of a text's beginning: cut to a length, texts keep their order."""
        name, arguments = node["function_name"], [each["expression"] for each in node["arguments"]]
        column = self._column(arguments[0]) if len(arguments) == 2 else None
        if column is None or self._statistics.type_of(column) != "VARCHAR":
            return None
        if list(_path(node)) != [name] or not self._is_text(arguments[1]):
            return None
        if arguments[1]["class"] == "PARAMETER":
            text = self._statistics.value(arguments[1]["identifier"])
        else:
            text = arguments[1]["literal"]["text"]
        prefix = _WILDCARDS.split(text, maxsplit=1)[0] if name == "~~" else text
        if not prefix or "\0" in prefix:
            return None
        place, cut = self._statistics.place(column), literal(prefix)
        test = " AND ".join(
            f"coalesce(left({bound}{place}, {len(prefix)}) {sign} {cut}, true)"
            for bound, sign in (("a", "<="), ("z", ">="))
        )
        return Test(f"(coalesce(n{place} < rows, true) AND {test})", frozenset((column,)))

    def _bounds(self, node: Node) -> tuple[str, Callable[[str], str], bool] | None:
        """Return the column of a value, and how its bounds become those of the value."""
        column = self._column(node)
        if column is not None:
            return column, str, True
        kind = node.get("type")
        if kind == "OPERATOR_CAST" and _type_name(node) == "DATE" and not node.get("try_cast"):
            column = self._time(node["child"])
            return None if column is None else (column, lambda text: f"CAST({text} AS DATE)", False)
        if kind == "FUNCTION" and node["function_name"] in _GROWING:
            return self._growing(node)
        return None

    def _growing(self, node: Node) -> tuple[str, Callable[[str], str], bool] | None:
        name = node["function_name"]
        arguments = [each["expression"] for each in node["arguments"]]
        if len(arguments) != _GROWING[name] or list(_path(node)) != [name]:
            return None
        column = self._time(arguments[-1])
        unit = self._constant(arguments[0], column) if column and len(arguments) > 1 else ""
        if column is None or unit is None:
            return None
        before = f"{unit}, " if unit else ""
        return column, lambda text: f"{name}({before}{text})", False

    def _time(self, node: Node) -> str | None:
        column = self._column(node)
        if column is None or not self._statistics.type_of(column).startswith(("DATE", "TIMESTAMP")):
            return None
        return column

    def _null_test(self, node: Node, *, is_null: bool) -> Test | None:
        column = self._column(node)
        if column is None or (is_null and not self._condition.tests_null):
            return None
        place = self._statistics.place(column)
        text = f"n{place} > 0" if is_null else f"n{place} < rows"
        return Test(f"coalesce({text}, true)", frozenset((column,)))

    def _column(self, node: Node) -> str | None:
        column = self._condition.column(node)
        return column if column and self._statistics.statistics_of(column) is not None else None

    def _constant(self, node: Node, column: str) -> str | None:
        """Return the text of a constant expression; None if it is none, or of a doubtful type."""
        if self._statistics.type_of(column) == "VARCHAR" and not self._is_text(node):
            return None  # the column might be cast, which keeps no order
        if not self._is_constant(node):
            return None
        return expression_text(node)

    def _are_rounded(self, column: str, constants: Sequence[Node]) -> bool:
        """Return whether DuckDB may compare exact numbers as DOUBLE, as one of several constants is one."""
        kind = self._statistics.type_of(column)
        is_exact = "INT" in kind or kind.startswith("DECIMAL")
        return is_exact and len(constants) > 1 and not all(map(self._is_number, constants))

    def _is_number(self, node: Node) -> bool:
        """Return whether a constant is an integer or a decimal, as written or as a parameter."""
        if node.get("class") == "PARAMETER":
            return isinstance(self._statistics.value(node["identifier"]), int)
        literal = node.get("literal") or {}
        is_number = literal.get("kind") in ("INTEGER", "NUMERIC")
        return is_number and "e" not in literal["text"].casefold()

    def _is_text(self, node: Node) -> bool:
        if node.get("class") == "PARAMETER":
            return isinstance(self._statistics.value(node["identifier"]), str)
        literal = node.get("literal") or {}
        return node.get("class") == "CONSTANT" and literal.get("kind") == "STRING"

    def _is_constant(self, node: Node) -> bool:
        waiting, seen = [node], 0
        while waiting:
            each = waiting.pop()
            seen += 1
            kind = each.get("class")
            if kind not in _CONSTANT_CLASSES or seen > _NODES_MAX:
                return False
            if kind == "PARAMETER" and self._statistics.value(each["identifier"]) is None:
                return False
            if kind == "FUNCTION":
                if not _is_repeatable(each):
                    return False
                self.has_clock |= each["function_name"].casefold() in _CLOCKS
            if kind == "CAST":
                waiting.append(each["child"])
            elif kind == "FUNCTION":
                waiting += [argument["expression"] for argument in each["arguments"]]
        return True


def _is_repeatable(node: Node) -> bool:
    name = node["function_name"].casefold()
    return name in _CLOCKS or name not in volatile_names()


def _path(node: Node) -> Sequence[str]:
    return (node.get("qualified_name") or {}).get("path") or ()


def _type_name(node: Node) -> str:
    return str((node.get("type_expr") or {}).get("type_name", "")).upper()


def _joined(tests: list[Test], word: str) -> Test | None:
    if not tests:
        return None
    text = word.join(test.text for test in tests)
    return Test(f"({text})", frozenset().union(*(test.columns for test in tests)))

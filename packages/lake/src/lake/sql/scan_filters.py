"""Find the conditions that each scan of a dataset is under, in the syntax tree of a query.

A condition may leave out rows before the scan if no row that it leaves out could change the result:

    WHERE of a SELECT        any table of its FROM, also the one that an outer join fills with NULL:
                             the condition is not true of NULL, unless it is IS NULL
    ON of an inner join      both sides
    ON of an outer join      the side that it fills with NULL
    ON of SEMI and ANTI      the right side
    ASOF                     the left side; which row the right side gives depends on all its rows
    POSITIONAL, samples      none

Only columns of the dataset itself are compared with constants here. What is not understood is no
condition, so its scan reads all shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = ["Condition", "Node", "Scan", "find_scans"]

Node: TypeAlias = dict[str, Any]

_JOINS = frozenset(("INNER", "LEFT", "RIGHT", "OUTER", "SEMI", "ANTI"))


@dataclass(frozen=True, slots=True)
class Condition:
    """A conjunct of the filters of a scan.

    Args:
        node: Its tree.
        column: Returns the scan's column that a reference means, in lower case; None for any other.
        tests_null: Whether IS NULL means the column of a row, and not of one that a join fills in.
    """

    node: Node
    column: Callable[[Node], str | None]
    tests_null: bool


@dataclass(eq=False, slots=True)
class Scan:
    """A mention of a dataset, or of something else in a FROM clause.

    Args:
        table: The name as written.
        alias: Its name in the query.
        columns: The dataset's columns, in lower case; None if it is no dataset.
        conditions: What its filters consist of.
        filled: Whether an outer join may fill it with NULL.
        fixed: Whether all its rows matter.
    """

    table: str
    alias: str
    columns: frozenset[str] | None
    conditions: list[Condition] = field(default_factory=list)
    filled: bool = False
    fixed: bool = False


def find_scans(nodes: list[Node], columns_of: Callable[[str], frozenset[str] | None]) -> list[Scan]:
    """Return all scans of a query, with their conditions.

    Args:
        nodes: All nodes of its syntax tree; no name is that of a CTE and of a dataset.
        columns_of: Returns the columns of a dataset in lower case; None for any other name.
    """
    seen: set[int] = set()
    scans: list[Scan] = []
    for node in nodes:
        if node.get("type") == "SELECT_NODE" and node.get("from_table"):
            found = _From(columns_of, seen)
            visible = found.read(node["from_table"])
            if node.get("sample"):
                _fix(found.scans)
            found.add(visible, node.get("where_clause"))
            scans += [scan for scan in found.scans if scan.columns is not None]
    # Mentions elsewhere, as in PIVOT or SUMMARIZE, read all.
    for node in nodes:
        if node.get("type") == "BASE_TABLE" and id(node) not in seen:
            name = node["table_name"]
            scans.append(Scan(name, name, columns_of(name), fixed=True))
    return scans


class _From:
    """The tables of one FROM clause."""

    def __init__(self, columns_of: Callable[[str], frozenset[str] | None], seen: set[int]) -> None:
        self.scans: list[Scan] = []
        self._columns_of = columns_of
        self._seen = seen
        # Columns of USING, which belong to no one table; None once a join is NATURAL.
        self._shared: set[str] | None = set()

    def read(self, node: Node) -> list[Scan]:
        """Add the tables of an item of FROM; return those that it adds."""
        match node.get("type"):
            case "BASE_TABLE":
                found = [self._table(node)]
            case "JOIN":
                return self._join(node)
            case _:
                found = [Scan("", node.get("alias", ""), None, fixed=True)]
        self.scans += found
        return found

    def add(self, scans: list[Scan], condition: Node | None) -> None:
        """Put scans under the conjuncts of a condition on the rows of a join as it is so far."""
        for scan in scans:
            if condition and scan.columns is not None and not scan.fixed:
                scan.conditions += [
                    Condition(each, self._resolver(scan), tests_null=not scan.filled)
                    for each in _conjuncts(condition)
                ]

    def _resolver(self, scan: Scan) -> Callable[[Node], str | None]:
        return lambda node: self._column(node, scan)

    def _table(self, node: Node) -> Scan:
        self._seen.add(id(node))
        name = node["table_name"]
        is_fixed = bool(node.get("column_name_alias") or node.get("sample"))
        return Scan(name, node.get("alias") or name, self._columns_of(name), fixed=is_fixed)

    def _join(self, node: Node) -> list[Scan]:
        kind, how = node.get("join_type"), node.get("ref_type")
        left, right = self.read(node["left"]), self.read(node["right"])
        if how == "NATURAL":
            self._shared = None
        elif self._shared is not None:
            self._shared |= {name.casefold() for name in node.get("using_columns") or ()}
        both = [*left, *right]
        if how not in ("REGULAR", "CROSS", "NATURAL", "ASOF") or kind not in _JOINS:
            _fix(both)
            return both
        if how == "ASOF":
            _fix(right)
        else:
            # Before the join fills a side: its condition decides what is joined.
            condition = node.get("condition")
            if kind in ("INNER", "LEFT", "SEMI", "ANTI"):
                self.add(right, condition)
            if kind in ("INNER", "RIGHT"):
                self.add(left, condition)
        for scan in [*(right if kind in ("LEFT", "OUTER") else ()),
                     *(left if kind in ("RIGHT", "OUTER") else ())]:  # fmt: skip
            scan.filled = True
        # After SEMI and ANTI, no condition can name a column of the right side.
        return left if kind in ("SEMI", "ANTI") else both

    def _column(self, node: Node, scan: Scan) -> str | None:
        """Return the scan's column that a reference means, in lower case; None for any other."""
        if node.get("class") != "COLUMN_REF":
            return None
        names = [name.casefold() for name in node["column_names"]]
        assert scan.columns is not None
        if len(names) == 1:
            owners = [each for each in self.scans if each.columns and names[0] in each.columns]
            is_shared = self._shared is None or names[0] in self._shared
            return None if is_shared or owners != [scan] else names[0]
        same = [each for each in self.scans if each.alias.casefold() == names[0]]
        is_own = len(names) == 2 and len(same) == 1 and same[0] is scan
        return names[1] if is_own and names[1] in scan.columns else None


def _fix(scans: list[Scan]) -> None:
    for scan in scans:
        scan.fixed = True
        scan.conditions.clear()


def _conjuncts(node: Node) -> Iterator[Node]:
    if node.get("type") == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from _conjuncts(child)
    else:
        yield node

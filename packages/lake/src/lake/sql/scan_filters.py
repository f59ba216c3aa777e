"""Find the conditions that each scan of a dataset is under, in the syntax tree of a query.

A condition may leave out rows before the scan if no row that it leaves out could change the result:

    WHERE of a SELECT        any table of its FROM, also the one that an outer join fills with NULL:
                             the condition is not true of NULL, unless it is IS NULL
    ON of an inner join      both sides
    ON of an outer join      the side that it fills with NULL
    ON of SEMI and ANTI      the right side
    ASOF                     the left side; which row the right side gives depends on all its rows
    POSITIONAL, samples      none

A subquery in FROM and a view pass conditions on to the tables below, for the columns that they show as
they are, unless a row that is left out below could change others: GROUP BY, windows, LIMIT, DISTINCT ON.

Only columns of the dataset itself are compared with constants here. What is not understood is no
condition, so its scan reads all shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

__all__ = ["Columns", "Condition", "Node", "Scan", "ViewTree", "conjuncts", "find_scans"]

Node: TypeAlias = dict[str, Any]
Columns: TypeAlias = Mapping[str, str]
"""The types of columns by their names in lower case, in their order."""

_DEPTH_MAX = 32
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
        columns: Its columns; None if they are not known.
        conditions: What its filters consist of.
        filled: Whether an outer join may fill it with NULL.
        fixed: Whether all its rows matter.
        below: For each column of a subquery or view the columns that it is, of scans below: several
            for a UNION.
    """

    table: str
    alias: str
    columns: Columns | None
    conditions: list[Condition] = field(default_factory=list)
    filled: bool = False
    fixed: bool = False
    below: Mapping[str, Sequence[tuple[Scan, str]]] = field(default_factory=dict)

    def pass_on(self, condition: Condition) -> None:
        """Put the scans below under a condition on this one."""
        scans = {id(scan): scan for found in self.below.values() for scan, _ in found}
        for scan in scans.values():
            if not scan.fixed and scan.columns is not None:
                below = replace(
                    condition,
                    column=self._column_below(condition, scan),
                    tests_null=condition.tests_null and not scan.filled,
                )
                scan.conditions.append(below)
                scan.pass_on(below)

    def _column_below(self, condition: Condition, scan: Scan) -> Callable[[Node], str | None]:
        def column(node: Node) -> str | None:
            own = condition.column(node)
            found = self.below.get(own, ()) if own is not None else ()
            return next((name for each, name in found if each is scan), None)

        return column


@dataclass(frozen=True, slots=True)
class ViewTree:
    """The query of a view.

    Args:
        nodes: All nodes of its syntax tree.
        root: Its outermost node.
        names: Names for its first columns.
    """

    nodes: Sequence[Node]
    root: Node
    names: Sequence[str] = ()


def find_scans(
    nodes: Sequence[Node],
    columns_of: Callable[[str], Columns | None],
    view_of: Callable[[str], ViewTree | None] = lambda _: None,
) -> list[Scan]:
    """Return all scans of datasets in a query, with their conditions.

    Args:
        nodes: All nodes of its syntax tree; no name is that of a CTE and of a dataset or view.
        columns_of: Returns the columns of a dataset; None for any other name.
        view_of: Returns a view; None for any other name.
    """
    finder = _Finder(columns_of, view_of)
    finder.read(nodes)
    return finder.scans


class _Finder:
    """Finds the scans of a query, or of a view at one of its mentions.

    Each mention of a view has a finder of its own, as its scans are under other conditions.
    """

    def __init__(
        self,
        columns_of: Callable[[str], Columns | None],
        view_of: Callable[[str], ViewTree | None],
    ) -> None:
        self.scans: list[Scan] = []
        self.columns_of = columns_of
        self.seen: set[int] = set()
        self._view_of = view_of
        self._selects: dict[int, _From] = {}
        self._depth = 0  # of the query that is read

    def read(self, nodes: Sequence[Node]) -> None:
        """Add the scans of all these nodes."""
        for node in nodes:
            if node.get("type") == "SELECT_NODE" and node.get("from_table"):
                self.select(node)
        # Mentions elsewhere, as in PIVOT or SUMMARIZE, read all.
        for node in nodes:
            if node.get("type") == "BASE_TABLE" and id(node) not in self.seen:
                name = node["table_name"]
                columns = self.columns_of(name)
                if columns is not None:
                    self.scans.append(Scan(name, name, columns, fixed=True))
                self.view(name, "")

    def select(self, node: Node) -> _From:
        """Return the tables of a SELECT, which is read once."""
        found = self._selects.get(id(node))
        if found is None:
            found = self._selects[id(node)] = _From(self)
            found.visible = found.read(node["from_table"])
            if node.get("sample"):
                _fix(found.scans)
            found.add(found.visible, node.get("where_clause"))
            for scan in found.scans:
                # Not before, as a join may have fixed the scan after a condition was added.
                for condition in scan.conditions:
                    scan.pass_on(condition)
            self.scans += [scan for scan in found.scans if scan.table]
        return found

    def view(self, name: str, alias: str) -> Scan | None:
        """Return a mention of a view, whose scans are added; None for any other name."""
        tree = self._view_of(name)
        if tree is None:
            return None
        finder = _Finder(self.columns_of, self._view_of)
        finder.read(tree.nodes)
        self.scans += finder.scans
        return finder.derived(tree.root, alias, tree.names)

    def derived(self, node: Node, alias: str, names: Sequence[str] = ()) -> Scan:
        """Return a query in the place of a table."""
        self._depth += 1
        # Deeper ones are read too, but without the conditions above: Python's recursion is limited.
        outputs = self._outputs(node) or () if self._depth <= _DEPTH_MAX else ()
        self._depth -= 1
        columns = [name for name, *_ in outputs]
        columns[: len(names)] = [name.casefold() for name in names]
        if not outputs or len(columns) != len(outputs) or len(set(columns)) < len(columns):
            # DuckDB gives columns of one name others, which may be those of further columns.
            return Scan("", alias, None, fixed=True)
        return Scan(
            "",
            alias,
            {name: kind for name, (_, kind, _) in zip(columns, outputs, strict=True)},
            below={name: below for name, (*_, below) in zip(columns, outputs, strict=True)},
        )

    def _outputs(self, node: Node) -> list[_Output] | None:
        """Return the columns of a query that conditions pass through; None if there are none."""
        if any(each["type"] not in _PASSED or each.get("distinct_on_targets")
               for each in node.get("modifiers") or ()):  # fmt: skip
            return None
        if node.get("type") == "SET_OPERATION_NODE":
            return self._union(node)
        if node.get("type") != "SELECT_NODE" or _is_more_than_rows(node):
            return None
        return self.select(node).outputs(node["select_list"])

    def _union(self, node: Node) -> list[_Output] | None:
        if node.get("setop_type") != "UNION" or not node.get("children"):
            return None
        parts = [self._outputs(each) for each in node["children"]]
        found: list[_Output] = []
        for columns in zip(*(part or () for part in parts), strict=False):
            name, kind, _ = columns[0]
            # Columns of several types are cast to one, in which they may have another order.
            is_same = kind and all(kind == each for _, each, _ in columns)
            below = [source for *_, each in columns for source in each] if is_same else []
            found.append((name, kind if is_same else "", below))
        return found if found and len({len(part or ()) for part in parts}) == 1 else None


_Output: TypeAlias = tuple[str, str, Sequence[tuple[Scan, str]]]
"""The name of a column, its type ("" if not known), and the columns of scans that it is."""
_PASSED = frozenset(("ORDER_MODIFIER", "DISTINCT_MODIFIER"))
"""Modifiers of a query that a condition on its result passes through."""


def _is_more_than_rows(node: Node) -> bool:
    """Return whether a SELECT computes something from several rows."""
    if node.get("aggregate_handling") != "STANDARD_HANDLING" or not node.get("from_table"):
        return True
    if any(node.get(key) for key in ("group_expressions", "group_sets", "having", "qualify",
                                     "sample")):  # fmt: skip
        return True
    waiting: list[Any] = list(node["select_list"])
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if each.get("class") == "WINDOW":
                return True
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return False


class _From:
    """The tables of one FROM clause."""

    def __init__(self, finder: _Finder) -> None:
        self.scans: list[Scan] = []
        self.visible: list[Scan] = []
        self._finder = finder
        # Columns of USING, which belong to no one table; None once a join is NATURAL.
        self._shared: set[str] | None = set()

    def read(self, node: Node) -> list[Scan]:
        """Add the tables of an item of FROM; return those that it adds."""
        match node.get("type"):
            case "BASE_TABLE":
                found = [self._table(node)]
            case "JOIN":
                return self._join(node)
            case "SUBQUERY" if not node.get("sample"):
                names = node.get("column_name_alias") or ()
                query = node["subquery"]["node"]
                found = [self._finder.derived(query, node.get("alias", ""), names)]
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
                    for each in conjuncts(condition)
                ]

    def _resolver(self, scan: Scan) -> Callable[[Node], str | None]:
        return lambda node: self._column(node, scan)

    def _table(self, node: Node) -> Scan:
        self._finder.seen.add(id(node))
        name = node["table_name"]
        alias = node.get("alias") or name
        is_fixed = bool(node.get("column_name_alias") or node.get("sample"))
        columns = self._finder.columns_of(name)
        if columns is not None:
            return Scan(name, alias, columns, fixed=is_fixed)
        found = self._finder.view(name, alias) or Scan("", alias, None, fixed=True)
        found.fixed |= is_fixed
        return found

    def outputs(self, expressions: Sequence[Node]) -> list[_Output] | None:
        """Return the columns of a SELECT over these tables; None if one has no certain name."""
        found: list[_Output] = []
        for each in expressions:
            alias = (each.get("alias") or "").casefold()
            match each.get("class"):
                case "STAR":
                    starred = self._starred(each)
                    if starred is None:
                        return None
                    found += starred
                case "COLUMN_REF":
                    found.append(self._output(each, alias or each["column_names"][-1].casefold()))
                case _ if alias:
                    found.append((alias, "", ()))
                case _:
                    return None
        return found

    def _output(self, node: Node, name: str) -> _Output:
        for scan in self.scans:
            if scan.columns is not None and (column := self._column(node, scan)) is not None:
                return name, scan.columns[column], ((scan, column),)
        return name, "", ()

    def _starred(self, node: Node) -> list[_Output] | None:
        """Return the columns of `*` or `table.*`; None if they are others than all of tables."""
        if self._shared or self._shared is None or node.get("columns") or any(
            node.get(key) for key in ("exclude_list", "replace_list", "rename_list", "expr",
                                      "qualified_exclude_list")
        ):  # fmt: skip
            return None
        name = (node.get("relation_name") or "").casefold()
        scans = [each for each in self.visible if not name or each.alias.casefold() == name]
        if not scans or any(scan.columns is None for scan in scans) or (name and len(scans) > 1):
            return None
        return [
            (column, kind, ((scan, column),))
            for scan in scans
            for column, kind in (scan.columns or {}).items()
        ]

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


def conjuncts(node: Node) -> Iterator[Node]:
    """Yield the conditions that a condition consists of."""
    if node.get("type") == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from conjuncts(child)
    else:
        yield node

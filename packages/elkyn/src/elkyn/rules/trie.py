"""The rules as a trie by path: one node per key, and one for a `$` variable at each level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from elkyn.rules.compiler import Closure, Context
from elkyn.rules.nodes import Node
from elkyn.rules.operators import Failed
from elkyn.tree.paths import Path

__all__ = ["Pattern", "Rule", "RuleNode"]

Pattern: TypeAlias = tuple[str | None, ...]
"""The keys of a path in the rules, None for a `$` variable."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Args:
        kind: `.read`, `.write` or `.validate`.
        place: the path of the rule in the file, with `$` variables.
        depth: the number of keys above it.
        text: the expression as uploaded.
        line: the line where the text begins in the file, from 1.
        column: the column where it begins, from 1.
        run: the compiled expression.
        tree: the syntax tree of the expression.
        timed: whether the expression uses `now`.
    """

    kind: str
    place: str
    depth: int
    text: str
    line: int
    column: int
    run: Closure
    tree: Node
    timed: bool

    def allows(self, context: Context) -> bool:
        """Evaluate the rule; a failed evaluation is False."""
        try:
            # Only `true` allows: a rule is checked to be a boolean, and anything else would be a
            # mistake here.
            return self.run(context) is True
        except Failed:
            return False


@dataclass(slots=True)
class RuleNode:
    """The rules of one path; a named child takes precedence over the `$` variable."""

    read: Rule | None = None
    write: Rule | None = None
    validate: Rule | None = None
    index_on: tuple[str, ...] = ()
    children: dict[str, RuleNode] = field(default_factory=dict)
    wildcard: RuleNode | None = None
    # Whether a node below has a `.validate`; without one, a write need not be walked.
    validates_below: bool = False

    def child(self, key: str) -> RuleNode | None:
        """Return the rules of child `key`."""
        return self.children.get(key, self.wildcard)

    def along(self, path: Path) -> list[RuleNode]:
        """Return the nodes from here down to `path`, as far as they exist."""
        node = self
        nodes = [node]
        for key in path:
            below = node.children.get(key, node.wildcard)
            if below is None:
                return nodes
            nodes.append(below)
            node = below
        return nodes

    def at(self, path: Path) -> RuleNode | None:
        """Return the node at `path` below this one."""
        nodes = self.along(path)
        return nodes[-1] if len(nodes) > len(path) else None

    def indexes(self, above: Pattern = ()) -> Iterator[tuple[Pattern, tuple[str, ...]]]:
        """Yield every `.indexOn` with its path pattern, None for a `$` variable."""
        if self.index_on:
            yield above, self.index_on
        for key, node in self.children.items():
            yield from node.indexes((*above, key))
        if self.wildcard is not None:
            yield from self.wildcard.indexes((*above, None))

"""Rules by place: one node a key, a `$` variable beside the named ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from elkyn.paths import Path
from elkyn.rules.compiler import Closure, Context
from elkyn.rules.nodes import Node
from elkyn.rules.operators import Failed

__all__ = ["Pattern", "Rule", "RuleNode"]

Pattern: TypeAlias = tuple[str | None, ...]
"""Keys that lead to a place of the rules, None for a `$` variable."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Args:
        kind: `.read`, `.write` or `.validate`.
        place: the path of the rule in the file, with `$` variables.
        depth: how many keys of a path lie above it.
        text: the expression as it was uploaded.
        line: where the rule's text begins in the file, from 1.
        column: likewise.
        run: the compiled expression.
        tree: what it was compiled from.
        timed: whether it asks what time it is.
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
        """Whether the rule is true; one that fails is false."""
        try:
            return self.run(context) is True
        except Failed:
            return False


@dataclass(slots=True)
class RuleNode:
    """The rules of one place; a named child hides the `$` variable for its key."""

    read: Rule | None = None
    write: Rule | None = None
    validate: Rule | None = None
    index_on: tuple[str, ...] = ()
    children: dict[str, RuleNode] = field(default_factory=dict)
    wildcard: RuleNode | None = None
    validates_below: bool = False

    def child(self, key: str) -> RuleNode | None:
        """Return the rules of child `key`."""
        return self.children.get(key, self.wildcard)

    def along(self, path: Path) -> list[RuleNode]:
        """Return the rules from here down to `path`, as far as there are any."""
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
        """Return the rules of the place `path` levels below."""
        nodes = self.along(path)
        return nodes[-1] if len(nodes) > len(path) else None

    def indexes(self, above: Pattern = ()) -> Iterator[tuple[Pattern, tuple[str, ...]]]:
        """Yield every `.indexOn` with the keys that lead to it, None for a `$` variable."""
        if self.index_on:
            yield above, self.index_on
        for key, node in self.children.items():
            yield from node.indexes((*above, key))
        if self.wildcard is not None:
            yield from self.wildcard.indexes((*above, None))

"""Early authorization: whether any write at a path could be allowed, before its value is known.

A rule that does not read `newData` can be decided at once. A rule that does may allow some value, so
it counts as allowing: the write itself evaluates it again, with the value.
"""

from __future__ import annotations

from elkyn.rules.compiler import Context
from elkyn.rules.nodes import Literal
from elkyn.rules.trie import Rule, RuleNode
from elkyn.tree.paths import Path
from elkyn.tree.values import Stored

__all__ = ["UNWRITTEN", "could_allow", "has_write_rule"]


class _NewDataReadError(Exception):
    """A rule has read `newData`. Not a `Failed`, which would make the rule false."""


class _Unwritten:
    """The tree after a write whose value is unknown."""

    def get(self, path: Path) -> Stored:
        raise _NewDataReadError

    def keys(self, path: Path) -> list[str] | None:
        raise _NewDataReadError

    def peek(self, path: Path) -> Stored:
        raise _NewDataReadError


UNWRITTEN = _Unwritten()
"""The `after` of a context for `could_allow`."""


def could_allow(rule: Rule, context: Context) -> bool:
    """Whether a `.write` rule is true, or depends on the new value."""
    try:
        return rule.allows(context)
    except _NewDataReadError:
        return True


def has_write_rule(node: RuleNode) -> bool:
    """Whether a `.write` other than the constant `false` is set at `node` or below it."""
    rule = node.write
    if rule is not None and not (isinstance(rule.tree, Literal) and rule.tree.value is False):
        return True
    below = [*node.children.values(), *([] if node.wildcard is None else [node.wildcard])]
    return any(map(has_write_rule, below))

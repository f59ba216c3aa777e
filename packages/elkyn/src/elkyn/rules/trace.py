"""Explanations of decisions: which rule decided, and which values it read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from elkyn.rules.compiler import Context, compile_expression
from elkyn.rules.kinds import Kind
from elkyn.rules.nodes import (
    Binary,
    Call,
    Conditional,
    Items,
    Logical,
    Member,
    Name,
    Node,
    Unary,
)
from elkyn.rules.operators import Failed
from elkyn.rules.trie import Rule
from elkyn.tree.paths import format_path

__all__ = ["Decision", "Explanation", "decided"]

_HIDDEN = (Kind.SNAPSHOT, Kind.ITEMS, Kind.REGEX, Kind.QUERY)
_TEXT_MAX = 200


class Decision(NamedTuple):
    """One evaluated rule.

    Args:
        kind: `.read`, `.write` or `.validate`.
        place: the rule's path in the file, with `$` variables.
        path: the path for which it was evaluated.
        text: the expression.
        line: the line in the file, from 1.
        column: the column in the file, from 1.
        allowed: the result.
        failure: why the evaluation failed; None when it did not.
        values: the values of its parts; a failed part has none.
    """

    kind: str
    place: str
    path: str
    text: str
    line: int
    column: int
    allowed: bool
    failure: str | None
    values: Mapping[str, Any]

    def __str__(self) -> str:
        said = "true" if self.allowed else "false"
        why = f" ({self.failure})" if self.failure else ""
        lines = [
            f"{self.kind} of {self.place} at {self.path} (line {self.line}): {said}{why}",
            f"    {_short(' '.join(self.text.split()))}",
        ]
        lines += [f"    {name} = {_shown(value)}" for name, value in self.values.items()]
        return "\n".join(lines)


class Explanation(NamedTuple):
    """Whether a request is allowed, and why.

    Args:
        allowed: the decision.
        kind: `.read` or `.write`.
        path: the path of a read; for a write the denied path, else its last one.
        decisions: every evaluated rule, in order.
    """

    allowed: bool
    kind: str
    path: str
    decisions: Sequence[Decision]

    @property
    def decisive(self) -> Decision | None:
        """The deciding rule; None when no rule granted access, or the rules do not apply."""
        if self.allowed:
            granting = [d for d in self.decisions if d.allowed and d.kind != ".validate"]
            return granting[-1] if granting else None
        refusing = [d for d in self.decisions if not d.allowed and d.kind == ".validate"]
        return refusing[-1] if refusing else None

    def __str__(self) -> str:
        decisive = self.decisive
        if decisive is not None:
            why = f"{decisive.kind} of {decisive.place}, line {decisive.line}"
        elif self.allowed:
            why = "the rules do not apply"
        else:
            why = f"no {self.kind} rule grants access to {self.path}"
        verdict = "allowed" if self.allowed else "denied"
        return "\n".join([f"{verdict}: {why}", *map(str, self.decisions)])


def decided(rule: Rule, context: Context) -> Decision:
    """Evaluate `rule`, and record its result and the values that it read."""
    failure = None
    try:
        allowed = rule.run(context) is True
    except Failed as error:
        allowed, failure = False, str(error)
    return Decision(
        rule.kind,
        rule.place,
        format_path(context.path[: rule.depth]),
        rule.text,
        rule.line,
        rule.column,
        allowed,
        failure,
        _values(rule, context),
    )


def _values(rule: Rule, context: Context) -> dict[str, Any]:
    keys = rule.place.split("/")[1:]
    levels = {key: level for level, key in enumerate(keys) if key.startswith("$")}
    values: dict[str, Any] = {}
    for node in _parts(rule.tree):
        try:
            value = compile_expression(node, rule.depth, levels)(context)
        except Failed:
            continue
        values[_short(rule.text[node.at : node.end])] = value
    return values


def _parts(node: Node) -> Iterator[Node]:
    """Yield the nodes to show: variables, properties and calls, without operators."""
    if isinstance(node, (Name, Member, Call)) and node.kind not in _HIDDEN:
        yield node
    for inner in _inside(node):
        yield from _parts(inner)


def _inside(node: Node) -> Sequence[Node]:
    if isinstance(node, Call):
        owner = node.method.owner if isinstance(node.method, Member) else node.method
        return node.arguments if isinstance(owner, Name) else [owner, *node.arguments]
    if isinstance(node, Member):
        return [] if node.computed is None else [node.computed]
    if isinstance(node, Items):
        return node.items
    if isinstance(node, Unary):
        return [node.operand]
    if isinstance(node, Binary):
        return [node.left, node.right]
    if isinstance(node, Logical):
        return node.operands
    return [node.test, node.yes, node.no] if isinstance(node, Conditional) else []


def _shown(value: Any) -> str:
    try:
        return _short(json.dumps(value, ensure_ascii=False))
    except TypeError:
        return repr(value)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"

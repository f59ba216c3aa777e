"""Which rule decided, and what it saw: the answer to "why may I not?"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from elkyn.paths import format_path
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

__all__ = ["Decision", "Explanation", "decided"]

_HIDDEN = (Kind.SNAPSHOT, Kind.ITEMS, Kind.REGEX, Kind.QUERY)
_TEXT_MAX = 200


class Decision(NamedTuple):
    """One rule that was asked.

    Args:
        kind: `.read`, `.write` or `.validate`.
        place: where the rule stands, with `$` variables.
        path: the place it was asked about.
        text: its expression.
        line: where it stands in the file, from 1.
        column: likewise.
        allowed: what it said.
        failure: why it could not go on; None when it could.
        values: its parts and what they were; a part that failed has no value.
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
    """Whether something is allowed, and why.

    Args:
        allowed: what the rules say.
        kind: `.read` or `.write`.
        path: the place that is read; of a write the one that was refused, else its last one.
        decisions: every rule that was asked, in order.
    """

    allowed: bool
    kind: str
    path: str
    decisions: Sequence[Decision]

    @property
    def decisive(self) -> Decision | None:
        """The rule that decided; None when none granted it, or the rules were not asked."""
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
            why = "the rules are not asked"
        else:
            why = f"no {self.kind} grants {self.path}"
        verdict = "allowed" if self.allowed else "denied"
        return "\n".join([f"{verdict}: {why}", *map(str, self.decisions)])


def decided(rule: Rule, context: Context) -> Decision:
    """Ask `rule`, and record what it said and saw."""
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
    """Yield what is worth showing: variables, properties and calls, not operators around them."""
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

"""Static type check: refuses expressions that can never evaluate.

`check_rule` sets the kind (static type) of every node. An expression whose kind is known only at run
time (`val()`, `auth`) is accepted wherever a number, a string or null is, but never where a boolean is
required: a rule must say `auth.admin === true`, not `auth.admin`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from elkyn.rules import regex
from elkyn.rules.kinds import MEMBERS, Kind, Method
from elkyn.rules.nodes import (
    Binary,
    Call,
    Conditional,
    Items,
    Literal,
    Logical,
    Member,
    Name,
    Node,
    Regex,
    Unary,
)
from elkyn.rules.problems import ExpressionError
from sennit_core.text import nearest

__all__ = ["check_rule"]

_EQUATABLE = {Kind.BOOLEAN, Kind.NUMBER, Kind.STRING, Kind.NULL, Kind.STORED, Kind.ANY}
_ORDERED = {Kind.NUMBER, Kind.STRING, Kind.NULL}
_LITERALS = {bool: Kind.BOOLEAN, str: Kind.STRING, type(None): Kind.NULL}


def check_rule(node: Node, variables: Mapping[str, Kind]) -> None:
    """Check a whole rule, which must evaluate to a boolean.

    Args:
        node: the tree of its expression; the check sets its kinds.
        variables: the kinds of the names in scope.

    Raises:
        ExpressionError: a part of it can never evaluate.
    """
    _Checker(variables).boolean(node, "a rule must be")


class _Checker:
    def __init__(self, variables: Mapping[str, Kind]) -> None:
        self.variables = variables

    def kind(self, node: Node) -> Kind:
        node.kind = _CHECKS[type(node)](self, node)
        return node.kind

    def value(self, node: Node) -> Kind:
        """Check a node that is an operand: anything but a snapshot, a query, a list, a regex."""
        kind = self.kind(node)
        if kind not in _EQUATABLE:
            hint = "; compare its val() or call exists()" if kind is Kind.SNAPSHOT else ""
            raise ExpressionError(f"{kind.value} cannot be an operand{hint}", node.at)
        return kind

    def boolean(self, node: Node, what: str) -> None:
        kind = self.kind(node)
        # No conversion to a boolean, unlike in JavaScript.
        if kind is not Kind.BOOLEAN:
            hint = "; compare it: … === true" if kind.open else ""
            raise ExpressionError(f"{what} a boolean, and this is {kind.value}{hint}", node.at)

    def some(self, node: Node, wanted: Kind, what: str) -> None:
        kind = self.kind(node)
        if kind is not wanted and not (kind.open and wanted in (Kind.STRING, Kind.NUMBER)):
            raise ExpressionError(f"{what} {wanted.value}, and this is {kind.value}", node.at)

    def literal(self, node: Literal) -> Kind:
        return _LITERALS.get(type(node.value), Kind.NUMBER)

    def regex(self, node: Regex) -> Kind:
        try:
            regex.compile_regex(node.pattern, node.flags)
        except ExpressionError as error:
            raise ExpressionError(error.text, node.pattern_at + error.at) from None
        return Kind.REGEX

    def name(self, node: Name) -> Kind:
        kind = self.variables.get(node.name)
        if kind is not None:
            return kind
        if node.name.startswith("$"):
            raise ExpressionError(f"no level above this rule is named {node.name}", node.at)
        if node.name == "newData":
            raise ExpressionError("a .read rule has no newData: a read writes nothing", node.at)
        guess = nearest(node.name[:80], tuple(self.variables))
        hint = f"; did you mean {guess}?" if guess else ""
        raise ExpressionError(f"unknown name {node.name[:80]!r}{hint}", node.at)

    def items(self, node: Items) -> Kind:
        if not node.items:
            raise ExpressionError("a list must not be empty", node.at)
        for item in node.items:
            self.some(item, Kind.STRING, "a list must contain")
        return Kind.ITEMS

    def member(self, node: Member) -> Kind:
        found = self.find(node)
        if isinstance(found, Method):
            raise ExpressionError(f"{node.name} is a method: call it", node.owner.end)
        return found

    def find(self, node: Member) -> Kind | Method:
        owner = self.kind(node.owner)
        if node.computed is not None:
            return self.computed(node, owner, node.computed)
        assert node.name is not None
        if owner is Kind.ANY:
            return Kind.ANY
        members = MEMBERS.get(owner, {})
        if node.name not in members:
            raise ExpressionError(_no_member(node.name, owner, members), node.owner.end)
        return members[node.name]

    def computed(self, node: Member, owner: Kind, inner: Node) -> Kind:
        kind = self.value(inner)
        if owner is not Kind.ANY:
            raise ExpressionError(
                f"members of {owner.value} must be literal names, not computed", inner.at
            )
        if kind in (Kind.BOOLEAN, Kind.NULL):
            raise ExpressionError(f"{kind.value} cannot be the name of a property", inner.at)
        return Kind.ANY

    def call(self, node: Call) -> Kind:
        method = node.method
        if not isinstance(method, Member):
            raise ExpressionError("this is not a method", method.at)
        found = self.find(method)
        if method.name is None:
            raise ExpressionError("the name of a method cannot be computed", method.owner.end)
        if found is Kind.ANY:
            found = MEMBERS[Kind.ANY].get(method.name, Kind.ANY)
        if not isinstance(found, Method):
            owner = method.owner.kind
            text = _no_member(method.name, owner, MEMBERS[owner])
            raise ExpressionError(
                f"{method.name} is not a method" if method.name in MEMBERS[owner] else text,
                method.owner.end,
            )
        self.arguments(node, method.name, found)
        return found.result

    def arguments(self, node: Call, name: str, method: Method) -> None:
        count, wanted = len(node.arguments), len(method.parameters)
        if count != wanted and not (method.optional and count == 0):
            many = "no argument" if wanted == 0 else "1 argument" if wanted == 1 else "2 arguments"
            listed = ": a list of strings" if Kind.ITEMS in method.parameters else ""
            raise ExpressionError(f"{name} needs {many}{listed}, and the call has {count}", node.at)
        for argument, kind in zip(node.arguments, method.parameters, strict=False):
            self.some(argument, kind, f"{name} needs")

    def unary(self, node: Unary) -> Kind:
        if node.operator == "!":
            self.boolean(node.operand, "! needs")
            return Kind.BOOLEAN
        self.some(node.operand, Kind.NUMBER, "- needs")
        return Kind.NUMBER

    def binary(self, node: Binary) -> Kind:
        left, right = self.value(node.left), self.value(node.right)
        if node.operator in ("===", "!=="):
            return Kind.BOOLEAN
        if node.operator == "+":
            return self.sum(node, left, right)
        if node.operator in ("<", "<=", ">", ">="):
            return self.order(node, left, right)
        for operand, kind in ((node.left, left), (node.right, right)):
            if kind is not Kind.NUMBER and not kind.open:
                raise ExpressionError(
                    f"{node.operator} needs numbers, and this is {kind.value}", operand.at
                )
        return Kind.NUMBER

    def sum(self, node: Binary, left: Kind, right: Kind) -> Kind:
        for operand, kind in ((node.left, left), (node.right, right)):
            if kind in (Kind.BOOLEAN, Kind.NULL):
                raise ExpressionError(
                    f"+ needs numbers or strings, and this is {kind.value}", operand.at
                )
        if Kind.STRING in (left, right):
            return Kind.STRING
        # Two values that only the running rule knows may be numbers or strings.
        return Kind.NUMBER if left is right is Kind.NUMBER else Kind.STORED

    def order(self, node: Binary, left: Kind, right: Kind) -> Kind:
        for operand, kind in ((node.left, left), (node.right, right)):
            if kind not in _ORDERED and not kind.open:
                raise ExpressionError(
                    f"{node.operator} compares numbers or strings, and this is {kind.value}",
                    operand.at,
                )
        if left is not right and not left.open and not right.open:
            raise ExpressionError(
                f"{node.operator} cannot compare {left.value} and {right.value}", node.at
            )
        return Kind.BOOLEAN

    def logical(self, node: Logical) -> Kind:
        for operand in node.operands:
            self.boolean(operand, f"{node.operator} needs")
        return Kind.BOOLEAN

    def conditional(self, node: Conditional) -> Kind:
        self.boolean(node.test, "the condition of ? must be")
        yes, no = self.kind(node.yes), self.kind(node.no)
        if yes is no is Kind.SNAPSHOT:
            return yes
        if yes not in _EQUATABLE or no not in _EQUATABLE:
            raise ExpressionError(f"? cannot choose between {yes.value} and {no.value}", node.at)
        if yes is no:
            return yes
        return Kind.ANY if Kind.ANY in (yes, no) else Kind.STORED


def _no_member(name: str, owner: Kind, members: Mapping[str, Any]) -> str:
    guess = nearest(name[:80], tuple(members))
    hint = f"; did you mean {guess}?" if guess else ""
    return f"{owner.value} has no member {name[:80]!r}{hint}"


_CHECKS: dict[type, Callable[[_Checker, Any], Kind]] = {
    Literal: _Checker.literal,
    Regex: _Checker.regex,
    Name: _Checker.name,
    Items: _Checker.items,
    Member: _Checker.member,
    Call: _Checker.call,
    Unary: _Checker.unary,
    Binary: _Checker.binary,
    Logical: _Checker.logical,
    Conditional: _Checker.conditional,
}

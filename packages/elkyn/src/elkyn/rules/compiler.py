"""Compiles checked expressions to Python closures over the `Context` of one evaluation.

The depth of a rule is known at compile time, so `$x` is one key of the context's path, and `data` the
path cut at that depth. Static kinds select the closure at compile time; nothing that depends on data
is cached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from elkyn.rules import regex
from elkyn.rules.kinds import Kind
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
from elkyn.rules.operators import (
    arithmetic,
    equal,
    negative,
    number_text,
    ordered,
    text_method,
    utf16_length,
)
from elkyn.rules.query_fields import query_field
from elkyn.rules.snapshots import (
    NOWHERE,
    Snapshot,
    child_of,
    illegal_child,
    parent_of,
    priority_at,
    split_path,
    value_at,
)
from elkyn.tree.paths import Path
from elkyn.tree.reader import MAP, Reader

if TYPE_CHECKING:
    from elkyn.tree.query import Query

__all__ = ["Closure", "Context", "compile_expression"]


class Context:
    """The inputs of one evaluation.

    Args:
        before: the current tree.
        after: the tree as the write would leave it; the same as `before` for reads.
        auth: the caller, as rules see it.
        now: the time, in milliseconds since 1970.
        query: the query of a read.
    """

    __slots__ = ("after", "auth", "before", "now", "path", "query")

    def __init__(
        self,
        before: Reader,
        after: Reader,
        auth: dict[str, Any] | None,
        now: int,
        query: Query | None = None,
    ) -> None:
        self.before = before
        self.after = after
        self.auth = auth
        self.now = now
        self.query = query
        # The path that is evaluated; set by `RuleSet` before each rule. A rule at depth d sees its
        # first d keys.
        self.path: Path = ()


Closure: TypeAlias = Callable[[Context], Any]


def compile_expression(node: Node, depth: int, levels: Mapping[str, int]) -> Closure:
    """Compile a checked expression.

    Args:
        node: the expression's tree.
        depth: the number of keys above its rule.
        levels: the index among these keys of each `$` variable.
    """
    return _Compiler(depth, levels).compile(node)


class _Compiler:
    def __init__(self, depth: int, levels: Mapping[str, int]) -> None:
        self.depth = depth
        self.levels = levels

    def compile(self, node: Node) -> Closure:
        return _COMPILERS[type(node)](self, node)

    def literal(self, node: Literal) -> Closure:
        value = node.value
        return lambda context: value

    def regex(self, node: Regex) -> Closure:
        pattern = regex.compile_regex(node.pattern, node.flags)
        return lambda context: pattern

    def name(self, node: Name) -> Closure:
        # A `$` variable is a key of the path at a depth that is known here: no table of variables
        # at run time.
        if node.name in self.levels:
            level = self.levels[node.name]
            return lambda context: context.path[level]
        depth = self.depth
        variables: dict[str, Closure] = {
            "auth": lambda context: context.auth,
            "now": lambda context: context.now,
            "root": lambda context: (context.before, ()),
            "data": lambda context: (context.before, context.path[:depth]),
            "newData": lambda context: (context.after, context.path[:depth]),
        }
        return variables[node.name]

    def items(self, node: Items) -> Closure:
        closures = [self.compile(item) for item in node.items]
        return lambda context: [closure(context) for closure in closures]

    def member(self, node: Member) -> Closure:
        if node.computed is not None:
            owner, computed = self.compile(node.owner), self.compile(node.computed)
            return lambda context: _property(owner(context), computed(context))
        assert node.name is not None
        name = node.name
        if node.owner.kind is Kind.QUERY:
            return lambda context: query_field(context.query, name)
        if isinstance(node.owner, Name) and node.owner.name == "auth":
            return lambda context: None if context.auth is None else context.auth.get(name)
        owner = self.compile(node.owner)
        return lambda context: _property(owner(context), name)

    def call(self, node: Call) -> Closure:
        method = node.method
        assert isinstance(method, Member)
        assert method.name is not None
        if method.owner.kind is Kind.SNAPSHOT:
            return self.snapshot_call(method.name, self.compile(method.owner), node.arguments)
        name, owner = method.name, self.compile(method.owner)
        arguments = [self.compile(argument) for argument in node.arguments]
        return lambda context: text_method(
            name, owner(context), [argument(context) for argument in arguments]
        )

    def snapshot_call(self, name: str, owner: Closure, arguments: list[Node]) -> Closure:
        if not arguments:
            call = _SNAPSHOT_CALLS[name]
            return lambda context: call(*owner(context))
        if name == "child":
            return self.child(owner, arguments[0])
        if name == "hasChild":
            found = self.child(owner, arguments[0])
            return lambda context: _exists(*found(context))
        listed = arguments[0]
        assert isinstance(listed, Items)
        return self.has_children(owner, listed.items)

    def child(self, owner: Closure, relative: Node) -> Closure:
        # Split once, here, and not at each evaluation.
        if isinstance(relative, Literal):
            steps = split_path(relative.value)
            if steps is None:
                return _after(owner, NOWHERE)
            keys, illegal = steps
            if illegal is not None:
                return lambda context: illegal_child(owner(context), keys, illegal)

            def fixed_child(context: Context) -> Snapshot:
                reader, path = owner(context)
                return reader, path + keys

            return fixed_child
        named_by = self.compile(relative)
        return lambda context: child_of(owner(context), named_by(context))

    def has_children(self, owner: Closure, items: list[Node]) -> Closure:
        if all(isinstance(item, Literal) for item in items):
            fixed = [split_path(item.value) for item in items if isinstance(item, Literal)]
            paths = [steps.keys for steps in fixed if steps is not None and steps.illegal is None]
            if len(paths) < len(items):
                return _after(owner, False)

            def has_fixed_children(context: Context) -> bool:
                reader, path = owner(context)
                peek = reader.peek
                for keys in paths:  # noqa: SIM110 - a generator costs a microsecond
                    if peek(path + keys) is None:
                        return False
                return True

            return has_fixed_children
        children = [self.compile(item) for item in items]

        def has_children(context: Context) -> bool:
            snapshot = owner(context)
            return all(_exists(*child_of(snapshot, child(context))) for child in children)

        return has_children

    def unary(self, node: Unary) -> Closure:
        operand = self.compile(node.operand)
        if node.operator == "!":
            return lambda context: not operand(context)
        return lambda context: negative(operand(context))

    def binary(self, node: Binary) -> Closure:
        operator = node.operator
        if operator in ("===", "!=="):
            same = self.equality(node)
            return same if operator == "===" else lambda context: not same(context)
        left, right = self.compile(node.left), self.compile(node.right)
        if operator in ("<", "<=", ">", ">="):
            return lambda context: ordered(operator, left(context), right(context))
        return lambda context: arithmetic(operator, left(context), right(context))

    def equality(self, node: Binary) -> Closure:
        left, right = self.compile(node.left), self.compile(node.right)
        if isinstance(node.right, Literal) and node.right.value in (None, True, False):
            # `is` suffices for null and booleans; the most common comparisons.
            constant = node.right.value
            if constant is None or type(constant) is bool:
                return lambda context: left(context) is constant
        # A string never equals a value of another type, in Python as in JavaScript.
        if Kind.STRING in (node.left.kind, node.right.kind):
            return lambda context: left(context) == right(context)
        return lambda context: equal(left(context), right(context))

    def logical(self, node: Logical) -> Closure:
        closures = [self.compile(operand) for operand in node.operands]
        # Python's own operators: the checker has made sure that both sides are booleans.
        if len(closures) == 2:
            first, second = closures
            if node.operator == "&&":
                return lambda context: first(context) and second(context)
            return lambda context: first(context) or second(context)
        decisive: bool = node.operator == "||"

        def chain(context: Context) -> bool:
            for closure in closures:
                if bool(closure(context)) == decisive:
                    return decisive
            return not decisive

        return chain

    def conditional(self, node: Conditional) -> Closure:
        test, yes, no = self.compile(node.test), self.compile(node.yes), self.compile(node.no)
        return lambda context: yes(context) if test(context) else no(context)


def _after(owner: Closure, value: Any) -> Closure:
    """Return a closure with a constant value, which fails where its owner fails."""

    # The owner is evaluated all the same: if it fails, so does the rule.
    def known(context: Context) -> Any:
        owner(context)
        return value

    return known


def _exists(reader: Reader, path: Path) -> bool:
    return reader.peek(path) is not None


_SNAPSHOT_CALLS: dict[str, Callable[[Reader, Path], Any]] = {
    "val": value_at,
    "exists": _exists,
    "parent": lambda reader, path: parent_of((reader, path)),
    "hasChildren": lambda reader, path: reader.peek(path) is MAP,
    "getPriority": priority_at,
    "isNumber": lambda reader, path: type(reader.peek(path)) in (int, float),
    "isString": lambda reader, path: type(reader.peek(path)) is str,
    "isBoolean": lambda reader, path: type(reader.peek(path)) is bool,
}


def _property(owner: Any, name: Any) -> Any:
    """Read a property; null if the owner is null or lacks the property."""
    if type(name) is not str:
        name = number_text(name) if type(name) in (int, float) else json.dumps(name)
    if isinstance(owner, Mapping):
        return owner.get(name)
    if type(owner) is str and name == "length":
        return utf16_length(owner)
    if isinstance(owner, list):
        if name == "length":
            return len(owner)
        return dict(zip(map(str, range(len(owner))), owner, strict=True)).get(name)
    return None


_COMPILERS: dict[type, Callable[[_Compiler, Any], Closure]] = {
    Literal: _Compiler.literal,
    Regex: _Compiler.regex,
    Name: _Compiler.name,
    Items: _Compiler.items,
    Member: _Compiler.member,
    Call: _Compiler.call,
    Unary: _Compiler.unary,
    Binary: _Compiler.binary,
    Logical: _Compiler.logical,
    Conditional: _Compiler.conditional,
}
